-- Carries out one transaction, or one sweep, on one scope: everything or nothing.
--
-- A script that fails half-way is not rolled back by the server, so this one has two halves. The first reads and
-- decides: it checks the expectations, follows the writes in order on staged values, and leaves with a report if
-- anything does not hold. The second half only writes, and nothing in it can fail: every key that it touches was read
-- by the first half, which is where a wrong type, a slot under migration or a full memory shows itself.
--
-- It is one chunk in several files, put together in this order: head, maps, leases, sweep, changes, values, expectations,
-- writes, decide, ../trims and ../onces, streams, apply. Defining a function costs more here than most calls, because a script defines all of its
-- functions each time it runs. So what is not needed by most stands in functions named `need_…`, which define it when it is.
--
-- KEYS     the hashes of the maps, then the streams, in the order of the program's tables; or the leases of the scope.
-- ARGV[1]  the program, in MessagePack: { maps, streams, expectations, writes, largest value }, all numbers.
--            maps         { { name, first, last }, ... }  which keys of the map to read beforehand
--            streams      { { name, appends }, ... }      how many events are appended
--            expectations, writes: one flat list each, codes and operands
--          Operands that are strings are given as their index in ARGV, lists of strings as first and last index.
-- ARGV[2]  what every key of the scope begins with.
-- ARGV[3]  random hexadecimal digits, for the incarnations of new maps.
-- ARGV[4…] the strings.
--
-- Keys of a scope, after the common beginning:
--   m:NAME   hash: the entries of a map, and its header under the empty field, which no entry can have:
--            16 hexadecimal digits of incarnation, decimal revision, "b" if there are bindings, "@" and a deadline
--   b:NAME   hash: the bindings of a map's entries, "L" and the lease, or "T" and the deadline
--   s:NAME   stream
--   u:NAME   hash: what was appended to a stream once, the event of each once-id
--   x:NAME   sorted set: the once-ids by the ends of their windows
--   g:NAME   hash: what trims took from the groups of a stream before it was handed out
--   l        sorted set: the leases by deadline
--   e:LEASE  set: the entries bound to a lease
--   d        sorted set by deadline: "E" and an entry, "M" and a map
--   f:NAME   channel: the commits of a map
--   w:NAME   channel: the doorbell of a stream
-- If nobody is left to sweep, `l`, `e:LEASE` and `d` expire once no lease and no map that they speak of is there any
-- more; they stay as long as they speak of a map without a deadline.
-- An entry is written LENGTH ":" MAP KEY, where LENGTH is that of the map's name. Times are milliseconds.
--
-- Replies { 0, versions, results }, or { code, ... } with nothing changed:
--   { 1, index, found... } expectation   { 2, lease } lost lease   { 3, write, reason } wrong value
--   { 4, key, reason } corrupt key       { 5, stream, last id } exhausted stream   { 6, write, size } list too large
-- Should the second half fail all the same, the error begins with HALFWAY: something was written, nobody knows what.

local PREFIX = ARGV[2]
-- The most strings put into one command, far below what the interpreter's stack takes.
local CHUNK = 1000
-- How long after its deadline the server itself removes a map that nobody swept.
local GRACE = 60000
local LARGEST = 9007199254740992

-- What a header begins with.
local HEADER = '^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%d'

local call, byte, sub, find, match, format =
  redis.call, string.byte, string.sub, string.find, string.match, string.format
local pack, unpack_message = cmsgpack.pack, cmsgpack.unpack
local unpack, tonumber, type, pairs = unpack, tonumber, type, pairs

local program = unpack_message(ARGV[1])
local map_table, stream_table, expectations, writes = program[1], program[2], program[3], program[4]
local largest_value = program[5]

local function leave(...)
  error({ leave = { ... } })
end

local time
local function now()
  if not time then
    local parts = call('TIME')
    time = parts[1] * 1000 + math.floor(parts[2] / 1000)
  end
  return time
end

-- Fails, before anything is written, if the slot is leaving this node. Needed by the few writes that touch a key
-- again after removing it: the node would refuse that half-way.
local function refuse_while_migrating()
  call('EXISTS', PREFIX .. 'x')
end

-- Calls a command with any number of arguments after its key, in pieces; returns the last reply.
local function call_in_chunks(command, key, args, count)
  local reply
  for from = 1, count, CHUNK do
    reply = call(command, key, unpack(args, from, math.min(from + CHUNK - 1, count)))
  end
  return reply
end
