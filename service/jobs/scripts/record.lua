-- Keeps a line's result, once, and counts it.
-- KEYS: job, fences, results. ARGV: chunk, fence, line, outcome, result
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
if redis.call('HSETNX', KEYS[3], ARGV[3], ARGV[5]) == 1 then
  redis.call('HINCRBY', KEYS[1], ARGV[4], 1)
end
return 1
