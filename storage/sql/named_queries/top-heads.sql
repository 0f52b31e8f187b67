-- The heads that a localizer scores highest in a model: means over runs, folds and seeds.
-- model VARCHAR: the language model; several of that name are told apart by their model_id
-- behaviour VARCHAR = NULL: the behaviour; all of them together without
-- localizer VARCHAR = 'real': whose scores
-- k INTEGER = 10: how many heads of each model
-- model_id VARCHAR = NULL: which model of that name; each of them without
SELECT layer, head, avg(score) AS score, stddev_samp(score) AS sd, min(rank) AS best_rank,
       max(rank) AS worst_rank, count(*) AS n, model_id
FROM module_scores
WHERE model = $model AND ($model_id IS NULL OR model_id = $model_id)
      AND ($behaviour IS NULL OR behaviour = $behaviour)
      AND localizer = $localizer AND module_kind = 'head'
GROUP BY model_id, layer, head
QUALIFY row_number() OVER (PARTITION BY model_id ORDER BY avg(score) DESC, layer, head) <= $k
ORDER BY model_id, avg(score) DESC, layer, head
