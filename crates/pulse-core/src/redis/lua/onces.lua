-- Appends made once, shared by the scripts that append. Needs `call`, `format` and `now`.
--
-- What was appended once is kept beside the stream: a hash with the event of each once-id, and a sorted set of the
-- once-ids by the end of their window.

local find_once, record_once, tidy_onces

local function need_onces()
  if find_once then
    return
  end

  -- The event that was appended by this once-id, if its window has not ended and the stream was not removed since.
  find_once = function(key, events, windows, id)
    local event = call('HGET', events, id)
    if not event or call('EXISTS', key) == 0 then
      return nil
    end
    local deadline = tonumber(call('ZSCORE', windows, id) or nil)
    return deadline and deadline > now() and event or nil
  end

  record_once = function(events, windows, id, window, event)
    call('HSET', events, id, event)
    call('ZADD', windows, format('%.0f', now() + window), id)
  end

  -- Clears up to `most` once-ids whose window has ended, and lets the rest vanish with the last window or with the stream,
  -- whichever ends first.
  tidy_onces = function(key, events, windows, most)
    local ended = call('ZRANGEBYSCORE', windows, '-inf', format('%.0f', now()), 'LIMIT', 0, most)
    if #ended > 0 then
      call('ZREM', windows, unpack(ended))
      call('HDEL', events, unpack(ended))
    end
    local last = tonumber(call('ZREVRANGE', windows, 0, 0, 'WITHSCORES')[2] or nil)
    if last then
      local expiry = call('PEXPIRETIME', key)
      local ends = format('%.0f', expiry > 0 and expiry < last and expiry or last)
      call('PEXPIREAT', events, ends)
      call('PEXPIREAT', windows, ends)
    end
  end
end
