-- Keeps which version of its source a job began with, and returns that.
-- KEYS: job, fences. ARGV: fence, version
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return false end
if redis.call('HGET', KEYS[2], '-1') ~= ARGV[1] then return false end
redis.call('HSETNX', KEYS[1], 'version', ARGV[2])
return redis.call('HGET', KEYS[1], 'version')
