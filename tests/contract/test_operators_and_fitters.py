"""What every operator and fitter keep to: a new one is tested without being named."""

import pytest

from real_tasks.contract import FitterContract, OperatorContract
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.operators import OPERATORS


@pytest.mark.parametrize("name", list(OPERATORS))
class TestOperators(OperatorContract):
    pass


@pytest.mark.parametrize("name", [n for n in FITTERS if FITTERS[n].access == "activations"])
class TestFitters(FitterContract):
    pass
