-- Trims of a stream, shared by the scripts that append. Needs `call`, `find`, `match` and `now`.

local trim

local function need_trims()
  if trim then
    return
  end
  local rep = string.rep
  local LAST = '18446744073709551615'

  -- A form of an id whose order as a text is that of the ids, which are too large for numbers.
  local function sortable(id)
    local millis, sequence = match(id, '^(%d+)-(%d+)$')
    return rep('0', 20 - #millis) .. millis .. rep('0', 20 - #sequence) .. sequence
  end

  local function increment(digits)
    local head, digit, nines = match(digits, '^(.-)([0-8]?)(9*)$')
    return head .. (tonumber(digit) or 0) + 1 .. rep('0', #nines)
  end

  -- The id that follows, nil after the largest.
  local function next_id(id)
    local millis, sequence = match(id, '^(%d+)-(%d+)$')
    if sequence ~= LAST then
      return millis .. '-' .. increment(sequence)
    end
    return millis ~= LAST and increment(millis) .. '-0' or nil
  end

  local function fields_of(list)
    local fields = {}
    for i = 1, #list, 2 do
      fields[list[i]] = list[i + 1]
    end
    return fields
  end

  -- The groups of a stream, as the server describes them.
  local function groups_of(key)
    local groups = call('EXISTS', key) == 1 and call('XINFO', 'GROUPS', key) or {}
    for i = 1, #groups do
      groups[i] = fields_of(groups[i])
    end
    return groups
  end

  -- Drops what every group has been handed and has acknowledged.
  local function trim_consumed(key)
    local groups = groups_of(key)
    local least, least_sortable
    for i = 1, #groups do
      local group = groups[i]
      local needed = group['last-delivered-id']
      if group.pending > 0 then
        needed = call('XPENDING', key, group.name)[2]
      else
        needed = next_id(needed)
      end
      local order = needed and sortable(needed)
      if order and (not least or order < least_sortable) then
        least, least_sortable = needed, order
      end
    end
    if least then
      return call('XTRIM', key, 'MINID', '=', least)
    end
    -- Every cursor stands at the largest id there can be.
    return #groups > 0 and call('XTRIM', key, 'MAXLEN', '=', 0) or 0
  end

  -- Adds to what a group missed: the cursor then, the first id that stayed, and how many, "?" if that is not known.
  local function record(missed, name, after, before, events)
    local known = call('HGET', missed, name)
    if known then
      local first, count = match(known, '^(%d+%-%d+) %S+ (%S+)$')
      after = first or after
      events = events and tonumber(count) and events + tonumber(count)
    end
    call('HSET', missed, name, after .. ' ' .. before .. ' ' .. (events and string.format('%.0f', events) or '?'))
  end

  -- Whether the server's count of what a group was handed is right; see missed.lua.
  local counted
  local function is_counted(missed, name)
    if not counted then
      local info, known = redis.pcall('INFO', 'server'), call('HGET', missed, '')
      local fine, found = pcall(cmsgpack.unpack, known or '')
      counted = fine and type(found) == 'table' and type(info) == 'string' and found.run == match(info, 'run_id:(%x+)')
        and found.groups or {}
    end
    return counted[name]
  end

  -- The most entries that are read to count what a group missed.
  local MOST = 4096

  -- Drops old events, and records for each group what it had not been handed yet. It was missed exactly if the entry after
  -- the group's cursor is gone; how many there were is the number that was dropped less those up to the cursor, which
  -- must be counted beforehand.
  local function trim_recorded(key, missed, how, exactly, bound)
    local groups = groups_of(key)
    if #groups == 0 then
      return call('XTRIM', key, how, exactly, bound)
    end
    local stream = fields_of(call('XINFO', 'STREAM', key))
    local last = stream['last-generated-id']
    local most = how == 'MAXLEN' and stream.length - bound or stream.length
    if most <= 0 then
      return 0
    end
    local first_order, last_order = sortable(stream['first-entry'][1]), sortable(last)
    local bound_order = how == 'MINID' and sortable(find(bound, '-', 1, true) and bound or bound .. '-0')
    local behind = {}
    for i = 1, #groups do
      local group = groups[i]
      local cursor = group['last-delivered-id']
      local order = sortable(cursor)
      -- One that has been handed everything misses nothing, nor one whose cursor is where nothing is dropped.
      if order < last_order and not (bound_order and order >= bound_order) then
        group.cursor, group.handed = cursor, 0
        if order < first_order then
          group.next_order = first_order
          -- What strangers have trimmed by now is found here or never; see missed.lua.
          local read = stream['max-deleted-entry-id'] == '0-0' and group['entries-read']
          group.foreign = read and is_counted(missed, group.name) and math.max(stream['entries-added'] - stream.length - read, 0)
        else
          local following = call('XRANGE', key, '(' .. cursor, '+', 'COUNT', 1)[1]
          group.next_order = following and sortable(following[1])
          -- The server's own count tells most of those apart that are far from what is dropped.
          local safe = how == 'MAXLEN' and group.lag and group.lag <= tonumber(bound)
          local enough = math.min(most, MOST)
          group.handed = not safe and #call('XRANGE', key, '-', cursor, 'COUNT', enough)
          if group.handed == enough and enough < most then
            group.handed = false
          end
        end
        if group.next_order then
          behind[#behind + 1] = group
        end
      end
    end
    local dropped = call('XTRIM', key, how, exactly, bound)
    if dropped == 0 or #behind == 0 then
      return dropped
    end
    local first = call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
    local before = first and first[1] or next_id(last) or last
    local before_order = first and sortable(before)
    local recorded
    for i = 1, #behind do
      local group = behind[i]
      if not before_order or group.next_order < before_order then
        record(missed, group.name, group.cursor, before, group.handed and dropped - group.handed + (group.foreign or 0))
        recorded = true
        -- The server's own count of what the group has read would lag behind for ever.
        if stream['max-deleted-entry-id'] == '0-0' then
          local passed = stream['entries-added'] - (stream.length - dropped)
          call('XGROUP', 'SETID', key, group.name, group.cursor, 'ENTRIESREAD', string.format('%.0f', passed))
        end
      end
    end
    local expiry = recorded and call('PEXPIRETIME', key)
    if expiry and expiry > 0 then
      call('PEXPIREAT', missed, string.format('%.0f', expiry))
    end
    return dropped
  end

  -- Drops old events, and says how many: 12 all but so many; 13 those before an id; 22 those older than so many
  -- milliseconds; 23 what was consumed. What groups missed is recorded in a hash.
  trim = function(key, missed, code, approximate, operand)
    local exactly = approximate == 1 and '~' or '='
    if code == 12 then
      return trim_recorded(key, missed, 'MAXLEN', exactly, operand)
    elseif code == 13 then
      return trim_recorded(key, missed, 'MINID', exactly, operand)
    elseif code == 22 then
      return trim_recorded(key, missed, 'MINID', exactly, string.format('%.0f', math.max(0, now() - operand)))
    end
    return trim_consumed(key)
  end
end
