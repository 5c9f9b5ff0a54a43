-- The second half: writes, and cannot fail by what the first half has read.

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
  local done, reply = pcall(apply)
  if done then
    return reply
  end
  local text = tostring(type(reply) == 'table' and reply.err or reply)
  -- The server refuses these before the first write of a script, or not at all: nothing was written.
  local word = match(text, '^%-?(%u+)')
  local harmless = word == 'OOM' or word == 'READONLY' or word == 'MISCONF' or word == 'NOREPLICAS'
  return redis.error_reply(harmless and text or 'HALFWAY ' .. text)
end
if type(problem) == 'table' then
  -- Either a report, or an error of the server as a table that is an error reply.
  return problem.leave or problem
end
return redis.error_reply(tostring(problem))
