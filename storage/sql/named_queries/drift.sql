-- How scores and the gain of the deployed steering drifted from one re-scoring to the next.
-- model VARCHAR = NULL: the language model; all of them without
-- behaviour VARCHAR = NULL: the behaviour; all of them without
-- localizer VARCHAR = NULL: whose scores; all of them without
SELECT started_at, run_id, score_drift.model, score_drift.model_id, score_drift.behaviour, localizer, module_kind,
       what_changed, exceeded, spearman, spearman_low, spearman_high, shared, top_k, auc_change,
       gain, gain_change, gain_change_low, gain_change_high
FROM score_drift JOIN runs USING (run_id)
WHERE fold IS NULL AND changed
      AND ($model IS NULL OR score_drift.model = $model)
      AND ($behaviour IS NULL OR score_drift.behaviour = $behaviour)
      AND ($localizer IS NULL OR localizer = $localizer)
ORDER BY started_at, localizer, module_kind
