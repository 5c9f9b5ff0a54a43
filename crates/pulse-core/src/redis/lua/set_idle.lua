-- Sets the idle time of those events that are pending for a consumer; their delivery counts stay.
--
-- KEYS[1] the stream. ARGV: group, consumer, idle time in milliseconds, ids.
-- Replies the ids that are pending for the consumer. One whose event was deleted from the stream is left as it is, so
-- that a claim reports it.

local kept = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])
  if pending[1] then
    kept[#kept + 1] = id
    if redis.call('XRANGE', KEYS[1], id, id)[1] then
      redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'IDLE', ARGV[3], 'JUSTID')
    end
  end
end
return kept
