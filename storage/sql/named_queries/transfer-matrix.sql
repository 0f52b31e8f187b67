-- What each behaviour gains from the modules found on each: steered minus unsteered, with 95 %
-- intervals.
-- metric VARCHAR = 'mc1': the metric
-- run_id VARCHAR = NULL: the run of transfer; the last one without
SELECT model, model_id, source, target, method, unsteered, steered, gain, low, high, n_questions,
       n_excluded
FROM transfer
WHERE metric = $metric AND fold IS NULL
      AND run_id = coalesce($run_id, (SELECT max(run_id) FROM transfer))
ORDER BY source, target, method
