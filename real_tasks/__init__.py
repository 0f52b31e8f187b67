"""The algorithm of REAL, pure; `real_tasks.tasks` wraps it for Prefect.

From Python: `steer` learns how to steer a model in memory, `load` takes up what was saved.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from real_tasks.experiment.direct.steer import steer
    from real_tasks.experiment.direct.steering import load
    from real_tasks.steering.spec import SteeringSpec

__all__ = ["SteeringSpec", "load", "steer"]
_PLACES = {
    "SteeringSpec": "real_tasks.steering.spec",
    "load": "real_tasks.experiment.direct.steering",
    "steer": "real_tasks.experiment.direct.steer",
}


def __getattr__(name: str) -> Any:
    # Only whoever asks waits for the libraries behind them.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
