-- Removes settled records from the worker's list, and puts in their place what becomes of them.
-- KEYS: processing list, heartbeat, queue, dead letters.
-- ARGV: how many of the oldest are all settled; then pairs: 'remove' record; 'again' record
-- (goes to the young end of the worker's own list); 'back' record (to the old end of the queue);
-- 'dead' letter.
-- Answers 1; 0 where the worker has lost its lease, and nothing is done.
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local oldest = tonumber(ARGV[1])
if oldest > 0 then redis.call('LTRIM', KEYS[1], 0, -oldest - 1) end
for i = 2, #ARGV, 2 do
  local what, record = ARGV[i], ARGV[i + 1]
  if what == 'remove' then
    redis.call('LREM', KEYS[1], -1, record)
  elseif what == 'again' then
    redis.call('LPUSH', KEYS[1], record)
  elseif what == 'back' then
    redis.call('RPUSH', KEYS[3], record)
  else
    redis.call('LPUSH', KEYS[4], record)
  end
end
return 1
