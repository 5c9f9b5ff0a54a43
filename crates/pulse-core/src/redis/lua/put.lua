-- The commonest transaction, at the cost of three commands: unbound puts of different keys into one map that exists
-- and has no bindings. Does exactly what the general script would do; replies 0, with nothing changed, where it would
-- have to do more.
--
-- KEYS[1]  the hash of the map.
-- ARGV[1]  the channel of the map's commits.
-- ARGV[2…] keys and values in turn.
--
-- Replies the version, then the previous value of each key.

local keys, count = {}, 0
for i = 2, #ARGV, 2 do
  count = count + 1
  keys[count] = ARGV[i]
end
local found = redis.call('HMGET', KEYS[1], '', unpack(keys))
local header = found[1]
if not header then
  return 0
end
local incarnation = string.sub(header, 1, 16)
local revision, rest = string.match(header, '^(%d+)(@?%d*)$', 17)
if not revision or #revision > 15 then
  return 0
end
revision = tonumber(revision)
local version = incarnation .. string.format('%.0f', revision + 1)
redis.call('HSET', KEYS[1], '', version .. rest, unpack(ARGV, 2))
redis.call('SPUBLISH', ARGV[1], cmsgpack.pack(incarnation, revision, revision + 1, unpack(ARGV, 2)))
found[1] = version
return found
