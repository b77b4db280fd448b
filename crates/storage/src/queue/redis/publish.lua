-- Adds a batch, all or none. KEYS: queue. ARGV: the bound; 1 = also over `maxmemory`; then the
-- records in order.
-- Answers -1, or the depth that leaves no room.
local depth = redis.call('LLEN', KEYS[1])
if depth + #ARGV - 2 > tonumber(ARGV[1]) then return depth end
if ARGV[2] == '1' then redis.call('LTRIM', KEYS[1], 0, -1) end
for from = 3, #ARGV, 1000 do
  redis.call('LPUSH', KEYS[1], unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
return -1
