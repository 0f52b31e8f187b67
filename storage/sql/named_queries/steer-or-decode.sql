-- What can be read out of each module against what steering by it does, for each run: a row a module.
-- model VARCHAR: the language model
-- behaviour VARCHAR = NULL: the behaviour; each of them without
-- module_kind VARCHAR = 'head': head, layer ...
-- decode VARCHAR = 'iti': localizer whose read-out counts: its held-out ROC-AUC, 0.5 is chance
-- steer VARCHAR = 'indirect_effect': localizer whose scores are effects in nats; causal is another
-- readable DOUBLE = 0.6: ROC-AUC from which a module can be read
-- works DOUBLE = 0.1: effect from which it steers
-- last INTEGER = 200: how many of the model's last runs
WITH scores AS (
    SELECT run_id, any_value(behaviour) AS behaviour, module_kind, layer, head,
           avg(roc_auc) FILTER (localizer = $decode) AS read_out,
           avg(score) FILTER (localizer = $steer) AS effect
    FROM module_scores
    WHERE model = $model AND module_kind = $module_kind
          AND ($behaviour IS NULL OR behaviour = $behaviour) AND run_id IN (
              SELECT run_id FROM runs
              WHERE model = $model AND ($behaviour IS NULL OR behaviour = $behaviour)
              ORDER BY started_at DESC, run_id LIMIT $last
          )
    GROUP BY run_id, module_kind, layer, head
    HAVING read_out IS NOT NULL AND effect IS NOT NULL
)
SELECT run_id, behaviour, module_kind, layer, head, read_out, effect,
       CASE WHEN read_out >= $readable AND effect >= $works THEN 'both'
            WHEN effect >= $works THEN 'steers only'
            WHEN read_out >= $readable THEN 'reads only'
            ELSE 'neither' END AS verdict
FROM scores
ORDER BY run_id DESC, effect DESC, layer, head
