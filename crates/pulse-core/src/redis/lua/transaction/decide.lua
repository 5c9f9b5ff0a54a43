-- The first half: reads and decides.

local function decide()
  for i = 1, #map_table do
    local entry = map_table[i]
    open_map(ARGV[entry[1]], KEYS[i], entry[2], entry[3])
  end
  for i = 1, #stream_table do
    local key = KEYS[#map_table + i]
    local length = call('XLEN', key)
    -- One without events may have used up its ids as well.
    if stream_table[i][2] > 0 and (length > 0 or call('EXISTS', key) == 1) then
      local info = call('XINFO', 'STREAM', key)
      for j = 1, #info, 2 do
        -- An id is exhausted when both of its halves are; stop well before the second one is.
        if info[j] == 'last-generated-id' and match(info[j + 1], '^18446744073709551615%-1%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$') then
          leave(5, i, info[j + 1])
        end
      end
    end
  end

  local at, index = 1, 0
  while expectations[at] do
    at = at + 1 + check(expectations[at], index, at + 1)
    index = index + 1
  end

  at, index = 1, 1
  while writes[at] do
    at = at + 1 + stage(writes[at], index, at + 1)
    index = index + 1
  end

  for stream, needed in pairs(satellites) do
    local name = ARGV[stream_table[stream][1]]
    if needed then
      call('HLEN', PREFIX .. 'u:' .. name)
      call('ZCARD', PREFIX .. 'x:' .. name)
      call('HLEN', PREFIX .. 'g:' .. name)
    end
  end

  for i = 1, #maps do
    local map = maps[i]
    if map.count > 0 then
      message(map)
      map.header_changed = true
    end
    -- Nothing of an earlier map of that name, which the server expired, may stick to the new one.
    if map.header_changed and not map.existed and not map.rebound and call('HLEN', map.bindings_key) > 0 then
      refuse_while_migrating()
      map.drop_bindings = true
    end
  end
  for i = 1, #expiries, 3 do
    local at = expiries[i + 1]
    if expiries[i] == 10 then
      local map, kind = maps[writes[at]], writes[at + 1]
      if map.exists and (kind == 1 or (kind == 0 and not map.deadline) or (kind == 2 and map.deadline)) then
        expire(map, kind ~= 2 and now() + writes[at + 2] or nil)
      end
    end
  end
end
