-- Removes a consumer group, and what is known of what it missed. Replies how many groups were removed.
--
-- KEYS[1] the stream. ARGV: group, the hash of what groups missed.

local destroyed = redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
redis.pcall('HDEL', ARGV[2], ARGV[1])
-- What the server counts for another group of that name begins anew; see missed.lua.
local known = redis.pcall('HGET', ARGV[2], '')
local fine, counted = pcall(cmsgpack.unpack, known)
if fine and type(counted) == 'table' and type(counted.groups) == 'table' and counted.groups[ARGV[1]] then
  counted.groups[ARGV[1]] = nil
  redis.call('HSET', ARGV[2], '', cmsgpack.pack(counted))
end
return destroyed
