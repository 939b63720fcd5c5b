-- Adds a chunk to a job whose source is being read; one that is there already stays as it is.
-- KEYS: job, chunks, fences, lines. ARGV: fence, chunk, lines in it, packed lines
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
if redis.call('HGET', KEYS[3], '-1') ~= ARGV[1] then return 0 end
local ahead = tonumber(ARGV[2]) - tonumber(redis.call('HGET', KEYS[1], 'chunks'))
-- Redis has lost chunks that it had: who reads next begins with the first of them.
if ahead > 0 then return 0 end
if ahead == 0 then
  redis.call('SET', KEYS[4], ARGV[4])
  redis.call('XADD', KEYS[2], (ARGV[2] + 1) .. '-0', 'chunk', ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'chunks', 1)
  redis.call('HINCRBY', KEYS[1], 'total', ARGV[3])
end
return 1
