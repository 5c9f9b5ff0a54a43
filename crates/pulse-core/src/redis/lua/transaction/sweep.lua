-- The end of leases and deadlines: whatever hung on them goes, in one transaction like any other.

local drop, sweep, next_deadline
local delete, clear, destroy, expire -- of `changes`

local function need_sweep()
  need_leases()
  if drop then
    return
  end

  -- Calls what reads a key that a stranger may have broken. Returns nothing if one did: what is not ours has nothing
  -- bound to it, and must not keep the rest from being swept.
  local function unless_broken(read, ...)
    local fine, found = pcall(read, ...)
    if fine then
      return found
    end
    -- An error of a command arrives as a text or as a table, depending on the server.
    local text = type(found) ~= 'table' and found or found.err
    if not (text and match(text, 'WRONGTYPE')) and not (type(found) == 'table' and found.leave) then
      error(found, 0)
    end
  end

  local function read_sound_map(name)
    local map = map_named(name)
    call('HLEN', map.bindings_key)
    return map
  end

  local function sound_map(name)
    return unless_broken(read_sound_map, name)
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
    refuse_while_migrating()
    local ids, count = {}, 0
    local due = call('ZRANGEBYSCORE', PREFIX .. 'l', '-inf', format('%.0f', now()), 'LIMIT', 0, budget)
    for i = 1, #due do
      local lease = lease_of(due[i])
      local size = unless_broken(call, 'SCARD', lease.key)
      if not size then
        -- Nobody knows any more what was bound to it. The stranger's key stays.
        ids[#ids + 1] = due[i]
        budget = budget - 1
        lease.deadline = nil
        lease.changed = true
      elseif size <= budget then
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
          count = count + destroy(map)
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
end
