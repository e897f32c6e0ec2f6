"""The life of a job as scripts: each step atomic, in one slot, by Redis's own clock. `redis_lua` names the keys.

Size: one state machine, whose steps are read side by side.
"""

from __future__ import annotations

from fairway.jobs.stores.redis_lua import END, HEAD, INSERT, VIEW, script

# KEYS names numbers; ARGV queue candidate…. Answers the queue's number, 0 when no candidate is free.
REGISTER = script(
    "register",
    """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then return tonumber(known) end
for i = 2, #ARGV do
  if redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[1]) == 1 then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[i])
    return tonumber(ARGV[i])
  end
end
return 0
""",
)

# KEYS names; ARGV wall mono prefix. What a connection does first. In another life of the server than the one that a
# queue knows (it was started again, or a replica has taken over) the newest steps may be missing here: ids and fences
# that were given out in them must not come again, so both go on well above. Where the user may not ask which life it
# is, ids go on by the time at least: jobs that come one by one are only counted. Answers the time.
ADOPT = script(
    "adopt",
    HEAD,
    """
local life = run_id()
for _, name in ipairs(call('HKEYS', KEYS[1])) do
  local q = ARGV[3] .. name .. ':q'
  local v = call('HMGET', q, 'life', 'fb')
  if (life == '' or v[1] ~= life) and enter(q) then
    seq = math.max(newest(), math.floor((wall - EPOCH) * 1000))
    if life ~= '' then
      seq = seq + 1048576
      call('HSET', q, 'life', life, 'fb', string.format('%.0f', tonumber(v[2] or '0') + 1000000))
    end
    leave()
  end
end
return NOW
""",
    flags="allow-oom",
)

# KEYS q…; ARGV wall mono batch callback-extras callback-body, then for each queue: number create jobs (extras body)….
# `batch` is 0 for none, 1, or 2 with a callback. Answers a seq for each job, negative for one that holds the unique
# key, and at the end the batch's; or {0, key} where a queue is not as the caller believes.
ENQUEUE = script(
    "enqueue",
    HEAD,
    INSERT,
    """
local at = 6
for i = 1, #KEYS do
  local stored = call('HGET', KEYS[i], 'no')
  if (stored and stored ~= ARGV[at]) or (not stored and ARGV[at + 1] ~= '1') then return {0, i} end
  at = at + 3 + 2 * tonumber(ARGV[at + 2])
end
at = 6
local answer, batch = {}, nil
for i = 1, #KEYS do
  if not enter(KEYS[i]) then
    local run = run_id()
    call('HSET', KEYS[i], 'no', ARGV[at], 'run', run, 'life', run)
    no = tonumber(ARGV[at])
    wake_workers() -- who waits for it knew no stream of fresh jobs
  end
  local fresh = 0
  if ARGV[3] ~= '0' then batch = tonumber(draw()) end
  for j = at + 3, at + 2 + 2 * tonumber(ARGV[at + 2]), 2 do
    local rec, held = nil, nil
    if ARGV[j] ~= '' then
      rec = cmsgpack.unpack(ARGV[j])
      if rec.uk then
        local known = call('HGET', p .. 'u', rec.uk)
        if known then
          local id, till = string.match(known, '^(%d+) (.*)$')
          if till == '' or tonumber(till) > wall then held = id end
        end
      end
    end
    if held then answer[#answer + 1] = -tonumber(held)
    else
      local more = {}
      if batch then more = {'bt', string.format('%.0f', batch), 'bi', full_id(batch), 'x', 1} end
      answer[#answer + 1] = tonumber(insert(rec, ARGV[j + 1], more))
      fresh = fresh + 1
    end
  end
  if batch then
    local b = string.format('%.0f', batch)
    call('HSET', p .. 'bt:' .. b, 'total', fresh, 'pending', fresh, 'failed', 0)
    if ARGV[3] == '2' then call('HSET', p .. 'bt:' .. b, 'rec', ARGV[4], 'body', ARGV[5]) end
    if fresh == 0 then close_batch(b) end
    answer[#answer + 1] = batch
  end
  leave()
  at = at + 3 + 2 * tonumber(ARGV[at + 2])
end
return answer
""",
)

