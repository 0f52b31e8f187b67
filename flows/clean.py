"""Upkeep: remove what no kept run needs."""

from prefect import flow

from real_tasks.tasks.upkeep.cleaning import CleanConfig, CleanSummary, clean_home

DEFAULTS = CleanConfig()


@flow(
    name="clean",
    description="List, or remove, artifacts and left-overs that no kept run needs.",
    flow_run_name="clean-{config.label}",
)
def clean(config: CleanConfig = DEFAULTS) -> CleanSummary:
    """List or remove what nobody needs; the result says what and how many bytes.

    Args:
        config: what is old enough, and whether it is removed or only listed
    """
    return clean_home(config)
