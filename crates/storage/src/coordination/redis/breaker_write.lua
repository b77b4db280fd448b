-- Writes a breaker, if it is still what it was when it was read. '' stands for "no such key".
--
-- KEYS  1 to 5 state, failures, open_time, probe_time, trips; 6 and 7 open flag and failures of the
--       second family, where there is one
-- ARGV  1 to 5 what was read, 6 to 10 what is to be, 11 ms the flag shall live ('' removes it)
-- Returns 1, or 0 when somebody else has written.
for i = 1, 5 do
    if (redis.call('GET', KEYS[i]) or '') ~= ARGV[i] then
        return 0
    end
end
for i = 1, 5 do
    local new = ARGV[5 + i]
    if new ~= ARGV[i] then
        -- First, always: over maxmemory a script may write after a command that needs no memory.
        redis.call('DEL', KEYS[i])
        if new ~= '' then
            redis.call('SET', KEYS[i], new)
        end
    end
end
if KEYS[6] then
    redis.call('DEL', KEYS[6])
    if ARGV[11] ~= '' then
        redis.call('SET', KEYS[6], '1', 'PX', ARGV[11])
    end
    redis.call('SET', KEYS[7], ARGV[7])
end
return 1
