"""The Redis store's steps as Lua: each one atomic, time from Redis alone, every key in one slot.

Keys, all tagged ``{NAMESPACE}``: ``log`` a stream whose ids are ``OFFSET-0`` (fields t topic, a appended at, k
partition key, d CloudEvents JSON); ``last`` the newest offset; ``id`` which log it is; ``u:…`` the offset of a
(source, id) for a day;
``groups`` the set of names; ``g:NAME`` a hash (pattern, cursor, dead, seen, epoch); ``p:NAME`` a hash offset →
"fence leased key"; ``r:NAME`` a sorted set of claimable offsets; ``t:NAME`` a sorted set of leases and delays by due
time; ``k:NAME:EPOCH:KEY`` the unfinished offsets of one partition key in order, where the epoch tells a group from one
of that name that was deleted before; ``epoch`` the newest; ``wake`` a stream of one entry that tells waiting members of
a change.
"""

from __future__ import annotations

_TIME = """
local clock = redis.call('TIME')
local function now(skew) return tonumber(clock[1]) + tonumber(clock[2]) / 1000000 + tonumber(skew) end
"""

# KEYS log last u…; ARGV skew ttl, then topic key document for each. Answers when it was, and the offsets: negative that
# of an event that was there.
APPEND = (
    _TIME
    + """
local at_time = string.format('%.6f', now(ARGV[1]))
local offsets = {at_time}
for i = 3, #KEYS do
  local known = redis.call('GET', KEYS[i])
  if known then
    offsets[#offsets + 1] = -tonumber(known)
  else
    local at = 3 + (i - 3) * 3
    local offset = redis.call('INCR', KEYS[2])
    redis.call('XADD', KEYS[1], string.format('%d-0', offset), 't', ARGV[at], 'a', at_time, 'k', ARGV[at + 1],
      'd', ARGV[at + 2])
    redis.call('SET', KEYS[i], string.format('%d', offset), 'EX', ARGV[2])
    offsets[#offsets + 1] = offset
  end
end
return offsets
"""
)

# KEYS last id log; ARGV the id known, the newest offset known and when it was appended ('' for none), a fresh id.
# Answers {newest offset, id, when that was appended}. The log is another one where its id is gone, where it ends before
# the offset known, or has another event there: a server that came back without its newest events has been given others.
LOOK = """
local last, id = redis.call('GET', KEYS[1]) or '0', redis.call('GET', KEYS[2])
local function at(offset)
  local found = redis.call('XRANGE', KEYS[3], offset .. '-0', offset .. '-0')[1]
  return found and found[2][4] or ''
end
if id and id == ARGV[1] and ARGV[3] ~= '' then
  local there = at(ARGV[2])
  if tonumber(last) < tonumber(ARGV[2]) or (there ~= '' and there ~= ARGV[3]) then id = false end
end
if not id then
  id = ARGV[4]
  redis.call('SET', KEYS[2], id)
end
return {tonumber(last), id, at(last)}
"""

# KEYS groups g last epoch; ARGV skew name pattern after ('' for now).
JOIN = (
    _TIME
    + """
if redis.call('SADD', KEYS[1], ARGV[2]) == 1 or redis.call('EXISTS', KEYS[2]) == 0 then
  local last = redis.call('GET', KEYS[3]) or '0'
  local after = ARGV[4]
  if after == '' or tonumber(after) > tonumber(last) then after = last end
  local epoch = redis.call('INCR', KEYS[4])
  redis.call('HSET', KEYS[2], 'pattern', ARGV[3], 'cursor', after, 'dead', 0, 'epoch', epoch)
end
redis.call('HSET', KEYS[2], 'seen', string.format('%.3f', now(ARGV[1])))
return redis.call('HGET', KEYS[2], 'pattern')
"""
)

# KEYS groups g p r t; ARGV name. Answers {whether there was one, its epoch}; the k: keys are left to the caller.
LEAVE = """
local epoch = redis.call('HGET', KEYS[2], 'epoch') or ''
local there = redis.call('SREM', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
return {there, epoch}
"""

