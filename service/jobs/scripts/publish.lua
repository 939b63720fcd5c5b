-- Makes an uploaded job known to the workers.
-- KEYS: job, chunks, active, deadlines. ARGV: member, group, lines, chunks, seconds until forgotten
if redis.call('HGET', KEYS[1], 'state') ~= 'uploading' then return 0 end
local now = redis.call('TIME')[1]
local lines, chunks = tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('HSET', KEYS[1], 'total', lines, 'chunks', chunks, 'sealed', 1, 'created_s', now)
redis.call('ZADD', KEYS[4], now + ARGV[5], ARGV[1])
if lines == 0 then
  redis.call('HSET', KEYS[1], 'state', 'done', 'ended_s', now)
  return 1
end
redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM')
for chunk = 0, chunks - 1 do
  redis.call('XADD', KEYS[2], (chunk + 1) .. '-0', 'chunk', chunk)
end
redis.call('HSET', KEYS[1], 'state', 'queued')
redis.call('SADD', KEYS[3], ARGV[1])
return 1
