-- Leases, deadlines and the bindings of entries to them.

local leases -- those that were looked at, by id; nil until one is needed
local lease_of, is_alive, set_deadline, detach, bind, binding_of, parse_entry, write_leases

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

  parse_entry = function(text)
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
        refuse_while_migrating()
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

  -- When the server removes a map by itself, if nobody is left to sweep it.
  local function end_of(map)
    return map and map.deadline and map.deadline + GRACE or math.huge
  end

  -- How long the leases and the deadlines are needed because of this transaction: a lease for `GRACE` after its deadline,
  -- whatever speaks of a map's entries for as long as the map is there.
  local function needs()
    local of_leases, of_deadlines = 0, 0
    for _, lease in pairs(leases) do
      if lease.changed and lease.deadline then
        of_leases = math.max(of_leases, lease.deadline + GRACE)
      end
      for entry, bound in pairs(lease.bound) do
        if bound then
          of_leases = math.max(of_leases, end_of(maps_by_name[parse_entry(entry)]))
        end
      end
    end
    for member, deadline in pairs(deadlines) do
      if deadline then
        local rest = sub(member, 2)
        local name = byte(member) == 77 and rest or parse_entry(rest)
        of_deadlines = math.max(of_deadlines, end_of(maps_by_name[name]))
      end
    end
    for i = 1, #maps do
      local map = maps[i]
      if map.expiry_changed and map.exists and (map.bound or map.rebound) then
        of_leases = math.max(of_leases, end_of(map))
        of_deadlines = math.max(of_deadlines, end_of(map))
      end
    end
    return of_leases, of_deadlines
  end

  -- When a key expires, and when it is to. Once it is to stay for ever, it does until it is empty, which ends it. If it is
  -- needed for longer, it gets twice the time, so that renewals do not come here each time.
  local function lifetime(key, needed)
    local ends = call('PEXPIRETIME', key)
    ends = ends == -1 and math.huge or math.max(ends, 0)
    if needed <= ends then
      return ends, ends
    end
    return ends, 2 * needed - now()
  end

  -- Cannot fail: where a slot is moving, the next transaction that needs more time tries again.
  local function live_until(key, ends)
    local done
    if ends == math.huge then
      done = redis.pcall('PERSIST', key)
    else
      done = redis.pcall('PEXPIREAT', key, format('%.0f', ends))
    end
    return type(done) == 'number'
  end

  write_leases = function()
    local leases_needed, deadlines_needed = needs()
    local leases_end, leases_to_end = lifetime(PREFIX .. 'l', leases_needed)
    local deadlines_end, deadlines_to_end
    if deadlines_read then
      deadlines_end, deadlines_to_end = lifetime(PREFIX .. 'd', deadlines_needed)
    end
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
          if added_count > 0 and leases_to_end ~= math.huge then
            live_until(lease.key, leases_to_end)
          end
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
    if deadlines_to_end ~= deadlines_end then
      live_until(PREFIX .. 'd', deadlines_to_end)
    end
    if leases_to_end ~= leases_end then
      -- The entries of all leases are needed as long as the leases are.
      local all, complete = call('ZRANGE', PREFIX .. 'l', 0, -1), true
      for i = 1, #all do
        complete = live_until(PREFIX .. 'e:' .. all[i], leases_to_end) and complete
      end
      if complete then
        live_until(PREFIX .. 'l', leases_to_end)
      end
    end
  end
end
