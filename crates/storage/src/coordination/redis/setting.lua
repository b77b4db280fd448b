-- Sets or removes a live setting and tells everybody, as one step.
--
-- KEYS[1]  the setting
-- ARGV     1 the channel  2 the setting's bare name  3 the value; without it the setting is removed
-- Returns  the value before.
local before = redis.call('GET', KEYS[1])
if ARGV[3] then
    redis.call('SET', KEYS[1], ARGV[3])
elseif before then
    redis.call('DEL', KEYS[1])
end
if ARGV[3] or before then
    redis.call('PUBLISH', ARGV[1], ARGV[2])
end
return before
