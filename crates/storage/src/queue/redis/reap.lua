-- Gives the records of a dead worker back to the queue, in their order, before younger ones.
-- KEYS: heartbeat, processing list, queue, workers. ARGV: worker, 1 = although it lives (it is
-- ending, and says so itself).
-- Answers how many; -1 where it lives.
if ARGV[2] ~= '1' and redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
redis.call('DEL', KEYS[1])
local held = redis.call('LRANGE', KEYS[2], 0, -1)
for from = 1, #held, 1000 do
  redis.call('RPUSH', KEYS[3], unpack(held, from, math.min(from + 999, #held)))
end
redis.call('DEL', KEYS[2])
redis.call('SREM', KEYS[4], ARGV[1])
return #held
