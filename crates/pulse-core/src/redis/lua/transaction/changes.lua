-- What writes make of maps: puts, deletions, clearing, destruction, lifetimes.

local function put(map, key, value, binding)
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
  if not map.exists then
    return 0
  end
  local count = empty(map)
  mark(map, 1)
  return count
end

destroy = function(map)
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
