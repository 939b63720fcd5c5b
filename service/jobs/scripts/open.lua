-- Makes a job known that names a source; reading it is the first thing to be done.
-- KEYS: job, chunks, active, deadlines. ARGV: member, group, source, seconds until forgotten
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
local now = redis.call('TIME')[1]
redis.call('HSET', KEYS[1], 'state', 'queued', 'created_s', now, 'total', 0, 'chunks', 0,
  'source', ARGV[3])
redis.call('ZADD', KEYS[4], now + ARGV[4], ARGV[1])
redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM')
redis.call('XADD', KEYS[2], '0-1', 'chunk', -1)
redis.call('SADD', KEYS[3], ARGV[1])
return 1
