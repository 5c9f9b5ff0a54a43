-- Values that writes read: counters and lists.

local add, list_append, list_remove

local function need_values()
  if add then
    return
  end

  -- Splits a decimal 64-bit integer into two parts that doubles hold exactly: high * 10^10 + low.
  local function split(text)
    local sign, digits = match(text, '^(-?)([1-9]%d*)$')
    if text == '0' then
      sign, digits = '', text
    end
    if not digits or #digits > 19 then
      return nil
    end
    local factor = sign == '-' and -1 or 1
    local high = #digits > 10 and tonumber(sub(digits, 1, -11)) or 0
    return factor * high, factor * tonumber(sub(digits, -10))
  end

  -- Adds two of them; nil if the sum does not fit into 64 bits.
  local function join(high, low)
    local carry = math.floor(low / 10000000000)
    low = low - carry * 10000000000
    high = high + carry
    local sign = ''
    if high < 0 then
      sign = '-'
      if low > 0 then
        high = high + 1
        low = low - 10000000000
      end
      high, low = -high, -low
    end
    if high > 922337203 or (high == 922337203 and low > (sign == '-' and 6854775808 or 6854775807)) then
      return nil
    end
    if high > 0 then
      return sign .. format('%.0f%010.0f', high, low)
    end
    return (low == 0 and '' or sign) .. format('%.0f', math.abs(low))
  end

  -- Adds to a counter; one that is not there yet begins with the binding.
  add = function(map, key, delta, write, binding)
    local high, low = 0, 0
    local value = value_of(map, key)
    if not value and binding then
      need_leases()
      bind(map, key, binding)
    end
    if value then
      high, low = split(value)
      if not high or not join(high, low) then
        leave(3, write, 'the value is not a decimal 64-bit integer')
      end
    end
    local more_high, more_low = split(delta)
    local sum = join(high + more_high, low + more_low)
    if not sum then
      leave(3, write, 'the counter would leave the 64-bit range')
    end
    change(map, key, sum)
    return sum
  end

  -- Lists are MessagePack arrays of byte strings, each in the shortest form that there is.

  local function encode_list(list)
    local count = #list
    local head
    if count <= 15 then
      head = string.char(0x90 + count)
    elseif count <= 65535 then
      head = struct.pack('>BI2', 0xdc, count)
    else
      head = struct.pack('>BI4', 0xdd, count)
    end
    local parts = { head }
    for i = 1, count do
      local item = list[i]
      local length = #item
      if length <= 255 then
        parts[2 * i] = string.char(0xc4, length)
      elseif length <= 65535 then
        parts[2 * i] = struct.pack('>BI2', 0xc5, length)
      else
        parts[2 * i] = struct.pack('>BI4', 0xc6, length)
      end
      parts[2 * i + 1] = item
    end
    return table.concat(parts)
  end

  local function decode_list(text)
    local kind = byte(text, 1) or 0
    local count, at
    if kind >= 0x90 and kind <= 0x9f then
      count, at = kind - 0x90, 2
    elseif kind == 0xdc and #text >= 3 then
      count, at = struct.unpack('>I2', text, 2)
    elseif kind == 0xdd and #text >= 5 then
      count, at = struct.unpack('>I4', text, 2)
    else
      return nil
    end
    local list = {}
    for i = 1, count do
      kind = byte(text, at)
      local length
      if kind == 0xc4 and #text > at then
        length, at = byte(text, at + 1), at + 2
      elseif kind == 0xc5 and #text >= at + 2 then
        length, at = struct.unpack('>I2', text, at + 1)
      elseif kind == 0xc6 and #text >= at + 4 then
        length, at = struct.unpack('>I4', text, at + 1)
      else
        return nil
      end
      if #text < at + length - 1 then
        return nil
      end
      list[i] = sub(text, at, at + length - 1)
      at = at + length
    end
    return list
  end

  local function list_of(map, key, write)
    local value = value_of(map, key)
    if not value then
      return {}
    end
    local list = decode_list(value)
    -- Encoding it again tells whether all of it was read, and whether each form was the shortest.
    if not list or encode_list(list) ~= value then
      leave(3, write, 'the value is not a list')
    end
    return list, value
  end

  list_append = function(map, key, skip, first, last, write)
    local list, encoded = list_of(map, key, write)
    local known, before = {}, #list
    if skip then
      for i = 1, before do
        known[list[i]] = true
      end
    end
    for i = first, last do
      local item = ARGV[i]
      if not skip or not known[item] then
        known[item] = true
        list[#list + 1] = item
      end
    end
    if #list == before then
      return { 0, encoded or '' }
    end
    encoded = encode_list(list)
    if #encoded > largest_value then
      leave(6, write, #encoded)
    end
    change(map, key, encoded)
    return { 1, encoded }
  end

  list_remove = function(map, key, first, last, write)
    local list, encoded = list_of(map, key, write)
    local gone, left = {}, {}
    for i = first, last do
      gone[ARGV[i]] = true
    end
    for i = 1, #list do
      if not gone[list[i]] then
        left[#left + 1] = list[i]
      end
    end
    if #left == #list then
      return { 0, encoded or '' }
    end
    if #left == 0 then
      delete(map, key)
      return { 1, '' }
    end
    encoded = encode_list(left)
    change(map, key, encoded)
    return { 1, encoded }
  end
end