# KEYS log last g p r t; ARGV skew limit lease max lua-pattern key-prefix.
# Answers {claimed, hopeless, more}: an entry is {offset, fence, topic, at, document}.
CLAIM = (
    _TIME
    + """
if redis.call('EXISTS', KEYS[3]) == 0 then return redis.error_reply('NOGROUP') end
local current = now(ARGV[1])
redis.call('HSET', KEYS[3], 'seen', string.format('%.3f', current))
local limit, most = tonumber(ARGV[2]), tonumber(ARGV[4])
local claimed, hopeless = {}, {}
local queues = ARGV[6] .. (redis.call('HGET', KEYS[3], 'epoch') or '') .. ':'
local function entry(offset, fence)
  local id = offset .. '-0'
  local found = redis.call('XRANGE', KEYS[1], id, id)[1]
  if not found then return nil end
  local f = found[2]
  return {tonumber(offset), fence, f[2], f[4], f[8]}
end
for _, offset in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', current, 'LIMIT', 0, 1000)) do
  local fence, leased, key = string.match(redis.call('HGET', KEYS[4], offset) or '0 0 ', '^(%d+) (%d) (.*)$')
  if redis.call('EXISTS', KEYS[1]) == 0 or #redis.call('XRANGE', KEYS[1], offset .. '-0', offset .. '-0') == 0 then
    -- Removed from the stream by hand: nothing is left to deliver, and its successor must not wait for it.
    redis.call('HDEL', KEYS[4], offset)
    redis.call('ZREM', KEYS[6], offset)
    if key ~= '' then
      redis.call('LREM', queues .. key, 1, offset)
      local following = redis.call('LINDEX', queues .. key, 0)
      if following then redis.call('ZADD', KEYS[5], following, following) end
    end
  elseif leased == '1' and tonumber(fence) >= most then
    hopeless[#hopeless + 1] = entry(offset, tonumber(fence))
  else
    redis.call('HSET', KEYS[4], offset, fence .. ' 0 ' .. key)
    redis.call('ZREM', KEYS[6], offset)
    redis.call('ZADD', KEYS[5], offset, offset)
  end
end
local cursor = tonumber(redis.call('HGET', KEYS[3], 'cursor'))
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local rounds = 0
while redis.call('ZCARD', KEYS[5]) < limit and cursor < last and rounds < 64 do
  rounds = rounds + 1
  local seen = redis.call('XRANGE', KEYS[1], string.format('%d-0', cursor + 1), '+', 'COUNT', 128)
  if #seen == 0 then cursor = last end
  for _, item in ipairs(seen) do
    local offset = string.match(item[1], '^(%d+)')
    cursor = tonumber(offset)
    if string.match(item[2][2], ARGV[5]) then
      local key = item[2][6]
      redis.call('HSET', KEYS[4], offset, '0 0 ' .. key)
      if key == '' or redis.call('RPUSH', queues .. key, offset) == 1 then
        redis.call('ZADD', KEYS[5], offset, offset)
      end
    end
  end
end
redis.call('HSET', KEYS[3], 'cursor', string.format('%d', cursor))
for _, offset in ipairs(redis.call('ZRANGE', KEYS[5], 0, limit - 1)) do
  local fence, key = string.match(redis.call('HGET', KEYS[4], offset) or '0 0 ', '^(%d+) %d (.*)$')
  fence = tonumber(fence) + 1
  redis.call('ZREM', KEYS[5], offset)
  redis.call('HSET', KEYS[4], offset, string.format('%d 1 %s', fence, key))
  redis.call('ZADD', KEYS[6], current + tonumber(ARGV[3]), offset)
  claimed[#claimed + 1] = entry(offset, fence)
end
return {claimed, hopeless, (#claimed < limit and cursor < last) and 1 or 0}
"""
)

