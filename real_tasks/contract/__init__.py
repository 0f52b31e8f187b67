"""What plug-ins keep to, as tests that any package can run on its own under pytest.

A test class names the plug-in, which is installed (``pip install -e .`` does)::

    from real_tasks.contract import LocalizerContract

    class TestMyLocalizer(LocalizerContract):
        name = "my_localizer"

There is a file here for each kind of plug-in. This takes pytest, which the rest does without.
"""

import pytest

_KINDS = ("base", "behaviours", "judges", "localizers", "measures", "steering")
pytest.register_assert_rewrite(*(f"{__name__}.{kind}" for kind in _KINDS))

from real_tasks.contract.behaviours import BehaviourContract  # noqa: E402
from real_tasks.contract.judges import JudgeContract  # noqa: E402
from real_tasks.contract.localizers import LocalizerContract  # noqa: E402
from real_tasks.contract.measures import MeasureContract  # noqa: E402
from real_tasks.contract.steering import FitterContract, OperatorContract  # noqa: E402

__all__ = [
    "BehaviourContract",
    "FitterContract",
    "JudgeContract",
    "LocalizerContract",
    "MeasureContract",
    "OperatorContract",
]
