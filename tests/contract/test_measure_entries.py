"""What every measure keeps to, over the registry: a new one is tested without being named."""

import pytest

from real_tasks.contract import MeasureContract
from real_tasks.evaluation.measures import MEASURES


@pytest.mark.parametrize("name", list(MEASURES))
class TestMeasures(MeasureContract):
    pass
