-- What a method gains over others on test questions, with 95 % intervals.
-- run_id VARCHAR: the run
-- method VARCHAR = 'real': the method
-- basis VARCHAR = 'tuned': tuned, each at its own best setting, or matched_kl, at equal KL
SELECT baseline, metric, difference, low, high, low > 0 OR high < 0 AS excludes_zero, n_questions
FROM comparisons
WHERE run_id = $run_id AND method = $method AND basis = $basis
ORDER BY metric, baseline
