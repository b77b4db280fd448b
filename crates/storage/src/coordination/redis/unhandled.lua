-- Counts unhandled events, each event once, and says which of them trigger.
--
-- KEYS  1 the index of counters by when they were last seen; the others: counters
-- ARGV  1 the caller's time in µs, or '' for the time of this server
--       2 threshold  3 expiry in ms  4 most counters kept  5 seconds an event is remembered
--       6 prefix of the sets of events with rare numbers
--       7 '1' when all events have numbers of bitmaps and none is there twice
--       8 how many bitmaps follow; then for each its key, the byte where the call's events begin and,
--       from there, the bits of these events
--       then for each counter its events, 34 bytes each: 2 bytes naming a bitmap (from 0) or, with the
--       highest bit set, a set; 6 bytes of number; 26 characters of id
-- Returns {counters dropped because there were too many, then for each counter that has triggered
--       its number in KEYS (2 is the first) and the id of the event that did it}.
--
-- An event that finds its counter triggered already adds nothing, so it need not be remembered.

local RECORD, SWEPT_MAX, DROPPED_MAX, FEW, INDEXED_AT_ONCE = 34, 100, 10000, 8, 1000

local time = redis.call('TIME')
local server_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local by_caller = ARGV[1] ~= ''
local now = by_caller and tonumber(ARGV[1]) or server_us
local threshold, expiry, keys_max, remembered = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local rare, plain, bitmaps = ARGV[6], ARGV[7] == '1', tonumber(ARGV[8])
local RECORDS = 8 + 3 * bitmaps
local index = KEYS[1]
local window = math.floor(server_us / 1000000 / remembered)
local now_text = string.format('%.0f', now)

local function remove(key)
    return redis.call('DEL', key, key .. ':triggered', key .. ':until')
end

