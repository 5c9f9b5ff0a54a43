-- Takes over idle pending events of a consumer group.
--
-- KEYS[1] the stream. ARGV: group, consumer, least idle time in milliseconds, limit.
-- Replies { entries as of XRANGE, delivery counts in the same order, ids that were deleted from the stream }.

local pending = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])
local entries, counts, deleted = {}, {}, {}
for i = 1, #pending do
  local id, deliveries = pending[i][1], pending[i][4]
  -- One id at a time, because an entry that is gone leaves no trace in the reply. Servers remove it from the pending
  -- list on this occasion since 7.0; acknowledging makes sure.
  local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)
  if claimed[1] and type(claimed[1]) == 'table' and claimed[1][2] then
    entries[#entries + 1] = claimed[1]
    counts[#counts + 1] = deliveries + 1
  else
    redis.call('XACK', KEYS[1], ARGV[1], id)
    deleted[#deleted + 1] = id
  end
end
return { entries, counts, deleted }
