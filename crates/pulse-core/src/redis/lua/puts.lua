-- Unbound puts into one map that exists, where none of the keys is bound: one transaction of several puts, or several
-- transactions of one put each, made by different callers at the same moment. Does exactly what the general script would
-- do; replies 0, with nothing changed, where it would have to do more. An error that begins with HALFWAY says
-- that the put was done and nobody was told of it.
--
-- KEYS[1]  the hash of the map.
-- ARGV[1]  the channel of the map's commits.
-- ARGV[2]  how many transactions it is: 1, or as many as there are keys.
-- ARGV[3…] keys and values in turn. In one transaction no key occurs twice.
--
-- Replies the version after the first transaction, then the value that each key had before all of it.

local call, sub, format = redis.call, string.sub, string.format
local map = KEYS[1]
local keys, count = {}, 0
for i = 3, #ARGV, 2 do
  count = count + 1
  keys[count] = ARGV[i]
end
local found = call('HMGET', map, '', unpack(keys))
local header = found[1]
if not header then
  return 0
end
local revision, bound, rest = string.match(header, '^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x(%d+)(b?)(@?%d*)$')
revision = tonumber(revision or 0)
-- A stranger's header may hold any number; below this one they are exact.
if revision < 1 or revision >= 1e14 then
  return 0
end
if bound ~= '' then
  -- The scope is the hash tag, and nothing before or in it can hold this pattern.
  local bindings = call('HMGET', (string.gsub(map, '}:m:', '}:b:', 1)), unpack(keys))
  for i = 1, count do
    if bindings[i] then
      return 0
    end
  end
end

local incarnation = sub(header, 1, 16)
local first = incarnation .. format('%.0f', revision + 1)
local last = incarnation .. format('%.0f', revision + ARGV[2])
-- The last of several values of one key stays.
call('HSET', map, '', last .. bound .. rest, unpack(ARGV, 3))
-- 3: each change is a commit of its own.
local message = ARGV[2] == '1' and cmsgpack.pack(first, unpack(ARGV, 3)) or cmsgpack.pack(3, first, unpack(ARGV, 3))
local told = redis.pcall('SPUBLISH', ARGV[1], message)
if type(told) == 'table' then
  return redis.error_reply('HALFWAY ' .. told.err)
end
found[1] = first
return found