-- Bitmaps are read once and written once a call: a command for each event would cost many times more.
-- Bits stand as SETBIT counts them, the first one highest.
local MASKS = {[0] = 128, 64, 32, 16, 8, 4, 2, 1}
local blocks = {}
local function mark_in_bitmap(name, number)
    local block = blocks[name]
    if not block then
        local key = ARGV[9 + 3 * name]
        block = {key = key, old = redis.call('GET', key) or '', bytes = {}, added = {}}
        blocks[name] = block
    end
    local at, mask = math.floor(number / 8) + 1, MASKS[number % 8]
    local byte = block.bytes[at] or string.byte(block.old, at) or 0
    if math.floor(byte / mask) % 2 == 1 then
        return false
    end
    block.bytes[at] = byte + mask
    block.added[#block.added + 1] = number
    return true
end

local function write_bitmap(block)
    if #block.added <= FEW then
        for _, number in ipairs(block.added) do
            redis.call('SETBIT', block.key, number, 1)
        end
        redis.call('EXPIRE', block.key, remembered)
        return
    end
    local bytes = {string.byte(block.old, 1, -1)}
    for at, byte in pairs(block.bytes) do
        for gap = #bytes + 1, at - 1 do
            bytes[gap] = 0
        end
        bytes[at] = byte
    end
    redis.call('SET', block.key, string.char(unpack(bytes)), 'EX', remembered)
end

-- A number is in the set of this stretch of time or of the one before; each lives for two.
local this_window, last_window = string.format('%s%.0f:', rare, window), string.format('%s%.0f:', rare, window - 1)
local function mark_in_set(shard, number)
    local key = this_window .. shard
    number = string.format('%.0f', number)
    if redis.call('SADD', key, number) == 0 then
        return false
    end
    if redis.call('SCARD', key) == 1 then
        redis.call('EXPIRE', key, 2 * remembered)
    end
    return redis.call('SISMEMBER', last_window .. shard, number) == 0
end

local function is_new(name_high, name_low, n1, n2, n3, n4, n5, n6)
    local name = name_high * 256 + name_low
    if name < 32768 then
        return mark_in_bitmap(name, n5 * 256 + n6)
    end
    return mark_in_set(name - 32768, ((((n1 * 256 + n2) * 256 + n3) * 256 + n4) * 256 + n5) * 256 + n6)
end

-- Whether no event of this call was counted before; then all of them are marked at once, without a
-- look at each.
local function all_are_new()
    if not plain then
        return false
    end
    local changed = {}
    for n = 0, bitmaps - 1 do
        local key, from, bits = ARGV[9 + 3 * n], tonumber(ARGV[10 + 3 * n]), ARGV[11 + 3 * n]
        local old = redis.call('GETRANGE', key, from, from + #bits - 1)
        if #old > 0 then
            local was, is = {string.byte(old, 1, -1)}, {string.byte(bits, 1, -1)}
            for at = 1, #was do
                if bit.band(was[at], is[at]) ~= 0 then
                    return false
                end
                is[at] = is[at] + was[at]
            end
            bits = string.char(unpack(is))
        end
        changed[#changed + 1] = {key, from, bits}
    end
    for _, change in ipairs(changed) do
        redis.call('SETRANGE', unpack(change))
        redis.call('EXPIRE', change[1], remembered)
    end
    return true
end

-- Nothing outlives the policy of now. By a caller's clock Redis cannot expire: a key says until when.
local function live_on(key, name)
    if by_caller then
        local ends = tonumber(redis.call('GET', name .. ':until') or '') or math.huge
        redis.call('SET', name .. ':until', string.format('%.0f', math.min(ends, now + expiry * 1000)))
    else
        local left = redis.call('PTTL', key)
        if left < 0 or left > expiry then
            redis.call('PEXPIRE', key, expiry)
        end
    end
end

local function begin(key, name, value)
    if by_caller then
        redis.call('SET', key, value)
        redis.call('SET', name .. ':until', string.format('%.0f', now + expiry * 1000))
    else
        redis.call('SET', key, value, 'PX', expiry)
    end
end

-- Over maxmemory a script may write after a command that needs no memory.
redis.call('PEXPIRE', index, expiry + 86400000)
local triggered_keys = {}
for i = 2, #KEYS do
    local key = KEYS[i]
    triggered_keys[i] = key .. ':triggered'
    if by_caller and now >= (tonumber(redis.call('GET', key .. ':until') or '') or math.huge) then
        remove(key)
    end
end
-- A key that holds something else than a text reads as nothing, and is written over.
local answer, counts, triggers = {0}, {}, {}
if #KEYS > 1 then
    counts = redis.call('MGET', unpack(KEYS, 2))
    triggers = redis.call('MGET', unpack(triggered_keys, 2, #KEYS))
end
local nobody_is_known = all_are_new()
for i = 2, #KEYS do
    local key, before, triggered = KEYS[i], counts[i - 1], triggers[i - 1]
    if triggered then
        live_on(triggered_keys[i], key)
        answer[#answer + 1] = i
        answer[#answer + 1] = string.match(triggered, 'evt_(%w+)$') or ''
    else
        local is_kept = before and #before <= 15 and string.match(before, '^%d+$')
        local count = is_kept and tonumber(before) or 0
        local records = ARGV[RECORDS + i - 1]
        local added, by = 0, nil
        if nobody_is_known then
            added = math.min(#records / RECORD, math.max(threshold - count, 1))
            if count + added >= threshold then
                by = string.sub(records, added * RECORD - 25, added * RECORD)
            end
        else
            for at = 1, #records, RECORD do
                if is_new(string.byte(records, at, at + 7)) then
                    added = added + 1
                    if count + added >= threshold then
                        by = string.sub(records, at + 8, at + RECORD - 1)
                        break
                    end
                end
            end
        end
        if by then
            redis.call('DEL', key)
            begin(triggered_keys[i], key, string.format('%.0f evt_%s', count + added, by))
            answer[#answer + 1] = i
            answer[#answer + 1] = by
        elseif added > 0 then
            if is_kept then
                redis.call('INCRBY', key, added)
                live_on(key, key)
            else
                begin(key, key, added)
            end
        end
    end
end
for from = 2, #KEYS, INDEXED_AT_ONCE do
    local seen = {}
    for i = from, math.min(from + INDEXED_AT_ONCE - 1, #KEYS) do
        seen[#seen + 1] = now_text
        seen[#seen + 1] = KEYS[i]
    end
    redis.call('ZADD', index, unpack(seen))
end
for _, block in pairs(blocks) do
    write_bitmap(block)
end

local expired = string.format('%.0f', now - expiry * 1000)
for _, key in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', expired, 'LIMIT', 0, SWEPT_MAX)) do
    remove(key)
    redis.call('ZREM', index, key)
end
local surplus = math.min(redis.call('ZCARD', index) - keys_max, DROPPED_MAX)
if surplus > 0 then
    local dropped = redis.call('ZPOPMIN', index, surplus)
    for i = 1, #dropped, 2 do
        if remove(dropped[i]) > 0 then
            answer[1] = answer[1] + 1
        end
    end
end
-- The index must not outlive what it lists for ever.
redis.call('PEXPIRE', index, expiry + 86400000)
return answer
