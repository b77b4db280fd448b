-- Fails where records can be neither taken nor settled: the list is none, or Redis refuses writes, also
-- those that free memory. Nothing stays. KEYS: queue, a key of the probe's own.
-- ARGV: 1 = fails also where no record can be added, since there is no memory.
redis.call('LLEN', KEYS[1])
if ARGV[1] == '1' then redis.call('LPUSH', KEYS[2], '') end
redis.call('DEL', KEYS[2])
return 1
