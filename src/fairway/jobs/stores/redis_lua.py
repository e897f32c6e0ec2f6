"""What the Redis store keeps, and the Lua that its scripts share.

Keys of a queue, all after the store's tag and its name:

- ``q`` a hash: no (the queue's number), n<state> (counts, but of available jobs), paused, rate, burst, tk, tu (token
  bucket), kc, kf (retention), cfg (configuration as JSON), run (the run_id of the server that last looked after
  leases), life (of the one whose ids and fences go on), fb (below every fence of this life).
- ``f:NUMBER`` fresh jobs, a stream: an entry ``0-SEQ CREATED BODY`` is a job of defaults and of 16 KiB at most that was
  neither claimed nor changed so far, and has no hash. The newest seq of all the queue's jobs is the stream's last id
  (in stores of before ``n:NUMBER``, or seq in ``q``). It is missing after FLUSHALL.
- ``j:SEQ`` a job, a hash, the truth: b body, c created, s state, f fence, n attempt, t due, v started, e finished, w
  worker, g progress, res result, err error, k cancel requested. Where they are not the default: p priority, m max
  attempts, ck and cl concurrency, z blocked by it, uk and uf unique, ks keep, th chain, bt, bi and bc batch, pa parent,
  pv previous, o ledger keys; x says that something hangs on its end.
- Sorted sets: ``ready`` (priority and seq in one score: the order of dispatch, to which fresh jobs belong; stores of
  before have those here, as "SEQ CREATED BODY"), ``due`` (by time), ``ls`` and ``ly`` (the same by seq, scheduled and
  retryable), ``lease`` (by end), ``blocked`` (by seq) and ``cb:KEY`` (by score), ``fc`` ``fd`` ``fx`` (final jobs by
  seq), ``kept`` (by the end of their retention), ``ux`` ``ox`` ``kb`` (ends of unique windows, ledger keys, batches),
  ``w`` (jobs that somebody waits for).
- ``fin`` a list: completed jobs in the order they ended.
- Hashes: ``u`` unique keys, ``o`` the `once` ledger, ``cs`` used concurrency slots, ``bt:SEQ`` a batch.
- ``wake`` a stream of news for claims that wait: w there is work in ready, s WORKER fell silent. ``ended`` one for
  readers that do: f SEQ is final.

Scripts do not roll back, but nothing stops one half way either: what they read is checked before the first write, and
those that add jobs are refused as a whole when memory is out (no allow-oom flag), while those that bring jobs to an end
are let through. The append-only file has the effects of a script as one transaction.
"""

from __future__ import annotations

from fairway.jobs.store import LEDGER_KEEP_S
from fairway.jobs.stores.redis_keys import WHOLE
from fairway.resp import Script

_CONSTANTS = {
    "LEDGER": f"{LEDGER_KEEP_S:.0f}",
    "SHIFT": str(1 << 41),  # above every seq
    "EPOCH": "1735689600",  # 2025: what seqs are counted from
    "WHOLE": str(WHOLE),
}

