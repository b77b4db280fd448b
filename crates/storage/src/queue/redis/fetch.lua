-- Moves the oldest records of a queue to the worker's list, all or none.
-- KEYS: queue, processing list, heartbeat. ARGV: how many at most; then as `ids_from` says.
-- Answers the records, youngest first, as they stand in the worker's list, and how many were given
-- an id; nil where the worker has lost its lease.
if redis.call('EXISTS', KEYS[3]) == 0 then return false end
local records = redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)
local n = #records
local with_id, given = ids_from(2)
if n == 0 then return {records, given()} end
if with_id then
  for i = n, 1, -1 do records[i] = with_id(records[i]) end
end
redis.call('LTRIM', KEYS[1], 0, -n - 1)
local push, values = 'RPUSH', records
if redis.call('EXISTS', KEYS[2]) == 1 then
  push, values = 'LPUSH', {}
  for i = 1, n do values[i] = records[n + 1 - i] end
end
for from = 1, n, 1000 do
  redis.call(push, KEYS[2], unpack(values, from, math.min(from + 999, n)))
end
return {records, given()}