# KEYS q; ARGV wall mono limit lease worker mark grace. `mark` is the wake stream's when the worker began to wait.
# Answers {rows, nap, mark, silent, number, newest}: rows are flat, six values each, of 16 MiB of bodies at most; nap is
# the seconds until trying again is worth it ('' unknown) and mark the newest entry of the wake stream, both only where
# there was nothing; number is the queue's; newest is the seq after which a fresh job is news, or -1 where none is.
CLAIM = script(
    "claim",
    HEAD,
    INSERT,
    END,
    """
if not enter(KEYS[1]) then
  local news = call('XREVRANGE', p .. 'wake', '+', '-', 'COUNT', 1)[1]
  return {{}, '', news and news[1] or '0-0', 0, 0, -1}
end
promote(100)
local _, silent = reap(100, tonumber(ARGV[7]))
-- A claim that waited while its worker's leases ran out is not answered with that worker's own jobs.
if ARGV[6] ~= '' then
  for _, news in ipairs(call('XRANGE', p .. 'wake', '(' .. ARGV[6], '+')) do
    if news[2][1] == 's' then silent[news[2][2]] = true end
  end
  if silent[ARGV[5]] then
    leave()
    return {{}, '', '', 1, no, -1}
  end
end
local rows, nap, after = {}, '', -1
local function sooner(seconds)
  if seconds and (nap == '' or seconds < nap) then nap = math.max(0, seconds) end
end
local v = call('HMGET', KEYS[1], 'paused', 'rate', 'burst', 'tk', 'tu', 'fb')
if v[1] ~= '1' then
  local allowed, tokens = tonumber(ARGV[3]), nil
  if v[2] then
    tokens = math.min(tonumber(v[3]), tonumber(v[4]) + math.max(0, mono - tonumber(v[5])) * tonumber(v[2]))
    allowed = math.min(allowed, math.floor(tokens + 1e-9))
  end
  -- Both in the order of dispatch: what is taken is the head of each.
  local waiting = allowed > 0 and call('ZRANGE', p .. 'ready', 0, allowed - 1, 'WITHSCORES') or {}
  local fresh = allowed > 0 and call('XRANGE', p .. 'f:' .. no, '-', '+', 'COUNT', allowed) or {}
  local ends, leases, n, bytes = string.format('%.6f', mono + tonumber(ARGV[4])), {}, 0, 0
  local floor, i, k = tonumber(v[6] or '0'), 1, 1
  while allowed > 0 and bytes < 16777216 do
    local member, entry, id, created, body, j = waiting[i], fresh[k], nil, nil, nil, nil
    if member and (not entry or tonumber(waiting[i + 1]) < 5 * SHIFT + tonumber(string.sub(entry[1], 3))) then
      id, created, body = parts(member)
      i = i + 2
    elseif entry then
      id, created, body = string.sub(entry[1], 3), entry[2][1], entry[2][2]
      k = k + 1
    else break end
    allowed = allowed - 1
    local key = p .. 'j:' .. id
    if created then j = {false, false, created, body, false}
    else j = call('HMGET', key, 'f', 'n', 'c', 'b', 'pv') end
    if j[4] then
      local fence, attempt = math.max(tonumber(j[1] or '0'), floor) + 1, tonumber(j[2] or '0') + 1
      if created then
        call('HSET', key, 'b', body, 'c', created, 's', 'r', 'f', fence, 'n', attempt, 'w', ARGV[5], 'v', NOW)
      else call('HSET', key, 's', 'r', 'f', fence, 'n', attempt, 'w', ARGV[5], 'v', NOW) end
      leases[#leases + 1] = ends
      leases[#leases + 1] = id
      rows[n + 1] = id rows[n + 2] = fence rows[n + 3] = attempt
      rows[n + 4] = j[3] rows[n + 5] = j[4] rows[n + 6] = j[5] or ''
      n = n + 6
      bytes = bytes + #j[4]
    end
    if #leases == 2000 then call('ZADD', p .. 'lease', unpack(leases)) leases = {} end
  end
  if #leases > 0 then call('ZADD', p .. 'lease', unpack(leases)) end
  if i > 1 then call('ZPOPMIN', p .. 'ready', (i - 1) / 2) end
  if k > 1 then
    local past = tonumber(string.sub(fresh[k - 1][1], 3)) + 1
    call('XTRIM', p .. 'f:' .. no, 'MINID', string.format('0-%.0f', past))
  end
  count('a', -n / 6)
  count('r', n / 6)
  if tokens then
    tokens = math.max(0, tokens - n / 6)
    call('HSET', KEYS[1], 'tk', string.format('%.9f', tokens), 'tu', stamp(mono))
    if n == 0 and call('EXISTS', p .. 'ready') + call('XLEN', p .. 'f:' .. no) > 0 then
      sooner((1 - tokens) / tonumber(v[2]))
    end
  end
  if n == 0 and call('XLEN', p .. 'f:' .. no) == 0 then after = newest() end
end
leave()
if #rows > 0 then return {rows, '', '', 0, no, -1} end
local head = call('ZRANGE', p .. 'due', 0, 0, 'WITHSCORES')
if head[2] then sooner(tonumber(head[2]) - wall) end
head = call('ZRANGE', p .. 'lease', 0, 0, 'WITHSCORES')
if head[2] then sooner(tonumber(head[2]) - mono) end
local news = call('XREVRANGE', p .. 'wake', '+', '-', 'COUNT', 1)[1]
return {rows, tostring(nap), news and news[1] or '0-0', 0, no, after}
""",
    flags="allow-oom",
)

