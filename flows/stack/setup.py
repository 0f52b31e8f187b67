"""Steps in the start of a stack that need heavy imports, each a process of its own.

``python -m flows.stack.setup database`` makes MLflow's database of the home, where there is none;
``python -m flows.stack.setup deployments`` registers all deployments in the stack's work pool,
which is made where there is none, at the server of PREFECT_API_URL. Their flow runs start in the
folder of that process.
"""

import sys

from real_tasks.vocabulary.errors import UserInputError
from storage.errors import StorageError
from storage.paths import Home

if __name__ == "__main__":
    try:
        if sys.argv[1] == "database":
            from storage.tracking.tracker import Tracker

            Tracker(Home.current()).initialise()
        else:
            from flows.stack.deployments import register_all

            register_all()
    except (UserInputError, StorageError) as error:
        sys.exit(str(error))
