-- Claims a piece of work for one process. KEYS: claim. ARGV: owner, milliseconds.
-- Answers 1 where it is the owner's now, else 0.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
-- Over maxmemory a script may write after a command that needs no memory.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