# KEYS q; ARGV wall mono lease (seq fence)…. Answers 0 ok, 1 cancel, 2 lost for each.
RENEW = script(
    "renew",
    HEAD,
    """
p = string.sub(KEYS[1], 1, -2)
local answer, ends = {}, string.format('%.6f', mono + tonumber(ARGV[3]))
for i = 4, #ARGV, 2 do
  local v = call('HMGET', p .. 'j:' .. ARGV[i], 's', 'f', 'k')
  if v[1] ~= 'r' or v[2] ~= ARGV[i + 1] then answer[#answer + 1] = 2
  else
    call('ZADD', p .. 'lease', 'GT', ends, ARGV[i])
    answer[#answer + 1] = v[3] and 1 or 0
  end
end
return answer
""",
    flags="allow-oom",
)

# KEYS q; ARGV seq…. What a failure has to be decided by: {attempt, max attempts, body} for each, or {}.
LOOK = script(
    "look",
    """
local p, answer = string.sub(KEYS[1], 1, -2), {}
for i = 1, #ARGV do
  local v = redis.call('HMGET', p .. 'j:' .. ARGV[i], 'n', 'm', 'b')
  answer[i] = v[3] and {v[1] or '0', v[2] or '10', v[3]} or {}
end
return answer
""",
    flags="no-writes",
)

