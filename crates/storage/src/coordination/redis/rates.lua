-- Adds counts to the rate counters, once: the driver sends again what it is not sure has arrived.
--
-- KEYS[1]  the number of the last portion of this driver
-- ARGV     1 the number of this one; then for each counter its key, what to add, its life in s
-- Returns  how many counters could not be added to, since their keys hold something else.
local last = tonumber(redis.call('GET', KEYS[1]) or '')
if last and last >= tonumber(ARGV[1]) then
    return 0
end
local failed = 0
for i = 2, #ARGV, 3 do
    local sum = redis.pcall('INCRBY', ARGV[i], ARGV[i + 1])
    if type(sum) == 'table' then
        failed = failed + 1
    elseif redis.call('TTL', ARGV[i]) < 0 then
        redis.call('EXPIRE', ARGV[i], ARGV[i + 2])
    end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 86400)
return failed
