-- All methods of a run against its own one on test questions at equal KL, with 95 % intervals.
-- metric VARCHAR = 'mc1': the metric
-- behaviour VARCHAR = NULL: the behaviour; all of them without
-- run_id VARCHAR = NULL: the run; all of them without
SELECT c.run_id, c.behaviour, c.baseline AS method, m.localizer, m.fitter, m.operator, m.gate,
       c.method AS compared_with, -c.difference AS difference, -c.high AS low, -c.low AS high,
       c.n_questions, m.source
FROM comparisons AS c
LEFT JOIN methods AS m ON m.run_id = c.run_id AND m.method = c.baseline
WHERE c.basis = 'matched_kl' AND c.metric = $metric
      AND ($behaviour IS NULL OR c.behaviour = $behaviour)
      AND ($run_id IS NULL OR c.run_id = $run_id)
ORDER BY c.behaviour, c.run_id, difference DESC, c.baseline
