-- Keeps a worker's lease. KEYS: heartbeat, workers, processing list.
-- ARGV: worker, milliseconds, how many records it believes to hold.
-- Answers 1: as it was. 2: it had run out, and nobody had taken the records. 0: they were taken.
local beat = redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
if beat == 1 then return 1 end
redis.call('SET', KEYS[1], 'alive', 'PX', ARGV[2])
if tonumber(ARGV[3]) == 0 or redis.call('EXISTS', KEYS[3]) == 1 then return 2 end
return 0