_SETTLE = (
    _TIME
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOGROUP') end
local offset, fence = ARGV[2], ARGV[3]
local held = redis.call('HGET', KEYS[2], offset)
if not held then return 0 end
local got, leased, key = string.match(held, '^(%d+) (%d) (.*)$')
if got ~= fence or leased ~= '1' then return 0 end
local function wake() redis.call('XADD', KEYS[5], 'MAXLEN', 1, '*', 'w', 1) end
local function finish()
  redis.call('HDEL', KEYS[2], offset)
  redis.call('ZREM', KEYS[4], offset)
  if key ~= '' then
    local queue = ARGV[4] .. (redis.call('HGET', KEYS[1], 'epoch') or '') .. ':' .. key
    redis.call('LREM', queue, 1, offset)
    local following = redis.call('LINDEX', queue, 0)
    if following then redis.call('ZADD', KEYS[3], following, following) wake() end
  end
end
"""
)

# KEYS g p r t wake; ARGV skew offset fence key-prefix.
ACK = _SETTLE + "finish() return 1"

# … ARGV delay.
NACK = (
    _SETTLE
    + """
redis.call('HSET', KEYS[2], offset, fence .. ' 0 ' .. key)
redis.call('ZREM', KEYS[4], offset)
local delay = tonumber(ARGV[5])
if delay > 0 then redis.call('ZADD', KEYS[4], now(ARGV[1]) + delay, offset)
else redis.call('ZADD', KEYS[3], offset, offset) end
wake()
return 1
"""
)

# … ARGV lease.
EXTEND = (
    _SETTLE
    + """
redis.call('ZADD', KEYS[4], now(ARGV[1]) + tonumber(ARGV[5]), offset)
redis.call('HSET', KEYS[1], 'seen', string.format('%.3f', now(ARGV[1])))
return 1
"""
)

# … KEYS … log last u; ARGV ttl topic document: the dead letter is appended in the same step.
KILL = (
    _SETTLE
    + """
if redis.call('EXISTS', KEYS[8]) == 0 then
  local at = redis.call('INCR', KEYS[7])
  redis.call('XADD', KEYS[6], string.format('%d-0', at), 't', ARGV[6], 'a', string.format('%.6f', now(ARGV[1])),
    'k', key, 'd', ARGV[7])
  redis.call('SET', KEYS[8], string.format('%d', at), 'EX', ARGV[5])
end
redis.call('HINCRBY', KEYS[1], 'dead', 1)
finish()
return 1
"""
)

# KEYS g t; ARGV skew. Seconds until the next lease or delay runs out, as text; '' for none.
NEXT_DUE = (
    _TIME
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOGROUP') end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if #first == 0 then return '' end
return string.format('%.6f', math.max(0, tonumber(first[2]) - now(ARGV[1])))
"""
)

# KEYS log groups; ARGV before prefix. Removes at most 1,000 a call; answers how many.
TRIM = """
local needed = nil
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local cursor = tonumber(redis.call('HGET', ARGV[2] .. 'g:' .. name, 'cursor') or '0')
  if not needed or cursor < needed then needed = cursor end
end
local removed = {}
local groups = redis.call('SMEMBERS', KEYS[2])
local function unneeded(item)
  local offset = string.match(item[1], '^(%d+)')
  if tonumber(item[2][4]) >= tonumber(ARGV[1]) or (needed and tonumber(offset) > needed) then return false end
  for _, name in ipairs(groups) do
    if redis.call('HEXISTS', ARGV[2] .. 'p:' .. name, offset) == 1 then return false end
  end
  return true
end
for _, item in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1000)) do
  if not unneeded(item) then break end
  removed[#removed + 1] = item[1]
end
if #removed > 0 then redis.call('XDEL', KEYS[1], unpack(removed)) end
return #removed
"""

# KEYS log; ARGV start count. Events without their documents: {offset, topic, at, bytes of the document}.
MARKS = """
local found = {}
for _, item in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
  local f = item[2]
  found[#found + 1] = {tonumber(string.match(item[1], '^(%d+)')), f[2], f[4], #f[8]}
end
return found
"""

# KEYS log groups wake; ARGV prefix offset…: removes them whatever groups need; answers how many there were.
REMOVE = """
local groups, removed, freed = redis.call('SMEMBERS', KEYS[2]), 0, false
for i = 2, #ARGV do
  local offset = ARGV[i]
  removed = removed + redis.call('XDEL', KEYS[1], offset .. '-0')
  for _, name in ipairs(groups) do
    local pending = ARGV[1] .. 'p:' .. name
    local held = redis.call('HGET', pending, offset)
    if held then
      redis.call('HDEL', pending, offset)
      redis.call('ZREM', ARGV[1] .. 'r:' .. name, offset)
      redis.call('ZREM', ARGV[1] .. 't:' .. name, offset)
      local key = string.match(held, '^%d+ %d (.*)$')
      if key ~= '' then
        local epoch = redis.call('HGET', ARGV[1] .. 'g:' .. name, 'epoch') or ''
        local queue = ARGV[1] .. 'k:' .. name .. ':' .. epoch .. ':' .. key
        local first = redis.call('LINDEX', queue, 0)
        redis.call('LREM', queue, 1, offset)
        local following = redis.call('LINDEX', queue, 0)
        if following and first == offset then
          redis.call('ZADD', ARGV[1] .. 'r:' .. name, following, following)
          freed = true
        end
      end
    end
  end
end
if freed then redis.call('XADD', KEYS[3], 'MAXLEN', 1, '*', 'w', 1) end
return removed
"""
