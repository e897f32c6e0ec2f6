"""The Redis store's steps as Lua: each one atomic, in one slot, by Redis's own clock.

Keys of a queue, all after its tag:

- ``q`` a hash: no (the queue's number), seq (newest), n<state> (counts), paused, rate, burst, tk, tu (token bucket),
  kc, kf (retention), cfg (configuration as JSON), run (the server's run_id).
- ``j:SEQ`` a job, a hash, the truth: b body, c created, s state, f fence, n attempt, t due, v started, e finished, w
  worker, g progress, res result, err error, k cancel requested. Where they are not the default: p priority, m max
  attempts, ck and cl concurrency, z blocked by it, uk and uf unique, ks keep, th chain, bt, bi and bc batch, pa parent,
  pv previous, o ledger keys; x says that something hangs on its end.
- Sorted sets: ``ready`` (priority and seq in one score: the order of dispatch), ``due`` (by time), ``ls`` and ``ly``
  (the same by seq, scheduled and retryable), ``lease`` (by end), ``blocked`` (by seq) and ``cb:KEY`` (by score), ``fc``
  ``fd`` ``fx`` (final jobs by seq), ``kept`` (by the end of their retention), ``ux`` ``ox`` ``kb`` (ends of unique
  windows, ledger keys, batches), ``w`` (jobs that somebody waits for).
- ``fin`` a list: completed jobs in the order they ended.
- Hashes: ``u`` unique keys, ``o`` the `once` ledger, ``cs`` used concurrency slots, ``bt:SEQ`` a batch.
- ``wake`` a stream of news: w there is work, f SEQ is final, s WORKER fell silent.

Scripts do not roll back, so none writes before it has read all that could stop it, and those that add jobs are
refused as a whole when memory is out (no allow-oom flag); those that bring jobs to an end are let through. Sorted sets
are added to before others are removed from.
"""

from __future__ import annotations

from fairway.jobs.store import LEDGER_KEEP_S
from fairway.jobs.stores.redis_link import Script

_HEAD = """
local call = redis.call
local wall, mono = tonumber(ARGV[1]), tonumber(ARGV[2])
if not wall then
  local t = call('TIME')
  wall = tonumber(t[1]) + tonumber(t[2]) / 1000000
  mono = wall
end
local function stamp(at) return string.format('%.6f', at) end
local NOW, SHIFT, EPOCH = stamp(wall), 2199023255552, 1735689600
local p, no, seq, kc, kf, delta, awake, waited
local function enter(key)
  p = string.sub(key, 1, -2)
  local q = call('HMGET', key, 'no', 'seq', 'kc', 'kf')
  no, seq = tonumber(q[1]), tonumber(q[2] or '0')
  kc, kf = tonumber(q[3] or '86400'), tonumber(q[4] or '1209600')
  delta, awake, waited = {}, false, nil
  return no
end
local function count(state, n) delta[state] = (delta[state] or 0) + n end
local function leave()
  for state, n in pairs(delta) do
    if n ~= 0 then call('HINCRBY', p .. 'q', 'n' .. state, n) end
  end
end
local function wake(field, value) call('XADD', p .. 'wake', 'MAXLEN', '~', 1000, '*', field, value) end
local function wake_workers()
  if not awake then awake = true wake('w', '1') end
end
local function ready(id, priority)
  if not awake and call('EXISTS', p .. 'ready') == 0 then wake_workers() end
  call('ZADD', p .. 'ready', priority * SHIFT + id, id)
end
-- An available job goes to the ready set, or to the blocked of its concurrency key.
local function arrive(id, priority, ck, cl)
  if ck then
    local key = p .. 'j:' .. id
    if tonumber(call('HGET', p .. 'cs', ck) or '0') >= tonumber(cl or '1') then
      call('HSET', key, 'z', 1)
      call('ZADD', p .. 'cb:' .. ck, priority * SHIFT + id, id)
      call('ZADD', p .. 'blocked', id, id)
      return
    end
    call('HINCRBY', p .. 'cs', ck, 1)
    call('HDEL', key, 'z')
  end
  ready(id, priority)
end
local function postpone(id, state, at)
  call('ZADD', p .. 'l' .. state, id, id)
  call('ZADD', p .. 'due', at, id)
  if call('ZRANGE', p .. 'due', 0, 0)[1] == tostring(id) then wake_workers() end
end
"""

