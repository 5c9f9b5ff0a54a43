-- Maps: what the server holds of them, and what the transaction has made of them so far.

local maps, maps_by_name = {}, {}

local function open_map(name, key, first, last)
  local map = {
    name = name, key = key, bindings_key = PREFIX .. 'b:' .. name, first = first, last = last,
    stored = {}, -- what the server holds, as far as it was read
    staged = {}, -- what the transaction makes of it; false: deleted
    stored_bindings = {}, staged_bindings = {},
    changes = {}, count = 0,
    emptied = false, -- whether the transaction cleared or destroyed the stored entries
    header_changed = false, rebound = false, expiry_changed = false,
  }
  local header
  if last - first < CHUNK then
    local found = call('HMGET', key, '', unpack(ARGV, first, last))
    header = found[1]
    local stored = map.stored
    for i = first, last do
      stored[ARGV[i]] = found[i - first + 2]
    end
  else
    header = call('HGET', key, '')
    for from = first, last, CHUNK do
      local to = math.min(from + CHUNK - 1, last)
      local found = call('HMGET', key, unpack(ARGV, from, to))
      for i = from, to do
        map.stored[ARGV[i]] = found[i - from + 1]
      end
    end
  end
  if header then
    local revision, bound, deadline = match(header, '^(%d+)(b?)@?(%d*)$', 17)
    if not revision or #revision > 15 or not find(header, HEADER) then
      leave(4, key, 'the header of the map is not one')
    end
    map.exists, map.existed = true, true
    map.incarnation = sub(header, 1, 16)
    map.revision = tonumber(revision)
    map.bound = bound == 'b'
    map.deadline = tonumber(deadline)
  else
    if call('HLEN', key) > 0 then
      leave(4, key, 'a hash without the header of a map')
    end
    map.exists, map.existed, map.bound = false, false, false
    map.revision = 0
  end
  maps[#maps + 1] = map
  maps_by_name[name] = map
  return map
end

local function map_named(name)
  return maps_by_name[name] or open_map(name, PREFIX .. 'm:' .. name, 1, 0)
end

local function stored_value(map, key)
  local value = map.stored[key]
  if value == nil then
    value = map.existed and call('HGET', map.key, key) or false
    map.stored[key] = value
  end
  return value
end

local function value_of(map, key)
  local value = map.staged[key]
  if value ~= nil then
    return value
  end
  return not map.emptied and stored_value(map, key)
end

local created = 0

local function change(map, key, value)
  if not map.exists then
    created = created + 1
    map.exists = true
    map.incarnation = sub(redis.sha1hex(ARGV[3] .. created), 1, 16)
    map.revision = 0
  end
  map.staged[key] = value
  local count = map.count
  map.changes[count + 1] = key
  map.changes[count + 2] = value
  map.count = count + 2
end

local function count_of(map)
  local count = 0
  if map.existed and not map.emptied then
    count = call('HLEN', map.key) - 1
    for key in pairs(map.staged) do
      if stored_value(map, key) then
        count = count - 1
      end
    end
  end
  for _, value in pairs(map.staged) do
    if value then
      count = count + 1
    end
  end
  return count
end
