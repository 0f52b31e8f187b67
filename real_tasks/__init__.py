"""The algorithm of REAL, pure; `real_tasks.tasks` wraps it for Prefect."""
