-- Answers to which steering gave another verdict: what the model says without it and with it.
-- run_id VARCHAR: the run
-- method VARCHAR = 'real': the way of steering
WITH before AS (
    -- The unsteered model may have answered for the first seed alone.
    SELECT fold, question_id, arg_min(generation, seed) AS generation,
           arg_min(verdict, seed) AS verdict
    FROM answers
    WHERE run_id = $run_id AND method = 'unsteered'
    GROUP BY ALL
)
SELECT steered.question_id, question, steered.fold, steered.seed,
       before.verdict AS verdict_before, steered.verdict AS verdict_after,
       before.generation AS answer_before, steered.generation AS answer_after
FROM answers AS steered JOIN before USING (fold, question_id)
WHERE run_id = $run_id AND method = $method AND steered.verdict <> before.verdict
ORDER BY verdict_before, verdict_after, steered.question_id, steered.fold, steered.seed
