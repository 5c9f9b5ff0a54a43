-- Takes what trims took from a consumer group, as trims.lua recorded it; nothing if that is nothing.
--
-- KEYS[1] the hash of what groups missed. ARGV: group.

local missed = redis.call('HGET', KEYS[1], ARGV[1])
if missed then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return missed
