"""Upkeep: merge the tables' files of completed runs, so that queries over thousands stay fast."""

from prefect import flow

from real_tasks.tasks.upkeep.compacting import CompactConfig, compact_tables


@flow(
    name="compact",
    description="Merge the tables' files of completed runs, so that SQL stays fast.",
    flow_run_name="compact",
    validate_parameters=True,
)
def compact(config: CompactConfig = CompactConfig()) -> list[str]:  # noqa: B008
    """Merge the files; the result says what was merged, a sentence a table.

    Args:
        config: which files are merged
    """
    return compact_tables(config)
