-- Leases a chunk: one whose lease ran out, or else the next one that nobody has had.
-- KEYS: job, chunks, fences. ARGV: group, consumer, lease in ms, whether it may be a source (1 or 0)
-- Returns nil, or the chunk's entry, its number and the fence that later steps must show.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'queued' and state ~= 'running' then return false end
-- A source is the first entry of its job; as long as nobody has had it, there is no other.
local first = ARGV[4] == '1' and '-' or '1-0'
if first ~= '-' and state == 'queued' and redis.call('HEXISTS', KEYS[1], 'source') == 1 then
  return false
end
-- A clock that was set back makes leases last as much longer: they all begin anew by the new one.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local seen_ms = tonumber(redis.call('HGET', KEYS[1], 'clock_ms') or 0)
if now_ms < seen_ms then
  for _, held in ipairs(redis.call('XPENDING', KEYS[2], ARGV[1], '-', '+', 1000)) do
    redis.call('XCLAIM', KEYS[2], ARGV[1], held[2], 0, held[1], 'IDLE', 0, 'JUSTID')
  end
end
if now_ms < seen_ms or now_ms > seen_ms + 1000 then
  redis.pcall('HSET', KEYS[1], 'clock_ms', now_ms)  -- which a full Redis may refuse
end
local found
local late = redis.call('XPENDING', KEYS[2], ARGV[1], 'IDLE', ARGV[3], first, '+', 1)
if #late > 0 then
  found = redis.call('XCLAIM', KEYS[2], ARGV[1], ARGV[2], ARGV[3], late[1][1])
else
  local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[2], '>')
  found = read and read[1][2] or {}
end
if #found == 0 then return false end
local entry, chunk = found[1][1], found[1][2][2]
if state == 'queued' then
  redis.call('HSET', KEYS[1], 'state', 'running', 'started_s', redis.call('TIME')[1])
end
return {entry, tonumber(chunk), redis.call('HINCRBY', KEYS[3], chunk, 1)}
