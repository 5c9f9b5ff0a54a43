-- The commonest transaction, at the cost of three commands: unbound puts of different keys into one map that exists,
-- where none of the keys is bound. Does exactly what the general script would do; replies 0, with nothing changed, where
-- it would have to do more.
--
-- KEYS[1]  the hash of the map.
-- ARGV[1]  the channel of the map's commits.
-- ARGV[2…] keys and values in turn.
--
-- Replies the version, then the previous value of each key.

local call, sub = redis.call, string.sub
local map, count = KEYS[1], #ARGV

-- A single put is done without tables of its own, which cost more here than all else.
local keys
if count > 3 then
  keys = {}
  for i = 2, count, 2 do
    keys[#keys + 1] = ARGV[i]
  end
end
local found = keys and call('HMGET', map, '', unpack(keys)) or call('HMGET', map, '', ARGV[2])
local header = found[1]
if not header then
  return 0
end

local revision, rest = nil, ''
if string.find(header, '^%x+$') then
  revision = tonumber(sub(header, 17))
elseif string.find(header, '^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%d') then
  local bound
  revision, bound, rest = string.match(header, '^(%d+)(b?)(@?%d*)$', 17)
  revision = tonumber(revision)
  if not revision then
    return 0
  end
  if bound ~= '' then
    rest = bound .. rest
    -- The scope is the hash tag, and nothing before or in it can hold this pattern.
    local bindings = call('HMGET', (string.gsub(map, '}:m:', '}:b:', 1)), unpack(keys or { ARGV[2] }))
    for i = 1, #bindings do
      if bindings[i] then
        return 0
      end
    end
  end
end
-- A stranger's header may hold any number; up to here they are whole and exact.
if not (revision and revision >= 1 and revision < 1e15 and revision % 1 == 0) then
  return 0
end

local version = sub(header, 1, 16) .. string.format('%.0f', revision + 1)
call('HSET', map, '', version .. rest, unpack(ARGV, 2))
local told = redis.pcall('SPUBLISH', ARGV[1], cmsgpack.pack(version, unpack(ARGV, 2)))
if type(told) == 'table' then
  return redis.error_reply('HALFWAY ' .. told.err)
end
found[1] = version
return found
