-- Appends events to one stream, each by itself: they come from different callers at the same moment.
--
-- KEYS[1]  the stream.
-- ARGV[1]  its doorbell.
-- ARGV[2…] for each event the number of its strings, then fields and values in turn.
--
-- Replies for each event its id, or the error that kept it from being appended.

local pcall, key, ids, count, at = redis.pcall, KEYS[1], {}, 0, 2
while ARGV[at] do
  local last = at + ARGV[at]
  count = count + 1
  ids[count] = pcall('XADD', key, '*', unpack(ARGV, at + 1, last))
  at = last + 1
end
-- Whoever may not ring leaves readers to look by themselves.
pcall('SPUBLISH', ARGV[1], '')
return ids
