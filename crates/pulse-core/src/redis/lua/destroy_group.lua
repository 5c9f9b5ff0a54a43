-- Removes a consumer group, and what is known of what it missed. Replies how many groups were removed.
--
-- KEYS[1] the stream. ARGV: group, the hash of what groups missed.

local destroyed = redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
redis.pcall('HDEL', ARGV[2], ARGV[1])
return destroyed
