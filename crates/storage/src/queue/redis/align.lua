-- Reads a worker's list; records that came there without an id are given one in their place.
-- KEYS: processing list, heartbeat. ARGV: as `ids_from` says.
-- Answers the records, youngest first, and how many were given an id; nil where the worker has lost
-- its lease.
if redis.call('EXISTS', KEYS[2]) == 0 then return false end
local records = redis.call('LRANGE', KEYS[1], 0, -1)
local with_id, given = ids_from(1)
if with_id then
  for i = #records, 1, -1 do records[i] = with_id(records[i]) end
end
if given() > 0 then
  redis.call('DEL', KEYS[1])
  for from = 1, #records, 1000 do
    redis.call('RPUSH', KEYS[1], unpack(records, from, math.min(from + 999, #records)))
  end
end
return {records, given()}