_INSERT = """
local function insert(rec, body, more)
  seq = math.max(seq + 1, math.floor((wall - EPOCH) * 1000))
  local id = string.format('%.0f', seq)
  local key, n = p .. 'j:' .. id, #more
  local state = 'a'
  if rec then
    local at = rec.at
    if rec.delay then at = wall + rec.delay end
    if at and at > wall then
      state = 's'
      more[n + 1] = 't' more[n + 2] = stamp(at)
      n = n + 2
    end
    for _, name in ipairs({'p', 'm', 'ck', 'cl', 'uk', 'ks'}) do
      if rec[name] ~= nil then
        more[n + 1] = name more[n + 2] = rec[name]
        n = n + 2
      end
    end
    if rec.uf then more[n + 1] = 'uf' more[n + 2] = 1 n = n + 2 end
    if rec.th and #rec.th > 0 then more[n + 1] = 'th' more[n + 2] = cmsgpack.pack(rec.th) n = n + 2 end
    if rec.ck or rec.uk or rec.ks or rec.th then more[n + 1] = 'x' more[n + 2] = 1 n = n + 2 end
  end
  if n == 0 then call('HSET', key, 'b', body, 'c', NOW, 's', state)
  else call('HSET', key, 'b', body, 'c', NOW, 's', state, unpack(more)) end
  if rec and rec.uk then
    local till = ''
    if rec.uf then
      till = stamp(wall + rec.uf)
      call('ZADD', p .. 'ux', wall + rec.uf, rec.uk)
    end
    call('HSET', p .. 'u', rec.uk, id .. ' ' .. till)
  end
  count(state, 1)
  if state == 's' then postpone(id, 's', rec.delay and wall + rec.delay or rec.at)
  elseif rec then arrive(id, rec.p or 5, rec.ck, rec.cl)
  else ready(id, 5) end
  return id
end
local function full_id(id) return string.format('%.0f', tonumber(id) * 4096 + no) end
local function record(packed)
  if packed == '' then return nil end
  return cmsgpack.unpack(packed)
end
local function close_batch(b)
  local key = p .. 'bt:' .. b
  local v = call('HMGET', key, 'total', 'failed', 'body', 'rec')
  if v[3] then
    local summary = string.format('{"batch":%s,"total":%s,"failed":%s}', full_id(b), v[1], v[2])
    call('HSET', key, 'called', full_id(insert(record(v[4]), v[3], {'pv', summary})))
    call('HDEL', key, 'body', 'rec')
  end
  call('ZADD', p .. 'kb', wall + LEDGER, b)
end
"""

