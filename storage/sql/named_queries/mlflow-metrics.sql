-- What MLflow has of a run: its parent run and the run of each method, with their last values.
-- run_id VARCHAR: the run
-- metric VARCHAR = 'test/%': names of metrics, % stands for anything
SELECT name, metric, value, status, mlflow_run_id
FROM mlflow_runs
WHERE run_id = $run_id AND metric LIKE $metric
ORDER BY parent_run_id NULLS FIRST, name, metric
