-- Puts a chunk's packed results in the place of its lines; the last chunk ends the job.
-- KEYS: job, chunks, fences, lines, results, packed, completed, active, deadlines
-- ARGV: chunk, fence, group, entry, packed results, member, retention in s, lines of the chunk
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then return 0 end
-- Redis has lost a result that it had: the next holder asks for that line again.
if redis.call('HLEN', KEYS[5]) ~= tonumber(ARGV[8]) then return 0 end
-- First what frees memory: a script that has written is not refused when Redis is full.
redis.call('DEL', KEYS[4], KEYS[5])
redis.call('SET', KEYS[6], ARGV[5])
redis.call('RPUSH', KEYS[7], ARGV[1])
redis.call('XACK', KEYS[2], ARGV[3], ARGV[4])
redis.call('XDEL', KEYS[2], ARGV[4])
redis.call('HDEL', KEYS[3], ARGV[1])
local finished = redis.call('HINCRBY', KEYS[1], 'finished', 1)
local known = redis.call('HMGET', KEYS[1], 'sealed', 'chunks')
if known[1] and finished == tonumber(known[2]) then
  local now = redis.call('TIME')[1]
  redis.call('HSET', KEYS[1], 'state', 'done', 'ended_s', now)
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('SREM', KEYS[8], ARGV[6])
  redis.call('ZADD', KEYS[9], now + ARGV[7], ARGV[6])
end
return 1
