-- Heads of a model that are among the best k for several behaviours, by their mean score in each.
-- model VARCHAR: the language model; several of that name are told apart by their model_id
-- localizer VARCHAR = 'real': whose scores
-- k INTEGER = 48: how many of the best heads of each behaviour count
-- model_id VARCHAR = NULL: which model of that name; each of them without
WITH means AS (
    SELECT model_id, behaviour, layer, head, avg(score) AS score
    FROM module_scores
    WHERE model = $model AND ($model_id IS NULL OR model_id = $model_id)
          AND localizer = $localizer AND module_kind = 'head'
    GROUP BY ALL
),
best AS (
    SELECT *
    FROM means
    QUALIFY row_number() OVER (
        PARTITION BY model_id, behaviour ORDER BY score DESC, layer, head
    ) <= $k
)
SELECT layer, head, count(*) AS n_behaviours, list(behaviour ORDER BY behaviour) AS behaviours,
       avg(score) AS score, model_id
FROM best
GROUP BY model_id, layer, head
HAVING n_behaviours > 1
ORDER BY model_id, n_behaviours DESC, score DESC, layer, head
