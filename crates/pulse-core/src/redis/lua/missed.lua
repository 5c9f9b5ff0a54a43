-- Takes what trims took from a consumer group before it was handed out; nothing if that is nothing: what trims.lua
-- recorded, and what strangers trimmed, which shows in the counters of the server.
--
-- KEYS[1] the hash of what groups missed, KEYS[2] the stream. ARGV: group.
-- Replies as trims.lua records: the cursor then ("0-0" if it is not known), an id after all of it, and how many or "?".

local call = redis.call
local missed = call('HGET', KEYS[1], ARGV[1])
if missed then
  call('HDEL', KEYS[1], ARGV[1])
end

local function fields_of(list)
  local fields = {}
  for i = 1, #list, 2 do
    fields[list[i]] = list[i + 1]
  end
  return fields
end

-- A form of an id whose order as a text is that of the ids, which are too large for numbers.
local function sortable(id)
  local millis, sequence = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #millis) .. millis .. string.rep('0', 20 - #sequence) .. sequence
end

-- The id that follows, as far as its sequence number can be raised here.
local function next_id(id)
  local millis, sequence = string.match(id, '^(%d+)-(%d+)$')
  return #sequence <= 15 and millis .. '-' .. string.format('%.0f', tonumber(sequence) + 1) or id
end

-- What is gone although the group was not handed it, nor a trim of ours took it: where the cursor stands among all
-- events that the stream ever had, against how many the group was handed. Both ends of what is unread tell the first; in
-- between it would have to be counted, and waits until the group gets there. An id after what is gone, and how many.
local function find_foreign()
  local stream = fields_of(call('XINFO', 'STREAM', KEYS[2]))
  -- Once events were deleted by their ids, the counters tell nothing certain.
  if stream['max-deleted-entry-id'] ~= '0-0' then
    return
  end
  local group
  for _, found in ipairs(call('XINFO', 'GROUPS', KEYS[2])) do
    found = fields_of(found)
    group = found.name == ARGV[1] and found or group
  end
  if not group then
    return
  end
  local cursor, first = group['last-delivered-id'], stream['first-entry'] and stream['first-entry'][1]
  local passed, after, before
  if cursor == stream['last-generated-id'] then
    passed, after, before = stream['entries-added'], '0-0', cursor
  elseif sortable(cursor) < sortable(stream['last-generated-id']) and (not first or sortable(cursor) < sortable(first)) then
    passed, after, before = stream['entries-added'] - stream.length, cursor, first or next_id(stream['last-generated-id'])
  else
    return
  end
  -- A server does not tell its replicas, nor its log, what it counts. So a count tells something only in the run in which
  -- it was set right: under the empty field, which is no name, stand the run and the groups of which that is true.
  -- Where it does not say which run this is, the counts tell nothing.
  local info, known = redis.pcall('INFO', 'server'), call('HGET', KEYS[1], '')
  local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
  if not run then
    return
  end
  local fine, counted = pcall(cmsgpack.unpack, known or '')
  if not fine or type(counted) ~= 'table' or type(counted.groups) ~= 'table' or counted.run ~= run then
    counted = { run = run, groups = {} }
  end
  local read, is_right = group['entries-read'], counted.groups[ARGV[1]]
  if read ~= passed then
    call('XGROUP', 'SETID', KEYS[2], ARGV[1], cursor, 'ENTRIESREAD', string.format('%.0f', passed))
  end
  if not is_right then
    counted.groups[ARGV[1]] = true
    call('HSET', KEYS[1], '', cmsgpack.pack(counted))
    local ends = call('PEXPIRETIME', KEYS[2])
    if ends > 0 then
      call('PEXPIREAT', KEYS[1], string.format('%.0f', ends))
    end
  elseif read and read < passed then
    return after, before, passed - read
  end
end

-- Without a stream, or with something else in its place, there is nothing more to tell.
local fine, after, before, events = pcall(find_foreign)
if not fine or not after then
  return missed
end
local known_after, known_events = string.match(missed or '', '^(%d+%-%d+) %S+ (%S+)$')
if known_after then
  after = known_after
  events = tonumber(known_events) and events + tonumber(known_events)
end
return after .. ' ' .. before .. ' ' .. (events and string.format('%.0f', events) or '?')
