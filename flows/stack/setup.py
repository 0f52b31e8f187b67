"""Steps in the start of a stack that need heavy imports, each a process of its own.

``python -m flows.stack.setup database`` makes MLflow's database of the home;
``python -m flows.stack.setup deployments`` registers all deployments in the stack's work pool,
which is made where there is none, at the server of PREFECT_API_URL.
"""

import sys

from flows.stack.options import POOL
from real_tasks.vocabulary.errors import UserInputError
from storage.errors import StorageError
from storage.paths import Home


def make_database() -> None:
    """Make MLflow's database where there is none."""
    from storage.tracking.tracker import Tracker

    Tracker(Home.current()).initialise()


def make_deployments() -> None:
    """Register all deployments; their flow runs start in the folder of this process."""
    from flows.stack.deployments import register_all

    register_all(POOL)


if __name__ == "__main__":
    try:
        {"database": make_database, "deployments": make_deployments}[sys.argv[1]]()
    except (UserInputError, StorageError) as error:
        sys.exit(str(error))
