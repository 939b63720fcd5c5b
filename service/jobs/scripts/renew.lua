-- Holds a lease for longer, or gives it back so that the next who asks gets the chunk.
-- KEYS: job, chunks, fences. ARGV: chunk, fence, group, consumer, entry, idle ms to be counted
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('XCLAIM', KEYS[2], ARGV[3], ARGV[4], 0, ARGV[5], 'IDLE', ARGV[6], 'JUSTID')
return 1
