-- Moves the oldest records of a queue to the worker's list, all or none.
-- KEYS: queue, processing list, heartbeat. ARGV: how many at most.
-- Answers the records, oldest first; nil where the worker has lost its lease.
if redis.call('EXISTS', KEYS[3]) == 0 then return false end
local seen = redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)
local n = #seen
if n == 0 then return seen end
redis.call('LTRIM', KEYS[1], 0, -n - 1)
local oldest_first = {}
for i = n, 1, -1 do oldest_first[#oldest_first + 1] = seen[i] end
for from = 1, n, 1000 do
  redis.call('LPUSH', KEYS[2], unpack(oldest_first, from, math.min(from + 999, n)))
end
return oldest_first