_END = """
local function free(ck)
  if call('HINCRBY', p .. 'cs', ck, -1) <= 0 then call('HDEL', p .. 'cs', ck) end
  local following = call('ZPOPMIN', p .. 'cb:' .. ck)[1]
  if following then
    call('ZREM', p .. 'blocked', following)
    local v = call('HMGET', p .. 'j:' .. following, 'p', 'cl')
    arrive(following, tonumber(v[1] or '5'), ck, v[2])
  end
end
-- What the attempt reserved in the ledger is done with its completion, and forgotten with any other end.
local function clear_ledger(id, key, fence, done)
  local names = call('HGET', key, 'o')
  if not names then return end
  for _, name in ipairs(cmsgpack.unpack(names)) do
    if call('HGET', p .. 'o', name) == id .. ' ' .. fence .. ' 0' then
      if done then
        call('HSET', p .. 'o', name, id .. ' ' .. fence .. ' ' .. stamp(wall + LEDGER))
        call('ZADD', p .. 'ox', wall + LEDGER, name)
      else call('HDEL', p .. 'o', name) end
    end
  end
  call('HDEL', key, 'o')
end
local function tell(id)
  if waited == nil then waited = call('EXISTS', p .. 'w') == 1 end
  if waited and call('ZREM', p .. 'w', id) == 1 then wake('f', id) end
end
-- Brings a job to a final state; the caller has taken it out of where it was.
local function finish(id, key, state, hangs, result)
  local keep, own = (state == 'c') and kc or kf, nil
  count(state, 1)
  if result then call('HSET', key, 's', state, 'e', NOW, 'res', result)
  else call('HSET', key, 's', state, 'e', NOW) end
  if hangs then
    local v = call('HMGET', key, 'uk', 'uf', 'ks', 'bt', 'bc')
    if v[1] and not v[2] then
      local held = call('HGET', p .. 'u', v[1])
      if held and string.match(held, '^(%d+)') == id then call('HDEL', p .. 'u', v[1]) end
    end
    if v[3] then own = tonumber(v[3]) keep = own end
    if v[4] and not v[5] then
      local batch = p .. 'bt:' .. v[4]
      call('HSET', key, 'bc', 1)
      if state ~= 'c' then call('HINCRBY', batch, 'failed', 1) end
      if call('HINCRBY', batch, 'pending', -1) == 0 then close_batch(v[4]) end
    end
  end
  if keep <= 0 then
    call('DEL', key)
    count(state, -1)
  else
    call('ZADD', p .. 'f' .. state, id, id)
    if state == 'c' and not own then call('RPUSH', p .. 'fin', id)
    else call('ZADD', p .. 'kept', wall + keep, id) end
  end
  tell(id)
end
local function promote(limit)
  local due = call('ZRANGEBYSCORE', p .. 'due', '-inf', wall, 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    local v = call('HMGET', p .. 'j:' .. id, 's', 'p', 'ck', 'cl')
    call('HSET', p .. 'j:' .. id, 's', 'a')
    arrive(id, tonumber(v[2] or '5'), v[3], v[4])
    call('ZREM', p .. 'due', id)
    call('ZREM', p .. 'l' .. v[1], id)
    count(v[1], -1)
    count('a', 1)
  end
  return #due
end
-- Leases that ended while the server itself was down are not charged: they get `grace` seconds once.
local function restarted(grace)
  local run = string.match(call('INFO', 'server'), 'run_id:(%x+)') or ''
  local known = call('HGET', p .. 'q', 'run')
  if known == run then return false end
  call('HSET', p .. 'q', 'run', run)
  if not known then return false end
  for _, id in ipairs(call('ZRANGEBYSCORE', p .. 'lease', '-inf', mono + grace)) do
    call('ZADD', p .. 'lease', mono + grace, id)
  end
  return true
end
local function reap(limit, grace)
  local over, silent = call('ZRANGEBYSCORE', p .. 'lease', '-inf', mono, 'LIMIT', 0, limit), {}
  if #over == 0 or restarted(grace) then return 0, silent end
  for _, id in ipairs(over) do
    local key = p .. 'j:' .. id
    local v = call('HMGET', key, 'f', 'n', 'm', 'k', 'w', 'x', 'p', 'ck', 'cl')
    if not silent[v[5]] then
      silent[v[5]] = true
      wake('s', v[5])
    end
    call('HSET', key, 'err', "the lease of worker '" .. v[5] .. "' ran out in attempt " .. v[2])
    count('r', -1)
    if v[6] then clear_ledger(id, key, v[1], false) end
    if v[8] then free(v[8]) end
    if v[4] then finish(id, key, 'x', v[6])
    elseif tonumber(v[2]) < tonumber(v[3] or '10') then
      call('HSET', key, 's', 'a', 't', NOW)
      count('a', 1)
      arrive(id, tonumber(v[7] or '5'), v[8], v[9])
    else finish(id, key, 'd', v[6]) end
    call('ZREM', p .. 'lease', id)
  end
  return #over, silent
end
"""

# One job as a reader gets it.
_VIEW = """
local function view(id)
  local found = call('HGETALL', p .. 'j:' .. id)
  if #found == 0 then return nil end
  local ends = call('ZSCORE', p .. 'lease', id)
  return {tostring(id), NOW, ends and stamp(wall + tonumber(ends) - mono) or '', found}
end
"""


def _script(name: str, *parts: str, flags: str = "") -> Script:
    text = "".join(parts).replace("LEDGER", f"{LEDGER_KEEP_S:.0f}")
    return Script(name, f"#!lua flags={flags}\n{text}" if flags else f"#!lua\n{text}")


