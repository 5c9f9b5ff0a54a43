-- Tells what the user may not do in one scope. Runs nothing but checks, needs no key, and changes nothing.
--
-- ARGV[1]  what every key of the scope begins with.
--
-- Replies a flat list, three for each command that is denied: the number of the need that it belongs to, the command as
-- access control lists write it, and the key or channel with which it was tried, "" if it takes none.
--
-- A need is what must be permitted as a whole, because a script that is refused one command after it has written with
-- another cannot take that back, nor does every server say which command it was. Commands that come alone are not here:
-- their own refusal harms nothing, and names them. What each kind of key is for stands in transaction/head.lua. The name of a key is a star, so that it reads like a pattern.

local PREFIX = ARGV[1]

-- 1: maps, leases and sweeps. 2: appends. 4: trims, once-ids, lifetimes and deletions of streams. 8: acknowledgements,
-- claims and idle times. 16: listening to maps. 32: listening to streams. 64: describing a stream. 128: taking what a group
-- missed. 256: removing a consumer. 512: removing a group. In each line the need, the kind of key, and the commands, where
-- KEY stands for the key and "|" joins a subcommand.
local NEEDS = {
  { 1, 'm:*', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'hget:KEY f', 'hmget:KEY f', 'hlen:KEY', 'hset:KEY f v', 'hdel:KEY f',
    'unlink:KEY', 'pexpireat:KEY 1', 'persist:KEY' },
  { 1, 'b:*', 'hget:KEY f', 'hmget:KEY f', 'hgetall:KEY', 'hexists:KEY f', 'hlen:KEY', 'hset:KEY f v', 'hdel:KEY f',
    'unlink:KEY', 'pexpireat:KEY 1', 'persist:KEY' },
  { 1, 'l', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'zscore:KEY m', 'zadd:KEY 1 m', 'zrem:KEY m', 'zrange:KEY 0 0',
    'zrangebyscore:KEY 0 1', 'pexpiretime:KEY', 'pexpireat:KEY 1', 'persist:KEY' },
  { 1, 'd', 'zcard:KEY', 'zadd:KEY 1 m', 'zrem:KEY m', 'zrange:KEY 0 0', 'zrangebyscore:KEY 0 1', 'pexpiretime:KEY',
    'pexpireat:KEY 1', 'persist:KEY' },
  { 1, 'e:*', 'scard:KEY', 'smembers:KEY', 'srandmember:KEY 1', 'sadd:KEY m', 'srem:KEY m', 'unlink:KEY',
    'pexpiretime:KEY', 'pexpireat:KEY 1', 'persist:KEY' },
  { 1, 'x', 'exists:KEY' },
  { 1, '', 'time' },
  { 1, 'f:*', 'spublish:KEY m' },

  { 2, 's:*', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'xadd:KEY * f v' },
  { 2, 'w:*', 'spublish:KEY m' },

  { 4, 's:*', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'exists:KEY', 'xlen:KEY', 'xdel:KEY 1', 'xtrim:KEY MAXLEN 1',
    'xinfo|stream:KEY', 'xinfo|groups:KEY', 'xpending:KEY g', 'xrange:KEY - +', 'xgroup|setid:KEY g 1', 'pttl:KEY',
    'pexpiretime:KEY', 'pexpireat:KEY 1', 'persist:KEY', 'unlink:KEY' },
  { 4, 'u:*', 'hget:KEY f', 'hlen:KEY', 'hset:KEY f v', 'hdel:KEY f', 'pexpireat:KEY 1', 'unlink:KEY' },
  { 4, 'x:*', 'zscore:KEY m', 'zcard:KEY', 'zadd:KEY 1 m', 'zrem:KEY m', 'zrangebyscore:KEY 0 1', 'zrevrange:KEY 0 0',
    'pexpireat:KEY 1', 'unlink:KEY' },
  { 4, 'g:*', 'hget:KEY f', 'hlen:KEY', 'hset:KEY f v', 'hdel:KEY f', 'pexpireat:KEY 1', 'persist:KEY', 'unlink:KEY' },
  { 4, '', 'time' },
  { 4, 'w:*', 'spublish:KEY m' },

  { 8, 's:*', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'xack:KEY g 1', 'xclaim:KEY g c 0 1', 'xpending:KEY g', 'xrange:KEY - +' },

  { 16, 'f:*', 'ssubscribe:KEY' },

  { 32, 'w:*', 'ssubscribe:KEY' },

  { 64, 's:*', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'exists:KEY', 'xinfo|stream:KEY', 'xinfo|groups:KEY',
    'xinfo|consumers:KEY g', 'xpending:KEY g', 'memory|usage:KEY' },

  { 128, 'g:*', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'hget:KEY f', 'hdel:KEY f', 'hset:KEY f v', 'pexpireat:KEY 1' },
  { 128, 's:*', 'xinfo|stream:KEY', 'xinfo|groups:KEY', 'xgroup|setid:KEY g 1', 'pexpiretime:KEY' },

  { 256, 's:*', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'xpending:KEY g', 'xgroup|delconsumer:KEY g c' },

  { 512, 's:*', 'evalsha:s 1 KEY', 'eval:s 1 KEY', 'xgroup|destroy:KEY g' },
  { 512, 'g:*', 'hdel:KEY f' },
}

local check = redis.acl_check_cmd
if not check then
  -- A server that has no such check leaves every decision to the commands themselves.
  return {}
end
local denied, count = {}, 0
for i = 1, #NEEDS do
  local need = NEEDS[i]
  local key = need[2] ~= '' and PREFIX .. need[2] or ''
  for k = 3, #need do
    local name, operands = string.match(need[k], '^([^:]+):?(.*)$')
    local words = {}
    for word in string.gmatch(name, '[^|]+') do
      words[#words + 1] = word
    end
    for word in string.gmatch(operands, '%S+') do
      words[#words + 1] = word == 'KEY' and key or word
    end
    -- A command that the server does not have, perhaps because it was renamed, is an error of its own.
    local fine, allowed = pcall(check, unpack(words))
    if not (fine and allowed) then
      denied[count + 1], denied[count + 2], denied[count + 3] = need[1], name, key
      count = count + 3
    end
  end
end
return denied
