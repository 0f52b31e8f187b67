-- The last runs: what they did, how they ended, how long they took.
-- k INTEGER = 20: how many runs
SELECT run_id, flow, model, model_id, behaviour, status, started_at,
       round(date_diff('millisecond', started_at, finished_at) / 60000, 1) AS minutes
FROM runs
ORDER BY started_at DESC, run_id
LIMIT $k
