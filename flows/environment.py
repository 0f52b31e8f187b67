"""The environment that Prefect and MLflow read: quiet, offline, and all state under the home.

Imported before Prefect, which reads its settings when it is imported.
"""

import os
from pathlib import Path

from storage.paths import HOME_VARIABLE, Home


def use_home(home: Path | None) -> Home:
    """Make ``home`` the home of this process and its children, and set what depends on it."""
    if home is not None:
        os.environ[HOME_VARIABLE] = str(home.absolute())
    current = Home.current()
    for name, value in {
        "PREFECT_HOME": str(current.prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # OpenMP's threads spin without bound while they wait for one another: on cores that others
        # use too, training took several times as long. A bounded spin costs nothing on free ones.
        "GOMP_SPINCOUNT": "20000",
    }.items():
        os.environ.setdefault(name, value)
    return current
