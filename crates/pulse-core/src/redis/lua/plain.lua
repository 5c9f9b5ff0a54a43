-- Transactions that only compare, put and delete entries of maps that exist, perhaps as long as a lease lives: entries
-- that are bound to nothing, or are put for a time. Does exactly what the general script would do; replies 0, with
-- nothing changed, where it would have to do more. It makes no function but one, and few tables, which cost more here
-- than all else. An error that begins with HALFWAY says that something was written, nobody knows what.
--
-- KEYS     the hashes of the maps, first those that are written.
-- ARGV[1]  numbers, in MessagePack: 1 if nobody asks what was replaced, else 0; then eleven for each map, where places
--          are those of arguments:
--            the first of the keys that are read,
--            the last of those that must be absent, of those that must hold a value, of those that must be present, and
--            of all,
--            the first of the values that must be held,
--            what is put: 0 nothing, 1 keys and values in turn, 2 the same, for as many milliseconds as the arguments
--            after them say,
--            the first and the last of what is put,
--            how many entries are too many, -1 if no number is,
--            and the first of the keys to be deleted, which are the last of those that are read, 0 if none is.
-- ARGV[2]  what every key of the scope begins with.
-- ARGV[3]  the lease that must live, or "".
-- ARGV[4…] the channels of the commits of the maps that are written, then keys and values.
--
-- Replies for each map that is written a list: its version, and the values that were read, if somebody asks for them.
-- If something is not as expected, with nothing changed: whether the lease lives, then for each map how many entries it
-- has, where that was asked, and a list that begins with its header.

local call, sub, match, tonumber, unpack = redis.call, string.sub, string.match, tonumber, unpack
local KEYS, ARGV = KEYS, ARGV
local plan = { cmsgpack.unpack(ARGV[1]) }
-- What is deleted of each map although it was bound to a deadline.
local all, freed, holds, alive, now = {}, {}, true, 1, nil

if ARGV[3] ~= '' then
  local deadline, time = tonumber(call('ZSCORE', ARGV[2] .. 'l', ARGV[3]) or nil), call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  if not deadline or deadline <= now then
    holds, alive = false, 0
  end
end

