-- Where the time goes: work of each stage that was not taken from the cache, over shards and runs.
-- run_id VARCHAR = NULL: the run; all of them without
SELECT stage, device, count(*) AS shards, count(*) FILTER (cached) AS from_cache,
       coalesce(sum(seconds) FILTER (NOT cached), 0) AS seconds,
       avg(seconds) FILTER (NOT cached) AS mean_seconds,
       max(seconds) FILTER (NOT cached) AS longest,
       arg_max(shard, seconds) FILTER (NOT cached) AS longest_shard
FROM stage_timings
WHERE $run_id IS NULL OR run_id = $run_id
GROUP BY stage, device
ORDER BY seconds DESC, stage, device
