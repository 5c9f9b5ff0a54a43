-- The writes to streams, once everything is decided.

local function write_streams()
  -- The last id of a stream. Only for streams that exist.
  local function last_id(key)
    local info = call('XINFO', 'STREAM', key)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        return info[i + 1]
      end
    end
  end

  -- The id of the first event of a stream that was destroyed a moment ago: greater than all that it had, although the
  -- clock stands still while a script runs.
  local function first_id(before)
    local millis, sequence = match(before, '^(%d+)-(%d+)$')
    -- A stranger's sequence number may be too large to be raised here.
    if tonumber(millis) < now() or #sequence > 15 then
      return '*'
    end
    return millis .. '-' .. format('%.0f', tonumber(sequence) + 1)
  end

  local rung, past = {}, {}
  -- How often an event was appended once to each stream.
  local onces = {}
  for i = 1, #stream_writes, 3 do
    local code, at, index = stream_writes[i], stream_writes[i + 1], stream_writes[i + 2]
    local stream = writes[at]
    local key, name = KEYS[#map_table + stream], ARGV[stream_table[stream][1]]
    if code == 11 or code == 24 then
      local found
      if code == 24 then
        need_onces()
        found = find_once(key, PREFIX .. 'u:' .. name, PREFIX .. 'x:' .. name, ARGV[writes[at + 3]])
      end
      if found then
        results[index] = found
      else
        local id = past[stream] and first_id(past[stream]) or '*'
        past[stream] = nil
        results[index] = call('XADD', key, id, unpack(ARGV, writes[at + 1], writes[at + 2]))
        rung[stream] = true
        if code == 24 then
          record_once(PREFIX .. 'u:' .. name, PREFIX .. 'x:' .. name, ARGV[writes[at + 3]], writes[at + 4], results[index])
          onces[stream] = (onces[stream] or 0) + 1
        end
      end
    elseif code == 12 or code == 13 then
      need_trims()
      results[index] = trim(key, PREFIX .. 'g:' .. name, code, writes[at + 1], ARGV[writes[at + 2]])
    elseif code >= 22 then
      need_trims()
      results[index] = trim(key, PREFIX .. 'g:' .. name, code, writes[at + 1], writes[at + 2])
    elseif code == 14 then
      local count = 0
      for from = writes[at + 1], writes[at + 2], CHUNK do
        count = count + call('XDEL', key, unpack(ARGV, from, math.min(from + CHUNK - 1, writes[at + 2])))
      end
      results[index] = count
    elseif code == 15 then
      local count, group = 0, ARGV[writes[at + 1]]
      for from = writes[at + 2], writes[at + 3], CHUNK do
        count = count + call('XACK', key, group, unpack(ARGV, from, math.min(from + CHUNK - 1, writes[at + 3])))
      end
      results[index] = count
    else
      results[index] = call('XLEN', key)
      if call('EXISTS', key) == 1 then
        past[stream] = last_id(key)
        call('UNLINK', key, PREFIX .. 'u:' .. name, PREFIX .. 'x:' .. name, PREFIX .. 'g:' .. name)
        rung[stream] = true
      end
    end
  end
  for i = 1, #expiries, 3 do
    local at = expiries[i + 1]
    if expiries[i] == 17 then
      local key, kind = KEYS[#map_table + writes[at]], writes[at + 1]
      if kind == 2 then
        call('PERSIST', key)
      elseif kind == 1 then
        call('PEXPIREAT', key, format('%.0f', now() + writes[at + 2]))
      elseif call('PTTL', key) == -1 then
        call('PEXPIREAT', key, format('%.0f', now() + writes[at + 2]))
      end
      onces[writes[at]] = onces[writes[at]] or 0
      local missed, ends = PREFIX .. 'g:' .. ARGV[stream_table[writes[at]][1]], call('PEXPIRETIME', key)
      if ends > 0 then
        call('PEXPIREAT', missed, format('%.0f', ends))
      else
        call('PERSIST', missed)
      end
    end
  end
  for stream, count in pairs(onces) do
    need_onces()
    local name = ARGV[stream_table[stream][1]]
    tidy_onces(KEYS[#map_table + stream], PREFIX .. 'u:' .. name, PREFIX .. 'x:' .. name, math.min(CHUNK, 2 * count + 2))
  end
  for stream in pairs(rung) do
    call('SPUBLISH', PREFIX .. 'w:' .. ARGV[stream_table[stream][1]], '')
  end
end