# KEYS q; ARGV wall mono, then for each: seq fence how first second. `how` is c (result), f (next state, delay, error:
# state and delay as "s 1.5" in first), r, z (delay), x. Answers 0 ok or 2 lost for each.
SETTLE = script(
    "settle",
    HEAD,
    INSERT,
    END,
    """
local answer, over, ended, plain = {}, {}, {}, {}
if not enter(KEYS[1]) then
  for i = 3, #ARGV, 5 do answer[#answer + 1] = 2 end
  return answer
end
local function put_back(id, key, v, state, delay)
  if state == 'a' then
    call('HSET', key, 's', 'a', 't', NOW)
    count('a', 1)
    arrive(id, tonumber(v[5] or '5'), v[6], v[7])
  else
    call('HSET', key, 's', state, 't', stamp(wall + delay))
    count(state, 1)
    postpone(id, state, wall + delay)
  end
end
local function settle(id, fence, how, first, second)
  local key = p .. 'j:' .. id
  local v = call('HMGET', key, 's', 'f', 'x', 'k', 'p', 'ck', 'cl', 'n')
  if v[2] ~= fence then return 2 end
  if v[1] ~= 'r' then return (v[1] == 'c' and how == 'c') and 0 or 2 end
  over[#over + 1] = id
  count('r', -1)
  local result = how == 'c' and first ~= 'null' and first or nil
  if how == 'c' and not v[3] and kc > 0 then
    -- Nothing hangs on this completion: the sets are written many at a time below.
    if result then call('HSET', key, 's', 'c', 'e', NOW, 'res', result)
    else call('HSET', key, 's', 'c', 'e', NOW) end
    count('c', 1)
    ended[#ended + 1] = id
    plain[#plain + 1] = id
    plain[#plain + 1] = id
    tell(id)
    return 0
  end
  call('ZREM', p .. 'lease', id)
  if v[3] then clear_ledger(id, key, fence, how == 'c') end
  if v[6] then free(v[6]) end
  if (how == 'r' or how == 'z') and not v[4] then call('HINCRBY', key, 'n', -1) end
  if how == 'c' then
    local chain = v[3] and call('HGET', key, 'th')
    finish(id, key, 'c', v[3], result)
    if chain then
      local links = cmsgpack.unpack(chain)
      local link = table.remove(links, 1)
      local rec = record(link[1]) or {}
      rec.th = #links > 0 and links or nil
      insert(rec, link[2], {'pa', full_id(id), 'pv', first})
    end
  elseif v[4] or how == 'x' then
    if how == 'f' then call('HSET', key, 'err', second) end
    finish(id, key, 'x', v[3])
  elseif how == 'f' then
    call('HSET', key, 'err', second)
    local state, delay = string.match(first, '^(%a) (.*)$')
    if state == 'd' then finish(id, key, 'd', v[3]) else put_back(id, key, v, state, tonumber(delay)) end
  elseif how == 'r' then put_back(id, key, v, 'a', 0)
  else put_back(id, key, v, 's', tonumber(first)) end
  return 0
end
local function many(command, key, values, step)
  for i = 1, #values, step do call(command, key, unpack(values, i, math.min(i + step - 1, #values))) end
end
for i = 3, #ARGV, 5 do
  answer[#answer + 1] = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
many('ZADD', p .. 'fc', plain, 2000)
many('RPUSH', p .. 'fin', ended, 2000)
many('ZREM', p .. 'lease', over, 2000)
leave()
return answer
""",
    flags="allow-oom",
)

# KEYS q; ARGV wall mono what seq. `what` is cancel, retry, or dead (retry where it is discarded).
# Answers {verdict, view}: 0 done, 1 no such job, 2 its state does not allow it.
CHANGE = script(
    "change",
    HEAD,
    INSERT,
    END,
    VIEW,
    """
if not enter(KEYS[1]) then return {1} end
local id = ARGV[4]
local function withdraw(id, state)
  if state == 's' or state == 'y' then
    call('ZREM', p .. 'due', id)
    call('ZREM', p .. 'l' .. state, id)
  elseif state ~= 'a' then
    call('ZREM', p .. 'f' .. state, id)
    call('ZREM', p .. 'kept', id)
  end
  count(state, -1)
end
local function revive(id, v)
  local key = p .. 'j:' .. id
  call('HSET', key, 's', 'a', 'n', 0, 't', NOW)
  call('HDEL', key, 'k', 'e')
  if v[6] then
    local u = call('HMGET', key, 'uk', 'uf')
    if u[1] and not u[2] then call('HSETNX', p .. 'u', u[1], id .. ' ') end
  end
  arrive(id, tonumber(v[2] or '5'), v[3], v[4])
  withdraw(id, v[1])
  count('a', 1)
end
local created, body, member = whole(id)
if created then
  if member then call('ZREM', p .. 'ready', member) else call('XDEL', p .. 'f:' .. no, '0-' .. id) end
  call('ZADD', p .. 'ready', string.format('%.0f', 5 * SHIFT + tonumber(id)), id)
  call('HSET', p .. 'j:' .. id, 'b', body, 'c', created, 's', 'a')
end
local verdict, before = 0, view(id)
local v = call('HMGET', p .. 'j:' .. id, 's', 'p', 'ck', 'cl', 'z', 'x')
if not v[1] then return {1} end
if ARGV[3] == 'cancel' then
  if v[1] == 'r' then call('HSET', p .. 'j:' .. id, 'k', 1)
  elseif v[1] == 'a' or v[1] == 's' or v[1] == 'y' then
    if v[1] == 'a' and v[5] then
      call('ZREM', p .. 'cb:' .. v[3], id)
      call('ZREM', p .. 'blocked', id)
    elseif v[1] == 'a' then
      call('ZREM', p .. 'ready', id)
      if v[3] then free(v[3]) end
    end
    withdraw(id, v[1])
    finish(id, p .. 'j:' .. id, 'x', v[6])
  end
elseif v[1] == 'a' or v[1] == 'r' or v[1] == 'c' or (ARGV[3] == 'dead' and v[1] ~= 'd') then verdict = 2
else revive(id, v) end
leave()
local shown = view(id)
if not shown then
  -- It was not to be kept: the answer is what it would have been.
  shown = before
  for _, value in ipairs({'s', 'x', 'e', NOW}) do table.insert(shown[4], value) end
end
return {verdict, shown}
""",
    flags="allow-oom",
)

