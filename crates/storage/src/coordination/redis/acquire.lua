-- Takes units of a sliding window: a sorted set with one member a unit, its score the time of the
-- grant. Another program that counts the members by ZCARD counts the same.
--
-- KEYS[1]  the window
-- ARGV     1 the caller's time in µs, or '' for the time of this server
--          2 limit  3 window in µs  4 wanted units
--          5 grant nothing when fewer than this are free
--          6 µs in one unit of the score  7 name of this call  8 number of its first unit
-- Returns  {granted, µs until one more is free}; -1 when all that was wanted is granted.

-- Spent units that one call removes, and units whose time one call corrects: a bound of the time
-- this script holds up everybody else.
local REMOVED_MAX, MOVED_MAX, ADDED_AT_ONCE = 2000, 1000, 200

local key = KEYS[1]
-- Removes nothing. Over maxmemory a script may write after a command that needs no memory; without a
-- grant nothing could be delivered, and nothing would free memory.
redis.call('ZREMRANGEBYRANK', key, 1, 0)
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local max, window, want, least = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local unit = tonumber(ARGV[6])
local digits = unit == 1000 and '%.3f' or '%.6f'
local function score(us)
    return string.format(digits, us / unit)
end
local at = score(now)

-- Grants of the future: the clock stepped back, or another program's clock is ahead. Made now, they
-- are forgotten neither too early nor later than a window from now.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. at, '+inf', 'LIMIT', 0, MOVED_MAX)) do
    redis.call('ZADD', key, 'XX', at, member)
end

local spent = redis.call('ZCOUNT', key, '-inf', score(now - window))
if spent > 0 then
    local removed = math.min(spent, REMOVED_MAX)
    redis.call('ZREMRANGEBYRANK', key, 0, removed - 1)
    spent = spent - removed
end
local used = redis.call('ZCARD', key) - spent
local free = math.max(max - used, 0)
local granted = math.min(want, free)
if free < least then
    granted = 0
end

if granted > 0 then
    local first = tonumber(ARGV[8])
    local members = {}
    for n = first, first + granted - 1 do
        members[#members + 1] = at
        members[#members + 1] = ARGV[7] .. ':' .. n
        if #members >= ADDED_AT_ONCE then
            redis.call('ZADD', key, unpack(members))
            members = {}
        end
    end
    if #members > 0 then
        redis.call('ZADD', key, unpack(members))
    end
    redis.call('PEXPIRE', key, math.ceil(window / 1000) + 1000)
end
if granted == want then
    return {granted, -1}
end

local wait = window
if max > 0 then
    -- As many as are over the limit must go, and one more.
    local rank = spent + math.max(used + granted - max, 0)
    local oldest = redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')
    if oldest[2] then
        wait = math.floor(tonumber(oldest[2]) * unit + 0.5) + window - now
    end
end
return {granted, math.max(1, math.min(wait, window))}
