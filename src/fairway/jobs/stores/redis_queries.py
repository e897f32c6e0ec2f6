"""Scripts that read jobs, note small things about them, or keep what is beside them. `redis_lua` names the keys."""

from __future__ import annotations

from fairway.jobs.stores.redis_lua import HEAD, VIEW, script

# KEYS q; ARGV wall mono seq…. A view of each job that is there.
READ = script(
    "read",
    HEAD,
    VIEW,
    """
p = string.sub(KEYS[1], 1, -2)
local found = {}
for i = 3, #ARGV do found[#found + 1] = view(ARGV[i]) end
return found
""",
    flags="no-writes",
)

# KEYS q; ARGV wall mono state ('' any) bound ('' none) limit up. Views: newest first and below the bound, or with
# up '1' oldest first and above it.
FIND = script(
    "find",
    HEAD,
    VIEW,
    """
p = string.sub(KEYS[1], 1, -2)
local want, bound, limit, up = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local ids = {}
local function from(key, base)
  local low, high, found = string.format('%.0f', base), string.format('(%.0f', base + SHIFT), nil
  if up then
    if bound then low = string.format('(%.0f', base + bound) end
    found = call('ZRANGEBYSCORE', p .. key, low, high, 'LIMIT', 0, limit)
  else
    if bound then high = string.format('(%.0f', base + bound) end
    found = call('ZREVRANGEBYSCORE', p .. key, high, low, 'LIMIT', 0, limit)
  end
  for _, id in ipairs(found) do ids[#ids + 1] = tonumber((parts(id))) end
end
if want == '' or want == 'a' then
  local fresh, found = p .. 'f:' .. (call('HGET', KEYS[1], 'no') or ''), {}
  if up then found = call('XRANGE', fresh, bound and string.format('0-%.0f', bound + 1) or '-', '+', 'COUNT', limit)
  elseif not bound then found = call('XREVRANGE', fresh, '+', '-', 'COUNT', limit)
  elseif bound > 0 then found = call('XREVRANGE', fresh, string.format('0-%.0f', bound - 1), '-', 'COUNT', limit) end
  for _, entry in ipairs(found) do ids[#ids + 1] = tonumber(string.sub(entry[1], 3)) end
  for priority = 0, 9 do from('ready', priority * SHIFT) end
  from('blocked', 0)
end
if want == '' or want == 'r' then
  for _, id in ipairs(call('ZRANGE', p .. 'lease', 0, -1)) do
    id = tonumber(id)
    if not bound or (up and id > bound) or (not up and id < bound) then ids[#ids + 1] = id end
  end
end
for state, key in pairs({s = 'ls', y = 'ly', c = 'fc', d = 'fd', x = 'fx'}) do
  if want == '' or want == state then from(key, 0) end
end
if up then table.sort(ids) else table.sort(ids, function(a, b) return a > b end) end
local found = {}
for _, id in ipairs(ids) do
  if #found >= limit then break end
  found[#found + 1] = view(string.format('%.0f', id))
end
return found
""",
    flags="no-writes",
)

# KEYS q ready blocked f:NUMBER. Answers {fields and values of q, available jobs}.
QUEUE = script(
    "queue",
    """
local call = redis.call
return {call('HGETALL', KEYS[1]), call('ZCARD', KEYS[2]) + call('ZCARD', KEYS[3]) + call('XLEN', KEYS[4])}
""",
    flags="no-writes",
)

# KEYS q; ARGV wall mono seq fence value+note. Answers 0, 1 cancel, 2 lost.
PROGRESS = script(
    "progress",
    """
local key = string.sub(KEYS[1], 1, -2) .. 'j:' .. ARGV[3]
local v = redis.call('HMGET', key, 's', 'f', 'k')
if v[1] ~= 'r' or v[2] ~= ARGV[4] then return 2 end
redis.call('HSET', key, 'g', ARGV[4] .. ' ' .. ARGV[5])
return v[3] and 1 or 0
""",
)

