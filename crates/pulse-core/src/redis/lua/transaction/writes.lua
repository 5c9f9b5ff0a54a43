-- Writes to maps, streams and leases, in the order of the program.

local results = {}
local stream_writes = {} -- code, place of its operands, place of its result
local expiries = {}      -- the same, for what is done once everything else is

local function later(list, code, at, index)
  local count = #list
  list[count + 1], list[count + 2], list[count + 3] = code, at, index
end

local destroyed_streams = {}
local satellites = {} -- the streams whose keys beside them are needed

-- Whoever touches a stream again after destroying it needs the slot to stay, and the time for the ids that follow.
local function touch(stream)
  if destroyed_streams[stream] then
    refuse_while_migrating()
    now()
  end
end

-- Stages the write whose operands begin at the given place, sets its result, and returns how many it has.
local function stage(code, index, at)
  local first, second, third, fourth = writes[at], writes[at + 1], writes[at + 2], writes[at + 3]
  if code == 1 then -- put: map, key, value
    results[index] = put(maps[first], ARGV[second], ARGV[third], false)
    return 3
  elseif code == 2 then -- put bound to a lease: map, key, value, lease
    need_leases()
    if not is_alive(lease_of(ARGV[fourth])) then
      leave(2, ARGV[fourth])
    end
    results[index] = put(maps[first], ARGV[second], ARGV[third], 'L' .. ARGV[fourth])
    return 4
  elseif code == 3 then -- put for a time: map, key, value, milliseconds
    results[index] = put(maps[first], ARGV[second], ARGV[third], 'T' .. format('%.0f', now() + fourth))
    return 4
  elseif code == 4 then -- delete: map, key
    results[index] = delete(maps[first], ARGV[second])
    return 2
  elseif code == 5 then -- add: map, key, delta
    need_values()
    results[index] = add(maps[first], ARGV[second], ARGV[third], index, false)
    return 3
  elseif code == 6 then -- append to a list: map, key, whether to skip duplicates, first, last
    need_values()
    results[index] = list_append(maps[first], ARGV[second], third == 1, fourth, writes[at + 4], index)
    return 5
  elseif code == 7 then -- remove from a list: map, key, first, last
    need_values()
    results[index] = list_remove(maps[first], ARGV[second], third, fourth, index)
    return 4
  elseif code == 8 then -- clear: map
    results[index] = clear(maps[first])
    return 1
  elseif code == 9 then -- destroy: map
    results[index] = destroy(maps[first])
    return 1
  elseif code == 10 then -- expire a map: map, 0 if unset or 1 renew or 2 never, milliseconds
    results[index] = 0
    later(expiries, code, at, index)
    return 3
  elseif code <= 14 then
    -- append an event: stream, first, last; trim to a length: stream, whether approximately, length;
    -- trim what is before an id: stream, whether approximately, id; delete events: stream, first, last
    touch(first)
    satellites[first] = satellites[first] or code == 12 or code == 13
    later(stream_writes, code, at, index)
    return 3
  elseif code == 15 then -- acknowledge: stream, group, first, last
    touch(first)
    later(stream_writes, code, at, index)
    return 4
  elseif code == 16 then -- destroy a stream: stream
    touch(first)
    satellites[first] = true
    destroyed_streams[first] = true
    later(stream_writes, code, at, index)
    return 1
  elseif code == 17 then -- expire a stream: stream, 0 if unset or 1 renew or 2 never, milliseconds
    results[index] = 0
    touch(first)
    now()
    satellites[first] = true
    later(expiries, code, at, index)
    return 3
  elseif code == 22 then -- trim what is older: stream, whether approximately, milliseconds
    touch(first)
    now()
    satellites[first] = true
    later(stream_writes, code, at, index)
    return 3
  elseif code == 24 then -- append an event once: stream, first, last, once-id, milliseconds
    touch(first)
    now()
    satellites[first] = true
    later(stream_writes, code, at, index)
    return 5
  elseif code == 23 then -- trim what was consumed: stream
    touch(first)
    later(stream_writes, code, at, index)
    return 1
  end
  need_leases()
  if code >= 25 then
    -- add, bound to a lease if the key is absent: map, key, delta, lease; the same for a time: map, key, delta, milliseconds
    local binding
    if code == 26 then
      binding = 'T' .. format('%.0f', now() + fourth)
    elseif is_alive(lease_of(ARGV[fourth])) then
      binding = 'L' .. ARGV[fourth]
    else
      leave(2, ARGV[fourth])
    end
    need_values()
    results[index] = add(maps[first], ARGV[second], ARGV[third], index, binding)
    return 4
  elseif code <= 19 then -- grant a lease: lease, milliseconds; renew a lease: lease, milliseconds
    local lease = lease_of(ARGV[first])
    if not is_alive(lease) and (code == 19 or lease.deadline) then
      leave(2, ARGV[first])
    end
    lease.deadline = now() + second
    lease.changed = true
    results[index] = 0
    return 2
  elseif code == 20 then -- drop a lease: lease
    need_sweep()
    local lease = lease_of(ARGV[first])
    results[index] = lease.deadline and drop(ARGV[first], lease) or 0
    return 1
  end
  -- sweep: how many entries at most
  need_sweep()
  results[index] = sweep(first)
  return 1
end