HEAD = """
local call = redis.call
local wall, mono = tonumber(ARGV[1]), tonumber(ARGV[2])
if not wall then
  local t = call('TIME')
  wall = tonumber(t[1]) + tonumber(t[2]) / 1000000
  mono = wall
end
local function stamp(at) return string.format('%.6f', at) end
local NOW = stamp(wall)
-- Which life of the server this is; empty where the user may not ask.
local function run_id()
  local told = redis.pcall('INFO', 'server')
  return type(told) == 'string' and string.match(told, 'run_id:(%x+)') or ''
end
local p, no, seq, counted, kc, kf, delta, awake, looked, waited
local function enter(key)
  p = string.sub(key, 1, -2)
  local q = call('HMGET', key, 'no', 'kc', 'kf')
  no, seq = tonumber(q[1]), nil
  kc, kf = tonumber(q[2] or '86400'), tonumber(q[3] or '1209600')
  delta, awake, looked, waited = {}, false, false, nil
  return no
end
-- The newest seq of the queue: the last id of its stream of fresh jobs, which is made here where there is none.
local function newest()
  if seq then return seq end
  local fresh = p .. 'f:' .. no
  local told = redis.pcall('XINFO', 'STREAM', fresh)
  for i = 1, #told, 2 do
    if told[i] == 'last-generated-id' then seq = tonumber(string.sub(told[i + 1], 3)) end
  end
  if not seq then
    seq = math.max(1, tonumber(call('GET', p .. 'n:' .. no) or call('HGET', p .. 'q', 'seq') or '1'))
    call('XADD', fresh, 'MAXLEN', 0, string.format('0-%.0f', seq), 'b', '')
    call('DEL', p .. 'n:' .. no)
  end
  counted = seq
  return seq
end
local function draw()
  seq = math.max(newest() + 1, math.floor((wall - EPOCH) * 1000))
  return string.format('%.0f', seq)
end
local function count(state, n) delta[state] = (delta[state] or 0) + n end
local function leave()
  for state, n in pairs(delta) do
    if n ~= 0 and state ~= 'a' then call('HINCRBY', p .. 'q', 'n' .. state, n) end
  end
  if seq and seq ~= counted then call('XSETID', p .. 'f:' .. no, string.format('0-%.0f', seq)) end
end
local function wake(field, value) call('XADD', p .. 'wake', 'MAXLEN', '~', 1000, '*', field, value) end
local function wake_workers()
  if not awake then awake = true wake('w', '1') end
end
local function ready(id, priority)
  if not looked then
    looked = true
    if call('EXISTS', p .. 'ready') == 0 then wake_workers() end
  end
  call('ZADD', p .. 'ready', priority * SHIFT + id, id)
end
-- Seq of a member of the ready set; of a fresh job in a store of before also its creation and body.
local function parts(member)
  local at = string.find(member, ' ', 1, true)
  if not at then return member end
  local past = string.find(member, ' ', at + 1, true)
  return string.sub(member, 1, at - 1), string.sub(member, at + 1, past - 1), string.sub(member, past + 1)
end
-- Creation and body of a fresh job, and its member of the ready set where it stands in that; nil for any other job.
local function whole(id)
  no = no or tonumber(call('HGET', p .. 'q', 'no'))
  if not no then return nil end
  local entry = call('XRANGE', p .. 'f:' .. no, '0-' .. id, '0-' .. id)[1]
  if entry then return entry[2][1], entry[2][2] end
  local score = string.format('%.0f', 5 * SHIFT + tonumber(id))
  local member = call('ZRANGEBYSCORE', p .. 'ready', score, score)[1]
  if not member then return nil end
  local _, created, body = parts(member)
  return created, body, member
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

INSERT = """
local function insert(rec, body, more)
  local id = draw()
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
  if not rec and n == 0 and #body <= WHOLE then
    call('XADD', p .. 'f:' .. no, '0-' .. id, NOW, body)
    counted = seq
    return id
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

END = """
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
  if waited and call('ZREM', p .. 'w', id) == 1 then
    call('XADD', p .. 'ended', 'MAXLEN', '~', 1000, '*', 'f', id)
  end
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
  local run = run_id()
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
VIEW = """
local function view(id)
  local found = call('HGETALL', p .. 'j:' .. id)
  if #found == 0 then
    local created, body = whole(id)
    if not created then return nil end
    found = {'b', body, 'c', created, 's', 'a'}
  end
  local ends = call('ZSCORE', p .. 'lease', id)
  return {tostring(id), NOW, ends and stamp(wall + tonumber(ends) - mono) or '', found}
end
"""


def script(name: str, *parts: str, flags: str = "") -> Script:
    """Return the script that `parts` make up."""
    text = "".join(parts)
    for constant, value in _CONSTANTS.items():
        text = text.replace(constant, value)
    return Script(name, f"#!lua flags={flags}\n{text}" if flags else f"#!lua\n{text}")
