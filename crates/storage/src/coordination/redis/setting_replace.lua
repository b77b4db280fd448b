-- Replaces a live setting if it is what the caller thinks it is, and tells everybody, as one step.
--
-- KEYS[1]  the setting
-- ARGV     1 the channel  2 the setting's bare name
--          3 `set` with the value expected in 4, or `unset` and anything in 4
--          5 the new value; without it the setting is removed
-- Returns  1, or 0 and the value that it has.
-- What is no text is no setting, as where they are read.
local now = redis.pcall('GET', KEYS[1])
if type(now) == 'table' then now = false end
local new = ARGV[5] or false
if now == new then return {1, now} end
local expected = ARGV[3] == 'set' and ARGV[4]
if now ~= expected then return {0, now} end
if new then
    redis.call('SET', KEYS[1], new)
else
    redis.call('DEL', KEYS[1])
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {1, now}
