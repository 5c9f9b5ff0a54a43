-- The rest of append.lua.

local events, windows, longest, existence, trim_code, lifetime
local trimmed, carried_out, appended, onces = 0, false, false, 0
if shared > 0 then
  events, windows, longest, existence = ARGV[3], ARGV[4], tonumber(ARGV[6]), ARGV[7]
  trim_code, lifetime = tonumber(ARGV[8]), tonumber(ARGV[11])
  -- What is not as it must be shows itself before anything is written.
  if ARGV[5] == '1' or lifetime then
    call('HLEN', events)
    call('ZCARD', windows)
    need_onces()
  end
  if trim_code then
    call('HLEN', ARGV[13])
    need_trims()
  end
end

local function trim_stream()
  trimmed = trimmed + trim(key, ARGV[13], trim_code, tonumber(ARGV[9]), tonumber(ARGV[10]) or ARGV[10])
end

-- What keeps a transaction from being carried out, if anything does.
local function judge()
  local missing = existence ~= '0' and call('EXISTS', key) == 0
  if missing and existence == '1' then
    return -1
  end
  local length = longest and call('XLEN', key)
  if length and length >= longest then
    return length
  end
  return missing and -1 or nil
end

local replies, count, at = {}, 0, 3 + shared
local obstacle, written
while ARGV[at] do
  local strings, joined, once = tonumber(ARGV[at]), false, false
  if strings >= 100 then
    once = strings >= 1000
    strings = strings % 1000
    joined = strings >= 100
    strings = strings % 100
  end
  if not joined then
    obstacle, written = nil, false
    if shared > 0 then
      -- Whoever expects a length must not count what the transactions before it have dropped.
      if longest and trim_code and carried_out then
        trim_stream()
      end
      obstacle = judge()
    end
  end
  local from = once and at + 2 or at
  local last = from + strings
  local reply = obstacle
  if not reply then
    local found = once and find_once(key, events, windows, ARGV[at + 1])
    reply = found or try('XADD', key, '*', unpack(ARGV, from + 1, last))
    if type(reply) == 'table' then
      if written then
        return redis.error_reply('HALFWAY ' .. reply.err)
      end
      obstacle = reply
    elseif not found and #reply == 41 and not written and (tonumber(ARGV[last + 1]) or 0) % 1000 >= 100 then
      -- Both halves of the id are about to end, perhaps before the transaction does.
      local gone = try('XDEL', key, reply)
      if type(gone) == 'table' then
        return redis.error_reply('HALFWAY ' .. gone.err)
      end
      obstacle, reply = -2, -2
    else
      carried_out = true
      if not found then
        written, appended = true, true
        if once then
          record_once(events, windows, ARGV[at + 1], tonumber(ARGV[at + 2]), reply)
          onces = onces + 1
        end
      end
    end
  end
  count = count + 1
  replies[count] = reply
  at = last + 1
end

if shared > 0 and carried_out then
  local fine, problem = pcall(function()
    if trim_code then
      trim_stream()
    end
    if lifetime == 2 then
      call('PERSIST', key)
    elseif lifetime and (lifetime == 1 or call('PTTL', key) == -1) then
      call('PEXPIREAT', key, format('%.0f', now() + ARGV[12]))
    end
    if lifetime then
      local ends = call('PEXPIRETIME', key)
      if ends > 0 then
        call('PEXPIREAT', ARGV[13], format('%.0f', ends))
      else
        call('PERSIST', ARGV[13])
      end
    end
    if onces > 0 or lifetime then
      tidy_onces(key, events, windows, math.min(1000, 2 * onces + 2))
    end
  end)
  if not fine then
    return redis.error_reply('HALFWAY ' .. tostring(type(problem) == 'table' and problem.err or problem))
  end
end
if appended then
  -- Whoever may not ring leaves readers to look by themselves.
  try('SPUBLISH', ARGV[1], '')
end
replies[count + 1] = trimmed
return replies
