-- The commonest transaction, at the cost of three commands: one unbound put into a map that exists, of a key that is not
-- bound. Does exactly what the general script would do; replies 0, with nothing changed, where it would have to do more.
-- Does what `puts.lua` does, without tables of its own, which cost more here than all else. An error that
-- begins with HALFWAY says that the put was done and nobody was told of it.
--
-- KEYS[1]  the hash of the map.
-- ARGV[1]  the channel of the map's commits.
-- ARGV[2]  the key.
-- ARGV[3]  the value.
--
-- Replies the version and the previous value.

local call, sub = redis.call, string.sub
local map, key, value = KEYS[1], ARGV[2], ARGV[3]
local found = call('HMGET', map, '', key)
local header = found[1]
if not header then
  return 0
end

local revision, rest = nil, ''
if string.find(header, '^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%d+$') then
  revision = tonumber(sub(header, 17))
else
  local bound
  revision, bound, rest = string.match(header, '^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x(%d+)(b?)(@?%d*)$')
  if not revision then
    return 0
  end
  revision = tonumber(revision)
  if bound ~= '' then
    rest = bound .. rest
    -- The scope is the hash tag, and nothing before or in it can hold this pattern.
    if call('HEXISTS', (string.gsub(map, '}:m:', '}:b:', 1)), key) == 1 then
      return 0
    end
  end
end
-- A stranger's header may hold any number; below this one they are exact, and become text as they are.
if revision < 1 or revision >= 99999999999999 then
  return 0
end

local version = sub(header, 1, 16) .. (revision + 1)
call('HSET', map, '', version .. rest, key, value)
local told = redis.pcall('SPUBLISH', ARGV[1], cmsgpack.pack(version, key, value))
if type(told) == 'table' then
  return redis.error_reply('HALFWAY ' .. told.err)
end
found[1] = version
return found
