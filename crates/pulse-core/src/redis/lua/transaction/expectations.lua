-- Expectations.

local function version_of(map)
  return map.exists and map.incarnation .. format('%.0f', map.revision) or ''
end

-- Checks the expectation whose operands begin at the given place, and returns how many it has.
local function check(code, index, at)
  local first, second = expectations[at], expectations[at + 1]
  if code <= 3 then -- equals: map, key, value; absent: map, key; present: map, key
    local value = value_of(maps[first], ARGV[second])
    if code == 1 then
      if value ~= ARGV[expectations[at + 2]] then
        leave(1, index, value)
      end
      return 3
    end
    if (code == 2) == (value ~= false) then
      leave(1, index, value)
    end
    return 2
  elseif code == 4 then -- version: map, version as in the header or ""
    local version = version_of(maps[first])
    if version ~= ARGV[second] then
      leave(1, index, version)
    end
    return 2
  elseif code == 5 then -- fewer entries than: map, number
    local count = count_of(maps[first])
    if count >= second then
      leave(1, index, count)
    end
    return 2
  elseif code <= 7 then -- lease alive: lease; lease expired: lease
    need_leases()
    if is_alive(lease_of(ARGV[first])) ~= (code == 6) then
      leave(1, index)
    end
    return 1
  elseif code == 8 then -- stream exists: stream
    if call('EXISTS', KEYS[#map_table + first]) == 0 then
      leave(1, index)
    end
    return 1
  end
  -- stream shorter than: stream, number
  local length = call('XLEN', KEYS[#map_table + first])
  if length >= second then
    leave(1, index, length)
  end
  return 2
end
