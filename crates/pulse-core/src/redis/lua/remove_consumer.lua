-- Removes a consumer of a group unless events are pending for it. Replies 1 if it is gone, 0 if it stays.
--
-- KEYS[1] the stream. ARGV: group, consumer.

if redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])[1] then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
