"""What every operator and fitter keep to: a new one is tested without being named."""

import pytest

from real_tasks.contract import FitterContract, OperatorContract
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.operators import OPERATORS


@pytest.mark.parametrize("name", list(OPERATORS))
class TestOperators(OperatorContract):
    pass


PLAIN = [name for name in FITTERS if FITTERS[name].access == "activations"]


@pytest.mark.parametrize("name", [name for name in PLAIN if not FITTERS[name].asks])
class TestFitters(FitterContract):
    pass
