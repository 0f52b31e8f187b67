-- Test metrics of every method of a run: mean and standard deviation over folds and seeds.
-- run_id VARCHAR: the run
SELECT method, metric, avg(value) AS mean, stddev_samp(value) AS sd, count(*) AS n
FROM evaluations
WHERE run_id = $run_id AND split = 'test'
GROUP BY method, metric
ORDER BY metric, mean DESC, method
