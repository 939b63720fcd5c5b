-- No chunk will follow. When all are finished already, so is the job.
-- KEYS: job, chunks, fences, active, deadlines
-- ARGV: fence, group, entry, member, retention in s, chunks of the source
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
if redis.call('HGET', KEYS[3], '-1') ~= ARGV[1] then return 0 end
-- Redis has lost chunks that it had: who reads next begins with the first of them.
if tonumber(redis.call('HGET', KEYS[1], 'chunks')) < tonumber(ARGV[6]) then return 0 end
redis.call('HSET', KEYS[1], 'sealed', 1)
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
redis.call('XDEL', KEYS[2], ARGV[3])
redis.call('HDEL', KEYS[3], '-1')
local finished = redis.call('HGET', KEYS[1], 'finished') or '0'
if finished == redis.call('HGET', KEYS[1], 'chunks') then
  local now = redis.call('TIME')[1]
  redis.call('HSET', KEYS[1], 'state', 'done', 'ended_s', now)
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('SREM', KEYS[4], ARGV[4])
  redis.call('ZADD', KEYS[5], now + ARGV[5], ARGV[4])
end
return 1
