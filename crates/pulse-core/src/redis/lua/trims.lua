-- Trims of a stream, shared by the scripts that append. Needs `call`, `match` and `now`.

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

  -- The groups of a stream: for each its name, its cursor and how many events are pending.
  local function groups_of(key)
    local groups = call('EXISTS', key) == 1 and call('XINFO', 'GROUPS', key) or {}
    for i = 1, #groups do
      local fields, group = groups[i], {}
      for j = 1, #fields, 2 do
        group[fields[j]] = fields[j + 1]
      end
      groups[i] = group
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

  -- Drops old events, and says how many: 12 all but so many; 13 those before an id; 22 those older than so many
  -- milliseconds; 23 what was consumed.
  trim = function(key, code, approximate, operand)
    local exactly = approximate == 1 and '~' or '='
    if code == 12 then
      return call('XTRIM', key, 'MAXLEN', exactly, operand)
    elseif code == 13 then
      return call('XTRIM', key, 'MINID', exactly, operand)
    elseif code == 22 then
      return call('XTRIM', key, 'MINID', exactly, string.format('%.0f', math.max(0, now() - operand)))
    end
    return trim_consumed(key)
  end
end