# KEYS names numbers; ARGV queue candidate…. Answers the queue's number, 0 when no candidate is free.
REGISTER = _script(
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

# KEYS q…; ARGV wall mono batch callback-extras callback-body, then for each queue: number create jobs (extras body)….
# `batch` is 0 for none, 1, or 2 with a callback. Answers a seq for each job, negative for one that holds the unique
# key, and at the end the batch's; or {0, key} where a queue is not as the caller believes.
ENQUEUE = _script(
    "enqueue",
    _HEAD,
    _INSERT,
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
    call('HSET', KEYS[i], 'no', ARGV[at], 'run', string.match(call('INFO', 'server'), 'run_id:(%x+)') or '')
    no = tonumber(ARGV[at])
  end
  local fresh = 0
  if ARGV[3] ~= '0' then
    seq = math.max(seq + 1, math.floor((wall - EPOCH) * 1000))
    batch = seq
  end
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
  call('HSET', KEYS[i], 'seq', string.format('%.0f', seq))
  leave()
  at = at + 3 + 2 * tonumber(ARGV[at + 2])
end
return answer
""",
)

# KEYS q; ARGV wall mono limit lease worker parked grace.
# Answers {rows, nap, mark, silent}: rows are flat, six values each; nap is the seconds until trying again is worth
# it ('' unknown) and mark the newest entry of the wake stream, both only where there was nothing.
CLAIM = _script(
    "claim",
    _HEAD,
    _INSERT,
    _END,
    """
if not enter(KEYS[1]) then
  local news = call('XREVRANGE', p .. 'wake', '+', '-', 'COUNT', 1)[1]
  return {{}, '', news and news[1] or '0-0', 0}
end
promote(100)
local _, silent = reap(100, tonumber(ARGV[7]))
-- A claim that waited while its worker's leases ran out is not answered with that worker's own jobs.
if ARGV[6] == '1' and silent[ARGV[5]] then
  leave()
  if seq > 0 then call('HSET', KEYS[1], 'seq', string.format('%.0f', seq)) end
  return {{}, '', '', 1}
end
local rows, nap = {}, ''
local function sooner(seconds)
  if seconds and (nap == '' or seconds < nap) then nap = math.max(0, seconds) end
end
local v = call('HMGET', KEYS[1], 'paused', 'rate', 'burst', 'tk', 'tu')
if v[1] ~= '1' then
  local allowed, tokens = tonumber(ARGV[3]), nil
  if v[2] then
    tokens = math.min(tonumber(v[3]), tonumber(v[4]) + math.max(0, mono - tonumber(v[5])) * tonumber(v[2]))
    allowed = math.min(allowed, math.floor(tokens + 1e-9))
  end
  local popped = allowed > 0 and call('ZPOPMIN', p .. 'ready', allowed) or {}
  local ends, leases, n = string.format('%.6f', mono + tonumber(ARGV[4])), {}, 0
  for i = 1, #popped, 2 do
    local id = popped[i]
    local key = p .. 'j:' .. id
    local j = call('HMGET', key, 'f', 'n', 'c', 'b', 'pv')
    local fence, attempt = tonumber(j[1] or '0') + 1, tonumber(j[2] or '0') + 1
    call('HSET', key, 's', 'r', 'f', fence, 'n', attempt, 'w', ARGV[5], 'v', NOW)
    leases[#leases + 1] = ends
    leases[#leases + 1] = id
    rows[n + 1] = id rows[n + 2] = fence rows[n + 3] = attempt
    rows[n + 4] = j[3] rows[n + 5] = j[4] rows[n + 6] = j[5] or ''
    n = n + 6
    if #leases == 2000 then call('ZADD', p .. 'lease', unpack(leases)) leases = {} end
  end
  if #leases > 0 then call('ZADD', p .. 'lease', unpack(leases)) end
  count('a', -n / 6)
  count('r', n / 6)
  if tokens then
    tokens = math.max(0, tokens - n / 6)
    call('HSET', KEYS[1], 'tk', string.format('%.9f', tokens), 'tu', stamp(mono))
    if n == 0 and call('EXISTS', p .. 'ready') == 1 then sooner((1 - tokens) / tonumber(v[2])) end
  end
end
leave()
if seq > 0 then call('HSET', KEYS[1], 'seq', string.format('%.0f', seq)) end
if #rows > 0 then return {rows, '', '', 0} end
local head = call('ZRANGE', p .. 'due', 0, 0, 'WITHSCORES')
if head[2] then sooner(tonumber(head[2]) - wall) end
head = call('ZRANGE', p .. 'lease', 0, 0, 'WITHSCORES')
if head[2] then sooner(tonumber(head[2]) - mono) end
local news = call('XREVRANGE', p .. 'wake', '+', '-', 'COUNT', 1)[1]
return {rows, tostring(nap), news and news[1] or '0-0', 0}
""",
    flags="allow-oom",
)

# KEYS q; ARGV wall mono lease (seq fence)…. Answers 0 ok, 1 cancel, 2 lost for each.
RENEW = _script(
    "renew",
    _HEAD,
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
LOOK = _script(
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
SETTLE = _script(
    "settle",
    _HEAD,
    _INSERT,
    _END,
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
  if how == 'r' or how == 'z' then call('HINCRBY', key, 'n', -1) end
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
call('HSET', KEYS[1], 'seq', string.format('%.0f', seq))
leave()
return answer
""",
    flags="allow-oom",
)

# KEYS q; ARGV wall mono what seq. `what` is cancel, retry, or dead (retry where it is discarded).
# Answers {verdict, view}: 0 done, 1 no such job, 2 its state does not allow it.
CHANGE = _script(
    "change",
    _HEAD,
    _INSERT,
    _END,
    _VIEW,
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
local verdict = 0
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
call('HSET', KEYS[1], 'seq', string.format('%.0f', seq))
leave()
local shown = view(id)
if not shown then return {1} end
return {verdict, shown}
""",
    flags="allow-oom",
)

# KEYS q; ARGV wall mono seq…. A view of each job that is there.
READ = _script(
    "read",
    _HEAD,
    _VIEW,
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
FIND = _script(
    "find",
    _HEAD,
    _VIEW,
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
  for _, id in ipairs(found) do ids[#ids + 1] = tonumber(id) end
end
if want == '' or want == 'a' then
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

# KEYS q; ARGV wall mono seq fence value+note. Answers 0, 1 cancel, 2 lost.
PROGRESS = _script(
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
ONCE = _script(
    "once",
    _HEAD,
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
AWAIT = _script(
    "await",
    _HEAD,
    """
p = string.sub(KEYS[1], 1, -2)
local state = call('HGET', p .. 'j:' .. ARGV[3], 's') or ''
if state ~= '' and not string.find('cdx', state, 1, true) then
  call('ZADD', p .. 'w', 'GT', mono + tonumber(ARGV[4]), ARGV[3])
end
local news = call('XREVRANGE', p .. 'wake', '+', '-', 'COUNT', 1)[1]
return {state, news and news[1] or '0-0'}
""",
    flags="allow-oom",
)

# KEYS q; ARGV wall mono number create paused ('' as it is) cfg rate burst kc kf (cfg '' leaves the configuration).
# Answers 1, or 0 where the queue is not as the caller believes.
CONFIGURE = _script(
    "configure",
    _HEAD,
    """
local known = call('HGET', KEYS[1], 'no')
if (not known and ARGV[4] ~= '1') or (known and ARGV[3] ~= '' and known ~= ARGV[3]) then return 0 end
enter(KEYS[1])
if not known then
  call('HSET', KEYS[1], 'no', ARGV[3], 'run', string.match(call('INFO', 'server'), 'run_id:(%x+)') or '')
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

# KEYS q; ARGV wall mono grace. Promotes, reaps and deletes, each at most 100; answers 1 where there may be more.
MAINTAIN = _script(
    "maintain",
    _HEAD,
    _INSERT,
    _END,
    """
if not enter(KEYS[1]) then return 0 end
local first = seq
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
if seq ~= first then call('HSET', KEYS[1], 'seq', string.format('%.0f', seq)) end
leave()
return math.max(most, #batches) >= 100 and 1 or 0
""",
    flags="allow-oom",
)

# KEYS schedules created ticks; ARGV wall mono name document.
PUT_SCHEDULE = _script(
    "put_schedule",
    _HEAD,
    """
call('HSET', KEYS[1], ARGV[3], ARGV[4])
call('HSETNX', KEYS[2], ARGV[3], NOW)
return 1
""",
)

# KEYS schedules created ticks; ARGV wall mono name tick ('' removes the schedule). Answers whether there is one.
TICK = _script(
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
