-- Takes a choice of records out of a queue. KEYS: queue. ARGV: the records.
-- Answers for each how many were removed (0 or 1).
local removed = {}
for i, record in ipairs(ARGV) do removed[i] = redis.call('LREM', KEYS[1], -1, record) end
return removed
