-- Ends a job before it is done; one that has ended stays as it is.
-- KEYS: job, chunks, fences, active, deadlines
-- ARGV: member, retention in s, state, why it failed; where a holder ends it: chunk, fence
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'queued' and state ~= 'running' then return 0 end
if ARGV[5] and redis.call('HGET', KEYS[3], ARGV[5]) ~= ARGV[6] then return 0 end
local now = redis.call('TIME')[1]
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'ended_s', now, 'reason', ARGV[4])
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SREM', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[5], now + ARGV[2], ARGV[1])
return 1