# KEYS q; ARGV wall mono seq fence key. Answers first, done, busy or lost.
ONCE = script(
    "once",
    HEAD,
    """
p = string.sub(KEYS[1], 1, -2)
local function owned(id, fence)
  local v = call('HMGET', p .. 'j:' .. id, 's', 'f')
  return v[1] == 'r' and v[2] == fence
end
if not owned(ARGV[3], ARGV[4]) then return 'lost' end
local key = p .. 'j:' .. ARGV[3]
local held = call('HGET', p .. 'o', ARGV[5])
if held then
  local id, fence, till = string.match(held, '^(%d+) (%d+) (.*)$')
  if till ~= '0' and tonumber(till) > wall then return 'done' end
  if till == '0' then
    if id == ARGV[3] and fence == ARGV[4] then return 'first' end
    if owned(id, fence) then return 'busy' end
  end
end
local names = call('HGET', key, 'o')
names = names and cmsgpack.unpack(names) or {}
names[#names + 1] = ARGV[5]
call('HSET', key, 'o', cmsgpack.pack(names), 'x', 1)
call('HSET', p .. 'o', ARGV[5], ARGV[3] .. ' ' .. ARGV[4] .. ' 0')
return 'first'
""",
)

# KEYS q; ARGV wall mono seq seconds. Notes that somebody waits for the job. Answers {state or '', mark}.
AWAIT = script(
    "await",
    HEAD,
    """
p = string.sub(KEYS[1], 1, -2)
local state = call('HGET', p .. 'j:' .. ARGV[3], 's') or (whole(ARGV[3]) and 'a') or ''
if state ~= '' and not string.find('cdx', state, 1, true) then
  call('ZADD', p .. 'w', 'GT', mono + tonumber(ARGV[4]), ARGV[3])
end
local news = call('XREVRANGE', p .. 'ended', '+', '-', 'COUNT', 1)[1]
return {state, news and news[1] or '0-0'}
""",
    flags="allow-oom",
)

# KEYS q; ARGV wall mono number create paused ('' as it is) cfg rate burst kc kf (cfg '' leaves the configuration).
# Answers 1, or 0 where the queue is not as the caller believes.
CONFIGURE = script(
    "configure",
    HEAD,
    """
local known = call('HGET', KEYS[1], 'no')
if (not known and ARGV[4] ~= '1') or (known and ARGV[3] ~= '' and known ~= ARGV[3]) then return 0 end
enter(KEYS[1])
if not known then
  local run = run_id()
  call('HSET', KEYS[1], 'no', ARGV[3], 'run', run, 'life', run)
end
if ARGV[5] ~= '' then call('HSET', KEYS[1], 'paused', ARGV[5]) end
if ARGV[6] ~= '' then
  call('HSET', KEYS[1], 'cfg', ARGV[6], 'kc', ARGV[9], 'kf', ARGV[10])
  if ARGV[7] == '' then call('HDEL', KEYS[1], 'rate', 'burst', 'tk', 'tu')
  else call('HSET', KEYS[1], 'rate', ARGV[7], 'burst', ARGV[8], 'tk', ARGV[8], 'tu', stamp(mono)) end
end
wake_workers()
return 1
""",
)

# KEYS schedules created ticks; ARGV wall mono name document.
PUT_SCHEDULE = script(
    "put_schedule",
    HEAD,
    """
call('HSET', KEYS[1], ARGV[3], ARGV[4])
call('HSETNX', KEYS[2], ARGV[3], NOW)
return 1
""",
)

# KEYS schedules created ticks; ARGV wall mono name tick ('' removes the schedule). Answers whether there is one.
TICK = script(
    "tick",
    """
if redis.call('HEXISTS', KEYS[1], ARGV[3]) == 0 then return 0 end
if ARGV[4] == '' then
  for i = 1, 3 do redis.call('HDEL', KEYS[i], ARGV[3]) end
elseif tonumber(ARGV[4]) > tonumber(redis.call('HGET', KEYS[3], ARGV[3]) or '-inf') then
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
end
return 1
""",
)
