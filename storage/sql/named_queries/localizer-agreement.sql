-- How far two localizers agree on a model's modules, for each run, kind of module and fold:
-- Spearman's correlation of their scores (means over seeds), and how many of the best k they share.
-- model VARCHAR: the language model
-- behaviour VARCHAR = NULL: the behaviour; each of them without
-- one VARCHAR = 'real': a localizer
-- other VARCHAR = 'iti': another one
-- k INTEGER = 48: how many of the best modules are compared
-- last INTEGER = 200: how many of the model's last runs
WITH scores AS (
    SELECT run_id, any_value(behaviour) AS behaviour, module_kind, fold, layer, head,
           avg(score) FILTER (localizer = $one) AS a, avg(score) FILTER (localizer = $other) AS b
    FROM module_scores
    WHERE model = $model AND ($behaviour IS NULL OR behaviour = $behaviour)
          AND localizer IN ($one, $other) AND run_id IN (
              SELECT run_id FROM runs
              WHERE model = $model AND ($behaviour IS NULL OR behaviour = $behaviour)
              ORDER BY started_at DESC, run_id LIMIT $last
          )
    GROUP BY run_id, module_kind, fold, layer, head
    HAVING a IS NOT NULL AND b IS NOT NULL
),
ranks AS (
    -- Equal scores share the mean of their places; the best k are told apart by layer and head.
    SELECT *,
           rank() OVER by_a + (count(*) OVER equal_a - 1) / 2 AS rank_a,
           rank() OVER by_b + (count(*) OVER equal_b - 1) / 2 AS rank_b,
           row_number() OVER place_a <= $k AS best_a, row_number() OVER place_b <= $k AS best_b
    FROM scores
    WINDOW
        by_a AS (PARTITION BY run_id, module_kind, fold ORDER BY a DESC),
        by_b AS (PARTITION BY run_id, module_kind, fold ORDER BY b DESC),
        equal_a AS (by_a RANGE BETWEEN CURRENT ROW AND CURRENT ROW),
        equal_b AS (by_b RANGE BETWEEN CURRENT ROW AND CURRENT ROW),
        place_a AS (PARTITION BY run_id, module_kind, fold ORDER BY a DESC, layer, head),
        place_b AS (PARTITION BY run_id, module_kind, fold ORDER BY b DESC, layer, head)
)
SELECT run_id, any_value(behaviour) AS behaviour, module_kind, fold, count(*) AS modules,
       corr(rank_a, rank_b) AS spearman, count(*) FILTER (best_a AND best_b) AS shared, $k AS k
FROM ranks
GROUP BY run_id, module_kind, fold
ORDER BY run_id DESC, module_kind, fold
