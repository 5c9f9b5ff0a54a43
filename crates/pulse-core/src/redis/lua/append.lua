-- Appends events to one stream: one transaction, or several of different callers at the same moment, each by itself. They
-- share what they expect of the stream, and what is done with it after the appends.
--
-- KEYS[1]  the stream.
-- ARGV[1]  its doorbell.
-- ARGV[2]  how many arguments tell what they share: 0 if that is nothing, else 11:
--            the hash and the sorted set of what was appended once, and whether anything is,
--            which length is too long or "", whether the stream must exist: 0, 1 if asked before the length, 2 if after,
--            a trim: its code in trims.lua or "", whether approximately, its operand,
--            a lifetime: 0 if unset, 1 renew, 2 never or "", milliseconds,
--            and the hash of what groups missed
-- then for each event the number of its strings, 100 more if it belongs to the transaction of the one before it, 1000 more
-- if it is appended once; then, in this case, its once-id and window in milliseconds; then fields and values in turn.
--
-- Replies for each event its id, or the error that kept its transaction from being carried out, or a number: the length
-- that is too long, -1 if there is no stream, -2 if the general script has to do the transaction; and at the end how many
-- events were trimmed.

local call, find, format, match, type, tonumber =
  redis.call, string.find, string.format, string.match, type, tonumber
local key, shared, try = KEYS[1], tonumber(ARGV[2]), redis.pcall

local time
local function now()
  if not time then
    local parts = call('TIME')
    time = parts[1] * 1000 + math.floor(parts[2] / 1000)
  end
  return time
end
