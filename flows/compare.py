"""Comparison of two runs, or of a run and a published ranking."""

from prefect import flow

from real_tasks.tasks.records.comparison import CompareConfig, CompareSummary, compare_now

DEFAULTS = CompareConfig()


@flow(
    name="compare",
    description="How far two runs' rankings agree, and how their test metrics differ.",
    flow_run_name="compare-{config.label}",
)
def compare(config: CompareConfig = DEFAULTS) -> CompareSummary:
    """Compare, write the result on the run's page, and return it in words.

    Args:
        config: what is compared with what
    """
    return compare_now(config)
