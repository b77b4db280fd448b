-- Gives records of other programs the id of an event, in front of their keys. Goes before the scripts
-- that hand records to a worker.
-- ARGV from `first`: key, text that only records of ours have near their end, how many bytes from the
-- end at most, how many braces close a record behind it, what the ids begin with, the number of the
-- first id. Nothing there: records stay as they are.
-- Answers a function from record to record, and one that tells how many were given an id.
local function ids_from(first)
  local given = 0
  local function how_many() return given end
  if not ARGV[first] then return nil, how_many end
  local DIGITS = '0123456789abcdefghjkmnpqrstvwxyz'
  local head, ours = '{"' .. ARGV[first] .. '":"', ARGV[first + 1]
  local within, closing = -tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3])
  local front, number = ARGV[first + 4], tonumber(ARGV[first + 5])
  local function digit(n) return string.sub(DIGITS, n + 1, n + 1) end
  local high, high_digits
  local function next_id()
    local n = number + given
    given = given + 1
    local rest = math.floor(n / 1024)
    if rest ~= high then
      high, high_digits = rest, ''
      for _ = 1, 8 do
        high_digits = digit(rest % 32) .. high_digits
        rest = math.floor(rest / 32)
      end
    end
    return front .. high_digits .. digit(math.floor(n % 1024 / 32)) .. digit(n % 32)
  end
  return function(record)
    -- The next brace is the record's last: the key stands in the outermost object. Inside a text the
    -- quotes of `ours` would have a backslash.
    local at = string.find(record, ours, within, true)
    if at and string.find(record, '}', at, true) == #record - closing + 1 then return record end
    if string.sub(record, 1, #head) == head then return record end
    local _, key_at = string.find(record, '^%s*{%s*"')
    if not key_at then return record end
    -- Of equal keys the last counts: an id of the record's own stays.
    return head .. next_id() .. '",' .. string.sub(record, key_at)
  end, how_many
end

