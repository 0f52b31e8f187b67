-- All methods of the last run on a model and behaviour: on test questions each at its tuned setting,
-- and at equal KL against the unsteered model and the run's own method (95 % intervals over
-- questions); bounded: no strength of it costs that KL. What it takes, and whether it bakes.
-- metric VARCHAR = NULL: the metric; without: the first that a run has of mc1, option_accuracy, ...
-- model VARCHAR = NULL: the language model; each of them without
-- behaviour VARCHAR = NULL: the behaviour; each of them without
-- run_id VARCHAR = NULL: the run; the last one of each model and behaviour without
WITH named AS (
    SELECT run_id, model, model_id, behaviour
    FROM runs
    WHERE flow = 'experiment' AND status = 'completed'
          AND ($model IS NULL OR model = $model) AND ($behaviour IS NULL OR behaviour = $behaviour)
          AND ($run_id IS NULL OR run_id = $run_id)
    QUALIFY row_number() OVER (
        PARTITION BY model_id, behaviour ORDER BY started_at DESC, run_id DESC
    ) = 1
),
tested AS (
    SELECT run_id, method, metric, avg(value) AS value,
           list_position(['mc1', 'option_accuracy', 'true_share', 'context_share', 'memory_share'], metric) AS place
    FROM evaluations JOIN named USING (run_id)
    WHERE split = 'test'
    GROUP BY run_id, method, metric
),
effect AS (
    SELECT *
    FROM tested
    WHERE $metric IS NULL OR metric = $metric
    QUALIFY $metric IS NOT NULL OR place = min(place) OVER (PARTITION BY run_id)
),
settings AS (
    SELECT run_id, method, avg(top_k) AS top_k, avg(alpha) AS alpha
    FROM evaluations JOIN named USING (run_id)
    WHERE split = 'test'
    GROUP BY run_id, method
)
SELECT named.run_id, named.model, named.behaviour, effect.method, effect.metric, effect.value,
       kl.value AS kl, top_k, alpha, gain.difference AS gain, gain.low AS gain_low,
       gain.high AS gain_high, own.method AS own_method, -own.difference AS difference,
       -own.high AS low, -own.low AS high,
       m.bounded, m.fit_seconds, m.token_seconds / m.bare_token_seconds AS token_factor, m.bakes,
       m.localizer, m.fitter, m.operator, m.gate, m.scope, m.source
FROM named
JOIN effect USING (run_id)
JOIN settings USING (run_id, method)
LEFT JOIN tested AS kl ON kl.run_id = effect.run_id AND kl.method = effect.method
                          AND kl.metric = 'kl'
LEFT JOIN comparisons AS gain ON gain.run_id = effect.run_id AND gain.method = effect.method
                                 AND gain.baseline = 'unsteered' AND gain.basis = 'matched_kl'
                                 AND gain.metric = effect.metric
LEFT JOIN comparisons AS own ON own.run_id = effect.run_id AND own.baseline = effect.method
                                AND own.baseline <> 'unsteered' AND own.basis = 'matched_kl'
                                AND own.metric = effect.metric
LEFT JOIN methods AS m ON m.run_id = effect.run_id AND m.method = effect.method
ORDER BY named.behaviour, named.model, named.run_id, gain.difference DESC NULLS LAST,
         effect.value DESC, effect.method
