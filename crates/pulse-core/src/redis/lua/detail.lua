-- Describes a stream with its groups.
--
-- KEYS[1] the stream.
-- Replies nothing if there is no such stream; else what XINFO STREAM says, the memory that it takes, and for each group
-- what XINFO GROUPS says, what XINFO CONSUMERS says, and the id of the oldest pending event, false if there is none.

local call, key = redis.call, KEYS[1]
if call('EXISTS', key) == 0 then
  return false
end
local stream, groups = call('XINFO', 'STREAM', key), call('XINFO', 'GROUPS', key)
for i = 1, #groups do
  local name
  for j = 1, #groups[i], 2 do
    if groups[i][j] == 'name' then
      name = groups[i][j + 1]
    end
  end
  local oldest = call('XPENDING', key, name, '-', '+', 1)[1]
  groups[i] = { groups[i], call('XINFO', 'CONSUMERS', key, name), oldest and oldest[1] or false }
end
return { stream, call('MEMORY', 'USAGE', key), groups }
