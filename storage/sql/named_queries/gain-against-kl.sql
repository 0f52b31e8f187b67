-- What each method gains over the unsteered model, and the KL divergence on neutral text that it
-- costs: means over folds and seeds. split=validation shows every strength that was tried.
-- model VARCHAR: the language model
-- behaviour VARCHAR: the behaviour
-- metric VARCHAR = 'mc1': the metric
-- split VARCHAR = 'test': test or validation questions
-- run_id VARCHAR = NULL: the run; all of them without
WITH measured AS (
    SELECT run_id, method, fold, seed, top_k, alpha,
           avg(value) FILTER (metric = $metric) AS value, avg(value) FILTER (metric = 'kl') AS kl
    FROM evaluations
    WHERE model = $model AND behaviour = $behaviour AND split = $split
          AND metric IN ($metric, 'kl') AND ($run_id IS NULL OR run_id = $run_id)
    GROUP BY ALL
),
unsteered AS (
    -- Its seeds, where it has any, are one and the same measurement.
    SELECT run_id, fold, avg(value) AS value
    FROM measured
    WHERE method = 'unsteered'
    GROUP BY ALL
)
SELECT run_id, method, CASE WHEN $split = 'validation' THEN top_k END AS top_k,
       CASE WHEN $split = 'validation' THEN alpha END AS alpha,
       avg(measured.value) AS value, avg(measured.value - unsteered.value) AS gain,
       avg(kl) AS kl, count(*) AS n
FROM measured JOIN unsteered USING (run_id, fold)
WHERE method <> 'unsteered' AND measured.value IS NOT NULL
GROUP BY ALL
ORDER BY run_id DESC, gain DESC, method
