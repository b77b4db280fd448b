-- Reads a breaker at one moment.
--
-- KEYS  state, failures, open_time, probe_time, trips; where there is a second family, its open flag
-- Returns {the five values, µs of this server's clock, ms the flag has left (0: not set)}.
local answer = {}
for i = 1, 5 do
    answer[i] = redis.call('GET', KEYS[i]) or ''
end
local time = redis.call('TIME')
answer[6] = tonumber(time[1]) * 1000000 + tonumber(time[2])
answer[7] = 0
if KEYS[6] then
    answer[7] = math.max(redis.call('PTTL', KEYS[6]), 0)
end
return answer
