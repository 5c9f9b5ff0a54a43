-- Carries out one transaction, or one sweep, on one scope: everything or nothing.
--
-- A script that fails half-way is not rolled back by the server, so this one has two halves. The first reads and
-- decides: it checks the expectations, follows the writes in order on staged values, and leaves with a report if
-- anything does not hold. The second half only writes, and nothing in it can fail: every key that it touches was read
-- by the first half, which is where a wrong type, a slot under migration or a full memory shows itself.
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
--   l        sorted set: the leases by deadline
--   e:LEASE  set: the entries bound to a lease
--   d        sorted set by deadline: "E" and an entry, "M" and a map
--   f:NAME   channel: the commits of a map
--   w:NAME   channel: the doorbell of a stream
-- An entry is written LENGTH ":" MAP KEY, where LENGTH is that of the map's name. Times are milliseconds.
--
-- Replies { 0, versions, results }, or { code, ... } with nothing changed:
--   { 1, index, found... } expectation   { 2, lease } lost lease   { 3, write, reason } wrong value
--   { 4, key, reason } corrupt key       { 5, stream, last id } exhausted stream   { 6, write, size } list too large

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

-- Maps -----------------------------------------------------------------------------------------------------------

local maps, maps_by_name = {}, {}

local function open_map(name, key, first, last)
  local map = {
    name = name, key = key, bindings_key = PREFIX .. 'b:' .. name, first = first, last = last,
    stored = {}, -- what the server holds, as far as it was read
    staged = {}, -- what the transaction makes of it; false: deleted
    stored_bindings = {}, staged_bindings = {},
    changes = {}, count = 0,
    emptied = false, -- whether the transaction cleared or destroyed the stored entries
    header_changed = false, rebound = false, expiry_changed = false,
  }
  local header
  if last - first < CHUNK then
    local found = call('HMGET', key, '', unpack(ARGV, first, last))
    header = found[1]
    local stored = map.stored
    for i = first, last do
      stored[ARGV[i]] = found[i - first + 2]
    end
  else
    header = call('HGET', key, '')
    for from = first, last, CHUNK do
      local to = math.min(from + CHUNK - 1, last)
      local found = call('HMGET', key, unpack(ARGV, from, to))
      for i = from, to do
        map.stored[ARGV[i]] = found[i - from + 1]
      end
    end
  end
  if header then
    local revision, bound, deadline = match(header, '^(%d+)(b?)@?(%d*)$', 17)
    if not revision or #revision > 15 or not find(header, HEADER) then
      leave(4, key, 'the header of the map is not one')
    end
    map.exists, map.existed = true, true
    map.incarnation = sub(header, 1, 16)
    map.revision = tonumber(revision)
    map.bound = bound == 'b'
    map.deadline = tonumber(deadline)
  else
    if call('HLEN', key) > 0 then
      leave(4, key, 'a hash without the header of a map')
    end
    map.exists, map.existed, map.bound = false, false, false
    map.revision = 0
  end
  maps[#maps + 1] = map
  maps_by_name[name] = map
  return map
end

local function map_named(name)
  return maps_by_name[name] or open_map(name, PREFIX .. 'm:' .. name, 1, 0)
end

local function stored_value(map, key)
  local value = map.stored[key]
  if value == nil then
    value = map.existed and call('HGET', map.key, key) or false
    map.stored[key] = value
  end
  return value
end

local function value_of(map, key)
  local value = map.staged[key]
  if value ~= nil then
    return value
  end
  return not map.emptied and stored_value(map, key)
end

local created = 0

local function change(map, key, value)
  if not map.exists then
    created = created + 1
    map.exists = true
    map.incarnation = sub(redis.sha1hex(ARGV[3] .. created), 1, 16)
    map.revision = 0
  end
  map.staged[key] = value
  local count = map.count
  map.changes[count + 1] = key
  map.changes[count + 2] = value
  map.count = count + 2
end

local function count_of(map)
  local count = 0
  if map.existed and not map.emptied then
    count = call('HLEN', map.key) - 1
    for key in pairs(map.staged) do
      if stored_value(map, key) then
        count = count - 1
      end
    end
  end
  for _, value in pairs(map.staged) do
    if value then
      count = count + 1
    end
  end
  return count
end

-- Defining a function costs more here than most calls, because a script defines all of its functions each time it runs.
-- So what is needed rarely stands in functions that define it when it is.

-- Leases, deadlines and bindings ----------------------------------------------------------------------------------

local leases -- those that were looked at, by id; nil until one is needed
local lease_of, is_alive, set_deadline, detach, bind, binding_of, drop, sweep, next_deadline, write_leases
local put, delete, clear, expire

local function need_leases()
  if leases then
    return
  end

  leases = {}
  local deadlines, deadlines_read = {}, false

  lease_of = function(id)
    local lease = leases[id]
    if not lease then
      lease = {
        deadline = tonumber(call('ZSCORE', PREFIX .. 'l', id) or nil),
        key = PREFIX .. 'e:' .. id, bound = {}, changed = false,
      }
      leases[id] = lease
    end
    return lease
  end

  is_alive = function(lease)
    return lease.deadline ~= nil and lease.deadline > now()
  end

  set_deadline = function(member, deadline)
    if not deadlines_read then
      deadlines_read = true
      call('ZCARD', PREFIX .. 'd')
    end
    deadlines[member] = deadline
  end

  local function entry_name(map, key)
    return #map.name .. ':' .. map.name .. key
  end

  local function parse_entry(text)
    local length, rest = match(text, '^(%d+):(.*)$')
    length = tonumber(length)
    if length and length > 0 and length < #rest then
      return sub(rest, 1, length), sub(rest, length + 1)
    end
  end

  binding_of = function(map, key)
    local binding = map.staged_bindings[key]
    if binding ~= nil then
      return binding
    end
    if not map.bound or map.emptied then
      return false
    end
    binding = map.stored_bindings[key]
    if binding == nil then
      binding = call('HGET', map.bindings_key, key)
      map.stored_bindings[key] = binding
    end
    return binding
  end

  detach = function(map, key, binding)
    local entry = entry_name(map, key)
    if sub(binding, 1, 1) == 'L' then
      local lease = lease_of(sub(binding, 2))
      call('SCARD', lease.key)
      lease.bound[entry] = false
      lease.rebound = true
    else
      set_deadline('E' .. entry, false)
    end
  end

  bind = function(map, key, binding)
    local old = binding_of(map, key)
    if old == binding then
      return
    end
    if not map.rebound then
      map.rebound = true
      map.binding_count = call('HLEN', map.bindings_key)
      if not map.bound and map.binding_count > 0 then
        -- Left over from a map that the server expired.
        map.drop_bindings = true
      end
      if not map.bound or map.emptied then
        map.binding_count = 0
      end
    end
    if old then
      detach(map, key, old)
      map.binding_count = map.binding_count - 1
    end
    if binding then
      local entry = entry_name(map, key)
      if sub(binding, 1, 1) == 'L' then
        local lease = lease_of(sub(binding, 2))
        call('SCARD', lease.key)
        lease.bound[entry] = true
        lease.rebound = true
      else
        set_deadline('E' .. entry, tonumber(sub(binding, 2)))
      end
      map.binding_count = map.binding_count + 1
    end
    map.staged_bindings[key] = binding
  end

  -- The map, or nil if a stranger broke its key: nothing is bound to what is not a map, and one broken map must not keep
  -- the others from being swept.
  local function sound_map(name)
    local fine, found = pcall(map_named, name)
    if fine then
      return found
    end
    -- An error of a command arrives as a text or as a table, depending on the server.
    local text = type(found) ~= 'table' and found or found.err
    if not (text and match(text, 'WRONGTYPE')) and not (type(found) == 'table' and found.leave) then
      error(found, 0)
    end
  end

  local function delete_bound(entries, id)
    local count = 0
    for i = 1, #entries do
      local name, key = parse_entry(entries[i])
      local map = name and sound_map(name)
      if map and binding_of(map, key) == 'L' .. id and delete(map, key) then
        count = count + 1
      end
    end
    return count
  end

  drop = function(id, lease)
    local entries = call('SMEMBERS', lease.key)
    for entry, bound in pairs(lease.bound) do
      if bound then
        entries[#entries + 1] = entry
      end
    end
    local count = delete_bound(entries, id)
    lease.deadline = nil
    lease.changed = true
    lease.unbind_all = true
    return count
  end

  sweep = function(budget)
    local ids, count = {}, 0
    local due = call('ZRANGEBYSCORE', PREFIX .. 'l', '-inf', format('%.0f', now()), 'LIMIT', 0, budget)
    for i = 1, #due do
      local lease = lease_of(due[i])
      local size = call('SCARD', lease.key)
      if size <= budget then
        ids[#ids + 1] = due[i]
        budget = budget - size - 1
        count = count + drop(due[i], lease)
      else
        local entries = call('SRANDMEMBER', lease.key, budget)
        count = count + delete_bound(entries, due[i])
        for j = 1, #entries do
          lease.bound[entries[j]] = false
        end
        lease.rebound = true
        budget = 0
      end
      if budget <= 0 then
        return { ids, count, 0 }
      end
    end
    due = call('ZRANGEBYSCORE', PREFIX .. 'd', '-inf', format('%.0f', now()), 'WITHSCORES', 'LIMIT', 0, budget)
    for i = 1, #due, 2 do
      local kind, rest = sub(due[i], 1, 1), sub(due[i], 2)
      if kind == 'E' then
        local name, key = parse_entry(rest)
        local map = name and sound_map(name)
        if map and binding_of(map, key) == 'T' .. format('%.0f', tonumber(due[i + 1])) and delete(map, key) then
          count = count + 1
        end
      elseif kind == 'M' and rest ~= '' then
        local map = sound_map(rest)
        if map and map.exists and map.deadline and map.deadline <= now() then
          count = count + clear(map)
          expire(map, nil)
        end
      end
      set_deadline(due[i], false)
    end
    return { ids, count, -1 }
  end

  next_deadline = function()
    local first
    for _, name in pairs({ 'l', 'd' }) do
      local head = call('ZRANGE', PREFIX .. name, 0, 0, 'WITHSCORES')
      if head[2] and (not first or tonumber(head[2]) < first) then
        first = tonumber(head[2])
      end
    end
    return first and math.max(first - now(), 0) or -1
  end

  write_leases = function()
    for id, lease in pairs(leases) do
      if lease.changed and lease.deadline then
        call('ZADD', PREFIX .. 'l', format('%.0f', lease.deadline), id)
      end
    end
    for id, lease in pairs(leases) do
      if lease.changed and not lease.deadline then
        call('ZREM', PREFIX .. 'l', id)
      end
      if lease.rebound or lease.unbind_all then
        local added, added_count, removed, removed_count = {}, 0, {}, 0
        for entry, bound in pairs(lease.bound) do
          if bound then
            added_count = added_count + 1
            added[added_count] = entry
          else
            removed_count = removed_count + 1
            removed[removed_count] = entry
          end
        end
        if lease.unbind_all and added_count == 0 then
          call('UNLINK', lease.key)
        else
          call_in_chunks('SADD', lease.key, added, added_count)
          call_in_chunks('SREM', lease.key, removed, removed_count)
        end
      end
    end
    local removed, removed_count = {}, 0
    for member, deadline in pairs(deadlines) do
      if deadline then
        call('ZADD', PREFIX .. 'd', format('%.0f', deadline), member)
      else
        removed_count = removed_count + 1
        removed[removed_count] = member
      end
    end
    call_in_chunks('ZREM', PREFIX .. 'd', removed, removed_count)
  end
end

put = function(map, key, value, binding)
  local previous = value_of(map, key)
  if binding or map.bound or map.rebound then
    need_leases()
    bind(map, key, binding)
  end
  change(map, key, value)
  return previous
end

delete = function(map, key)
  local previous = value_of(map, key)
  if previous then
    if map.bound or map.rebound then
      need_leases()
      bind(map, key, false)
    end
    change(map, key, false)
  end
  return previous
end

-- Takes all entries away, and says how many there were.
local function empty(map)
  local count = count_of(map)
  if map.existed and not map.emptied then
    refuse_while_migrating()
    if map.bound then
      need_leases()
      local bindings = call('HGETALL', map.bindings_key)
      for i = 1, #bindings, 2 do
        if map.staged_bindings[bindings[i]] == nil then
          detach(map, bindings[i], bindings[i + 1])
        end
      end
    end
  end
  for key, binding in pairs(map.staged_bindings) do
    if binding then
      detach(map, key, binding)
    end
  end
  map.staged, map.staged_bindings = {}, {}
  map.emptied = true
  map.binding_count = 0
  return count
end

local messages = {}

local function message(map)
  messages[#messages + 1] = {
    channel = PREFIX .. 'f:' .. map.name, incarnation = map.incarnation, before = map.revision,
    changes = map.changes, count = map.count,
  }
  map.changes, map.count = {}, 0
  map.revision = map.revision + 1
end

local function mark(map, what)
  map.count = map.count + 1
  map.changes[map.count] = what
end

clear = function(map)
  if not map.exists or count_of(map) == 0 then
    return 0
  end
  local count = empty(map)
  mark(map, 1)
  return count
end

local function destroy(map)
  if not map.exists then
    return 0
  end
  local count = empty(map)
  mark(map, 2)
  message(map)
  if map.deadline then
    need_leases()
    map.deadline = nil
    set_deadline('M' .. map.name, false)
  end
  map.exists, map.incarnation, map.revision = false, nil, 0
  map.header_changed, map.expiry_changed = true, true
  return count
end

expire = function(map, deadline)
  need_leases()
  map.deadline = deadline
  map.header_changed, map.expiry_changed = true, true
  set_deadline('M' .. map.name, deadline or false)
  call('HLEN', map.bindings_key)
end

-- Counters and lists ---------------------------------------------------------------------------------------------

local add, list_append, list_remove

local function need_values()
  if add then
    return
  end

  -- Splits a decimal 64-bit integer into two parts that doubles hold exactly: high * 10^10 + low.
  local function split(text)
    local sign, digits = match(text, '^(-?)([1-9]%d*)$')
    if text == '0' then
      sign, digits = '', text
    end
    if not digits or #digits > 19 then
      return nil
    end
    local factor = sign == '-' and -1 or 1
    local high = #digits > 10 and tonumber(sub(digits, 1, -11)) or 0
    return factor * high, factor * tonumber(sub(digits, -10))
  end

  -- Adds two of them; nil if the sum does not fit into 64 bits.
  local function join(high, low)
    local carry = math.floor(low / 10000000000)
    low = low - carry * 10000000000
    high = high + carry
    local sign = ''
    if high < 0 then
      sign = '-'
      if low > 0 then
        high = high + 1
        low = low - 10000000000
      end
      high, low = -high, -low
    end
    if high > 922337203 or (high == 922337203 and low > (sign == '-' and 6854775808 or 6854775807)) then
      return nil
    end
    if high > 0 then
      return sign .. format('%.0f%010.0f', high, low)
    end
    return (low == 0 and '' or sign) .. format('%.0f', math.abs(low))
  end

  add = function(map, key, delta, write)
    local high, low = 0, 0
    local value = value_of(map, key)
    if value then
      high, low = split(value)
      if not high or not join(high, low) then
        leave(3, write, 'the value is not a decimal 64-bit integer')
      end
    end
    local more_high, more_low = split(delta)
    local sum = join(high + more_high, low + more_low)
    if not sum then
      leave(3, write, 'the counter would leave the 64-bit range')
    end
    change(map, key, sum)
    return sum
  end

  -- Lists are MessagePack arrays of byte strings, each in the shortest form that there is.

  local function encode_list(list)
    local count = #list
    local head
    if count <= 15 then
      head = string.char(0x90 + count)
    elseif count <= 65535 then
      head = struct.pack('>BI2', 0xdc, count)
    else
      head = struct.pack('>BI4', 0xdd, count)
    end
    local parts = { head }
    for i = 1, count do
      local item = list[i]
      local length = #item
      if length <= 255 then
        parts[2 * i] = string.char(0xc4, length)
      elseif length <= 65535 then
        parts[2 * i] = struct.pack('>BI2', 0xc5, length)
      else
        parts[2 * i] = struct.pack('>BI4', 0xc6, length)
      end
      parts[2 * i + 1] = item
    end
    return table.concat(parts)
  end

  local function decode_list(text)
    local kind = byte(text, 1) or 0
    local count, at
    if kind >= 0x90 and kind <= 0x9f then
      count, at = kind - 0x90, 2
    elseif kind == 0xdc and #text >= 3 then
      count, at = struct.unpack('>I2', text, 2)
    elseif kind == 0xdd and #text >= 5 then
      count, at = struct.unpack('>I4', text, 2)
    else
      return nil
    end
    local list = {}
    for i = 1, count do
      kind = byte(text, at)
      local length
      if kind == 0xc4 and #text > at then
        length, at = byte(text, at + 1), at + 2
      elseif kind == 0xc5 and #text >= at + 2 then
        length, at = struct.unpack('>I2', text, at + 1)
      elseif kind == 0xc6 and #text >= at + 4 then
        length, at = struct.unpack('>I4', text, at + 1)
      else
        return nil
      end
      if #text < at + length - 1 then
        return nil
      end
      list[i] = sub(text, at, at + length - 1)
      at = at + length
    end
    return list
  end

  local function list_of(map, key, write)
    local value = value_of(map, key)
    if not value then
      return {}
    end
    local list = decode_list(value)
    -- Encoding it again tells whether all of it was read, and whether each form was the shortest.
    if not list or encode_list(list) ~= value then
      leave(3, write, 'the value is not a list')
    end
    return list, value
  end

  list_append = function(map, key, skip, first, last, write)
    local list, encoded = list_of(map, key, write)
    local known, before = {}, #list
    if skip then
      for i = 1, before do
        known[list[i]] = true
      end
    end
    for i = first, last do
      local item = ARGV[i]
      if not skip or not known[item] then
        known[item] = true
        list[#list + 1] = item
      end
    end
    if #list == before then
      return { 0, encoded or '' }
    end
    encoded = encode_list(list)
    if #encoded > largest_value then
      leave(6, write, #encoded)
    end
    change(map, key, encoded)
    return { 1, encoded }
  end

  list_remove = function(map, key, first, last, write)
    local list, encoded = list_of(map, key, write)
    local gone, left = {}, {}
    for i = first, last do
      gone[ARGV[i]] = true
    end
    for i = 1, #list do
      if not gone[list[i]] then
        left[#left + 1] = list[i]
      end
    end
    if #left == #list then
      return { 0, encoded or '' }
    end
    if #left == 0 then
      delete(map, key)
      return { 1, '' }
    end
    encoded = encode_list(left)
    change(map, key, encoded)
    return { 1, encoded }
  end
end

-- Expectations ---------------------------------------------------------------------------------------------------

local function version_of(map)
  return map.exists and map.incarnation .. format('%.0f', map.revision) or ''
end

-- Checks the expectation whose operands begin at the given place, and returns how many it has.
local function check(code, index, at)
  local first, second = expectations[at], expectations[at + 1]
  if code <= 3 then -- equals: map, key, value; absent: map, key; present: map, key
    local value = value_of(maps[first], ARGV[second])
    if code == 1 then
      if value ~= ARGV[expectations[at + 2]] then
        leave(1, index, value)
      end
      return 3
    end
    if (code == 2) == (value ~= false) then
      leave(1, index, value)
    end
    return 2
  elseif code == 4 then -- version: map, version as in the header or ""
    local version = version_of(maps[first])
    if version ~= ARGV[second] then
      leave(1, index, version)
    end
    return 2
  elseif code == 5 then -- fewer entries than: map, number
    local count = count_of(maps[first])
    if count >= second then
      leave(1, index, count)
    end
    return 2
  elseif code <= 7 then -- lease alive: lease; lease expired: lease
    need_leases()
    if is_alive(lease_of(ARGV[first])) ~= (code == 6) then
      leave(1, index)
    end
    return 1
  elseif code == 8 then -- stream exists: stream
    if call('EXISTS', KEYS[#map_table + first]) == 0 then
      leave(1, index)
    end
    return 1
  end
  -- stream shorter than: stream, number
  local length = call('XLEN', KEYS[#map_table + first])
  if length >= second then
    leave(1, index, length)
  end
  return 2
end

-- Writes ---------------------------------------------------------------------------------------------------------

local results = {}
local stream_writes = {} -- code, place of its operands, place of its result
local expiries = {}      -- the same, for what is done once everything else is

local function later(list, code, at, index)
  local count = #list
  list[count + 1], list[count + 2], list[count + 3] = code, at, index
end

local destroyed_streams = {}

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
    results[index] = add(maps[first], ARGV[second], ARGV[third], index)
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
    if code == 11 and destroyed_streams[first] then
      refuse_while_migrating()
      now()
    end
    later(stream_writes, code, at, index)
    return 3
  elseif code == 15 then -- acknowledge: stream, group, first, last
    later(stream_writes, code, at, index)
    return 4
  elseif code == 16 then -- destroy a stream: stream
    destroyed_streams[first] = true
    later(stream_writes, code, at, index)
    return 1
  elseif code == 17 then -- expire a stream: stream, 0 if unset or 1 renew or 2 never, milliseconds
    results[index] = 0
    now()
    later(expiries, code, at, index)
    return 3
  end
  need_leases()
  if code <= 19 then -- grant a lease: lease, milliseconds; renew a lease: lease, milliseconds
    local lease = lease_of(ARGV[first])
    if not is_alive(lease) and (code == 19 or lease.deadline) then
      leave(2, ARGV[first])
    end
    lease.deadline = now() + second
    lease.changed = true
    results[index] = 0
    return 2
  elseif code == 20 then -- drop a lease: lease
    local lease = lease_of(ARGV[first])
    results[index] = lease.deadline and drop(ARGV[first], lease) or 0
    return 1
  end
  -- sweep: how many entries at most
  results[index] = sweep(first)
  return 1
end

-- The first half: reads and decides ------------------------------------------------------------------------------

local function decide()
  for i = 1, #map_table do
    local entry = map_table[i]
    open_map(ARGV[entry[1]], KEYS[i], entry[2], entry[3])
  end
  for i = 1, #stream_table do
    local key = KEYS[#map_table + i]
    if call('XLEN', key) > 0 and stream_table[i][2] > 0 then
      local info = call('XINFO', 'STREAM', key)
      for j = 1, #info, 2 do
        -- An id is exhausted when both of its halves are; stop well before the second one is.
        if info[j] == 'last-generated-id' and match(info[j + 1], '^18446744073709551615%-1%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$') then
          leave(5, i, info[j + 1])
        end
      end
    end
  end

  local at, index = 1, 0
  while expectations[at] do
    at = at + 1 + check(expectations[at], index, at + 1)
    index = index + 1
  end

  at, index = 1, 1
  while writes[at] do
    at = at + 1 + stage(writes[at], index, at + 1)
    index = index + 1
  end

  for i = 1, #maps do
    local map = maps[i]
    if map.count > 0 then
      message(map)
      map.header_changed = true
    end
    -- Nothing of an earlier map of that name, which the server expired, may stick to the new one.
    if map.header_changed and not map.existed and not map.rebound and call('HLEN', map.bindings_key) > 0 then
      map.drop_bindings = true
    end
  end
  for i = 1, #expiries, 3 do
    local at = expiries[i + 1]
    if expiries[i] == 10 then
      local map, kind = maps[writes[at]], writes[at + 1]
      if map.exists and (kind == 1 or (kind == 0 and not map.deadline) or (kind == 2 and map.deadline)) then
        expire(map, kind ~= 2 and now() + writes[at + 2] or nil)
      end
    end
  end
end

-- The second half: writes, and cannot fail -----------------------------------------------------------------------

local function write_map(map)
  if not map.exists then
    if map.existed then
      call('UNLINK', map.key, map.bindings_key)
    end
    return
  end
  if map.emptied and map.existed then
    call('UNLINK', map.key, map.bindings_key)
  elseif map.drop_bindings then
    call('UNLINK', map.bindings_key)
  end
  local bound
  if map.rebound or map.emptied then
    bound = (map.binding_count or 0) > 0
  else
    bound = map.bound
  end
  local header = version_of(map) .. (bound and 'b' or '')
  if map.deadline then
    header = header .. '@' .. format('%.0f', map.deadline)
  end
  local set, set_count, removed, removed_count = { '', header }, 2, {}, 0
  for key, value in pairs(map.staged) do
    if value then
      set[set_count + 1], set[set_count + 2] = key, value
      set_count = set_count + 2
    elseif not map.emptied and map.stored[key] then
      removed_count = removed_count + 1
      removed[removed_count] = key
    end
  end
  call_in_chunks('HSET', map.key, set, set_count)
  call_in_chunks('HDEL', map.key, removed, removed_count)

  if map.rebound then
    set, set_count, removed, removed_count = {}, 0, {}, 0
    for key, binding in pairs(map.staged_bindings) do
      if binding then
        set[set_count + 1], set[set_count + 2] = key, binding
        set_count = set_count + 2
      elseif not map.emptied and map.bound then
        removed_count = removed_count + 1
        removed[removed_count] = key
      end
    end
    call_in_chunks('HSET', map.bindings_key, set, set_count)
    call_in_chunks('HDEL', map.bindings_key, removed, removed_count)
  end

  if map.deadline then
    if map.expiry_changed or map.rebound or map.emptied then
      local expires = format('%.0f', map.deadline + GRACE)
      call('PEXPIREAT', map.key, expires)
      if bound then
        call('PEXPIREAT', map.bindings_key, expires)
      end
    end
  elseif map.expiry_changed and map.existed then
    call('PERSIST', map.key)
    if bound then
      call('PERSIST', map.bindings_key)
    end
  end
end

-- The last id of a stream. Only for streams that exist.
local function last_id(key)
  local info = call('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      return info[i + 1]
    end
  end
end

-- The id of the first event of a stream that was destroyed a moment ago: greater than all that it had, although the
-- clock stands still while a script runs.
local function first_id(before)
  local millis, sequence = match(before, '^(%d+)-(%d+)$')
  -- A stranger's sequence number may be too large to be raised here.
  if tonumber(millis) < now() or #sequence > 15 then
    return '*'
  end
  return millis .. '-' .. format('%.0f', tonumber(sequence) + 1)
end

local function write_streams()
  local rung, past = {}, {}
  for i = 1, #stream_writes, 3 do
    local code, at, index = stream_writes[i], stream_writes[i + 1], stream_writes[i + 2]
    local stream = writes[at]
    local key = KEYS[#map_table + stream]
    if code == 11 then
      local id = past[stream] and first_id(past[stream]) or '*'
      past[stream] = nil
      results[index] = call('XADD', key, id, unpack(ARGV, writes[at + 1], writes[at + 2]))
      rung[stream] = true
    elseif code == 12 or code == 13 then
      local how = code == 12 and 'MAXLEN' or 'MINID'
      results[index] = call('XTRIM', key, how, writes[at + 1] == 1 and '~' or '=', ARGV[writes[at + 2]])
    elseif code == 14 then
      local count = 0
      for from = writes[at + 1], writes[at + 2], CHUNK do
        count = count + call('XDEL', key, unpack(ARGV, from, math.min(from + CHUNK - 1, writes[at + 2])))
      end
      results[index] = count
    elseif code == 15 then
      local count, group = 0, ARGV[writes[at + 1]]
      for from = writes[at + 2], writes[at + 3], CHUNK do
        count = count + call('XACK', key, group, unpack(ARGV, from, math.min(from + CHUNK - 1, writes[at + 3])))
      end
      results[index] = count
    else
      results[index] = call('XLEN', key)
      if call('EXISTS', key) == 1 then
        past[stream] = last_id(key)
        call('UNLINK', key)
        rung[stream] = true
      end
    end
  end
  for i = 1, #expiries, 3 do
    local at = expiries[i + 1]
    if expiries[i] == 17 then
      local key, kind = KEYS[#map_table + writes[at]], writes[at + 1]
      if kind == 2 then
        call('PERSIST', key)
      elseif kind == 1 then
        call('PEXPIREAT', key, format('%.0f', now() + writes[at + 2]))
      elseif call('PTTL', key) == -1 then
        call('PEXPIREAT', key, format('%.0f', now() + writes[at + 2]))
      end
    end
  end
  for stream in pairs(rung) do
    call('SPUBLISH', PREFIX .. 'w:' .. ARGV[stream_table[stream][1]], '')
  end
end

local function publish(message)
  local parts = { pack(message.incarnation .. format('%.0f', message.before + 1)) }
  for from = 1, message.count, CHUNK do
    parts[#parts + 1] = pack(unpack(message.changes, from, math.min(from + CHUNK - 1, message.count)))
  end
  call('SPUBLISH', message.channel, table.concat(parts))
end

local function apply()
  for i = 1, #maps do
    if maps[i].header_changed or maps[i].rebound then
      write_map(maps[i])
    end
  end
  if leases then
    write_leases()
  end
  if #stream_table > 0 then
    write_streams()
  end
  for i = 1, #messages do
    publish(messages[i])
  end
  local versions = {}
  for i = 1, #map_table do
    versions[i] = version_of(maps[i])
  end
  for i = 1, #results do
    if type(results[i]) == 'table' and results[i][3] == -1 then
      results[i][3] = next_deadline()
    end
  end
  return { 0, versions, results }
end

local fine, problem = pcall(decide)
if fine then
  return apply()
end
if type(problem) == 'table' then
  -- Either a report, or an error of the server as a table that is an error reply.
  return problem.leave or problem
end
return redis.error_reply(tostring(problem))
