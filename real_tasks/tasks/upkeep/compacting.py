"""Upkeep of the tables: the files of completed runs merged, so that queries stay fast."""

from datetime import timedelta

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import ConfigDict, Field

from real_tasks.vocabulary.config import Frozen
from storage.paths import Home
from storage.upkeep.compaction import compact


class CompactConfig(Frozen):
    """Which files are merged."""

    model_config = ConfigDict(title="Compaction")

    older_than_days: float = Field(
        1.0,
        ge=0,
        le=36_500,
        title="Days since a run's end",
        description="files of later runs are left alone",
    )
    min_parts: int = Field(
        100,
        ge=1,
        title="Least number of files",
        description="a table with fewer files of completed runs is left as it is",
    )


def compact_home(home: Home, config: CompactConfig) -> list[str]:
    """Merge the files of completed runs in every table, and say for each what was done."""
    days = timedelta(days=config.older_than_days)
    done = compact(home, days, config.min_parts)
    if not done:
        return [
            f"nothing to do: no table has {config.min_parts} files of runs that completed "
            f"{config.older_than_days:g} or more days ago"
        ]
    return [
        f"{one.table}: {one.parts} files merged into one of {one.rows} rows; files now: {one.files}"
        for one in done
    ]


@task(name="compact-tables", cache_policy=NO_CACHE)
def compact_tables(config: CompactConfig) -> list[str]:
    """Merge the files of completed runs in the current home, and show what was done."""
    lines = compact_home(Home.current(), config)
    text = "\n".join(["# Compaction of the tables", "", *(f"- {line}" for line in lines)])
    create_markdown_artifact(text, key="compaction", description=f"{len(lines)} tables")
    return lines