# KEYS q; ARGV wall mono grace. Promotes, reaps and deletes, each at most 100; answers 1 where there may be more.
MAINTAIN = script(
    "maintain",
    HEAD,
    INSERT,
    END,
    """
if not enter(KEYS[1]) then return 0 end
local most = promote(100)
most = math.max(most, (reap(100, tonumber(ARGV[3]))))
local function delete(id, state)
  call('DEL', p .. 'j:' .. id)
  call('ZREM', p .. 'f' .. state, id)
  count(state, -1)
end
local n = 0
for _, id in ipairs(call('LRANGE', p .. 'fin', 0, 99)) do
  local ended = call('HGET', p .. 'j:' .. id, 'e')
  if ended and tonumber(ended) + kc > wall then break end
  if ended then delete(id, 'c') end
  n = n + 1
end
if n > 0 then call('LPOP', p .. 'fin', n) end
most = math.max(most, n)
local over = call('ZRANGEBYSCORE', p .. 'kept', '-inf', wall, 'LIMIT', 0, 100)
for _, id in ipairs(over) do
  local v = call('HMGET', p .. 'j:' .. id, 's', 'e', 'ks')
  local ends = tonumber(v[2] or '0') + tonumber(v[3] or (v[1] == 'c' and kc or kf))
  if v[2] and ends > wall then call('ZADD', p .. 'kept', math.max(ends, wall + 1), id)
  else
    if v[1] then delete(id, v[1]) end
    call('ZREM', p .. 'kept', id)
  end
end
most = math.max(most, #over)
local function expire(index, hash, pattern)
  local names = call('ZRANGEBYSCORE', p .. index, '-inf', wall, 'LIMIT', 0, 100)
  for _, name in ipairs(names) do
    local till = tonumber(string.match(call('HGET', p .. hash, name) or '', pattern) or '')
    if till and till > 0 and till <= wall then call('HDEL', p .. hash, name) end
    call('ZREM', p .. index, name)
  end
  most = math.max(most, #names)
end
expire('ux', 'u', '^%d+ (.+)$')
expire('ox', 'o', '^%d+ %d+ (.+)$')
local batches = call('ZRANGEBYSCORE', p .. 'kb', '-inf', wall, 'LIMIT', 0, 100)
for _, b in ipairs(batches) do
  call('DEL', p .. 'bt:' .. b)
  call('ZREM', p .. 'kb', b)
end
call('ZREMRANGEBYSCORE', p .. 'w', '-inf', mono)
leave()
return math.max(most, #batches) >= 100 and 1 or 0
""",
    flags="allow-oom",
)