-- In the plan of each map, revision and flags replace the first places once they are not needed any more, and the
-- number of entries that of too many.
for i = 1, #KEYS do
  local at, key = 11 * i - 10, KEYS[i]
  local first, absent, equal, present, last = unpack(plan, at + 1, at + 5)
  local before = first - 2
  local found = last < first and { call('HGET', key, '') } or call('HMGET', key, '', unpack(ARGV, first, last))
  local puts, gone, header, revision, flags = plan[at + 7], plan[at + 11], found[1], 0, ''
  if header then
    revision = match(header, '^%x+$') and match(header, '^%d+$', 17)
    if not revision then
      revision, flags = match(header, '^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x(%d+)(b?@?%d*)$')
      if revision and not match(flags, '^b?$') and not match(flags, '^b?@%d+$') then
        return 0
      end
    end
    revision = revision and #revision <= 15 and tonumber(revision)
    -- A stranger's header may hold anything; revisions below this one are exact, and become text as they are.
    if not revision or revision < 1 or revision >= 99999999999999 then
      return 0
    end
  elseif puts > 0 or gone == 0 or call('HLEN', key) > 0 then
    -- From a map that does not exist, nothing is deleted.
    return 0
  end

  for k = first, absent do
    holds = holds and not found[k - before]
  end
  if equal > absent then
    local values = plan[at + 6] - absent - 1
    for k = absent + 1, equal do
      holds = holds and found[k - before] == ARGV[values + k]
    end
  end
  for k = equal + 1, present do
    holds = holds and found[k - before] ~= false
  end
  local most = plan[at + 10]
  if most >= 0 then
    local count = math.max(call('HLEN', key) - 1, 0)
    holds = holds and count < most
    plan[at + 10] = count
  end

  if puts == 2 then
    -- Whether there are bindings shows in the header, and their end depends on that of the map.
    if flags ~= 'b' then
      return 0
    end
    if not now then
      local time = call('TIME')
      now = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    call('ZCARD', ARGV[2] .. 'd')
  end
  if flags ~= '' and (puts > 0 or gone > 0) and sub(flags, 1, 1) == 'b' then
    -- What is bound is left to the general script, but for what is put for a time in place of the same, and what is
    -- deleted that was put for a time, as long as the map keeps other bindings.
    local keys, count = {}, 0
    if puts > 0 then
      for k = plan[at + 8], plan[at + 9], 2 do
        count = count + 1
        keys[count] = ARGV[k]
      end
    end
    local put = count
    if gone > 0 then
      for k = gone, last do
        count = count + 1
        keys[count] = ARGV[k]
      end
    end
    local name, ends, length = sub(key, #ARGV[2] + 3), nil, 0
    local bindings = call('HMGET', ARGV[2] .. 'b:' .. name, unpack(keys))
    for k = 1, count do
      if bindings[k] then
        if sub(bindings[k], 1, 1) ~= 'T' or (k <= put and puts ~= 2) then
          return 0
        elseif k > put then
          ends, length = ends or {}, length + 1
          ends[length] = keys[k]
        end
      end
    end
    if ends then
      if flags ~= 'b' or call('HLEN', ARGV[2] .. 'b:' .. name) <= length then
        return 0
      end
      call('ZCARD', ARGV[2] .. 'd')
      freed[i] = ends
    end
  end
  all[i], plan[at + 1], plan[at + 2] = found, revision, flags
end

if not holds then
  local reply = { alive }
  for i = 1, #KEYS do
    reply[2 * i], reply[2 * i + 1] = math.max(plan[11 * i], 0), all[i]
  end
  return reply
end

local function apply()
  local written, ended, brief = {}, {}, plan[1] == 1
  for i = 1, #KEYS do
    local at, key = 11 * i - 10, KEYS[i]
    local puts, first, last, gone = plan[at + 7], plan[at + 8], plan[at + 9], plan[at + 11]
    if puts == 0 and gone == 0 then
      break
    end
    local found = all[i]
    local incarnation = found[1] and sub(found[1], 1, 16)
    local version = incarnation and incarnation .. (plan[at + 1] + 1) or ''
    local deleted, changes, count
    if gone > 0 and incarnation then
      -- They are the last of what was read.
      local before = plan[at + 5] - #found
      deleted, changes, count = {}, {}, 0
      for k = gone, plan[at + 5] do
        if found[k - before] then
          count = count + 1
          deleted[count], changes[2 * count - 1], changes[2 * count] = ARGV[k], ARGV[k], false
        end
      end
      deleted = count > 0 and deleted
    end
    if puts > 0 then
      call('HSET', key, '', version .. plan[at + 2], unpack(ARGV, first, last))
    elseif deleted then
      call('HSET', key, '', version .. plan[at + 2])
    elseif incarnation then
      version = incarnation .. plan[at + 1]
    end
    local message
    if puts > 0 then
      message = cmsgpack.pack(version, unpack(ARGV, first, last))
    elseif deleted then
      message = cmsgpack.pack(version)
    end
    if puts == 2 then
      local name = sub(key, #ARGV[2] + 3)
      local entry, bindings, deadlines, bound = 'E' .. #name .. ':' .. name, {}, {}, 0
      for k = first, last, 2 do
        bound = bound + 1
        local deadline = string.format('%.0f', now + ARGV[last + bound])
        bindings[2 * bound - 1], bindings[2 * bound] = ARGV[k], 'T' .. deadline
        deadlines[2 * bound - 1], deadlines[2 * bound] = deadline, entry .. ARGV[k]
      end
      call('HSET', ARGV[2] .. 'b:' .. name, unpack(bindings))
      call('ZADD', ARGV[2] .. 'd', unpack(deadlines))
      -- The map stays, and so must what tells of its entries.
      call('PERSIST', ARGV[2] .. 'd')
    end
    if deleted then
      call('HDEL', key, unpack(deleted))
      message = message .. cmsgpack.pack(unpack(changes))
      if freed[i] then
        local name = sub(key, #ARGV[2] + 3)
        local entry = 'E' .. #name .. ':' .. name
        for k = 1, #freed[i] do
          ended[#ended + 1] = entry .. freed[i][k]
        end
        call('HDEL', ARGV[2] .. 'b:' .. name, unpack(freed[i]))
      end
    end
    if message then
      call('SPUBLISH', ARGV[3 + i], message)
    end
    if brief then
      found = { version }
    else
      found[1] = version
    end
    written[i] = found
  end
  -- After all that is added there: the key of the deadlines, were it gone in between, could not be made again while its
  -- slot moves.
  for from = 1, #ended, 1000 do
    call('ZREM', ARGV[2] .. 'd', unpack(ended, from, math.min(from + 999, #ended)))
  end
  return written
end

local fine, reply = pcall(apply)
if fine then
  return reply
end
local text = tostring(type(reply) == 'table' and reply.err or reply)
-- The server refuses these before the first write of a script, or not at all: nothing was written.
local word = match(text, '^%-?(%u+)')
local harmless = word == 'OOM' or word == 'READONLY' or word == 'MISCONF' or word == 'NOREPLICAS'
return redis.error_reply(harmless and text or 'HALFWAY ' .. text)
