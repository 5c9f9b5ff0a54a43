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
