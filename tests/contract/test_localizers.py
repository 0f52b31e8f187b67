"""What every localizer keeps to, over the registry: a new one is tested without being named."""

import pytest

from real_tasks.contract import LocalizerContract
from real_tasks.localizers import LOCALIZERS


@pytest.mark.parametrize("name", list(LOCALIZERS))
class TestLocalizers(LocalizerContract):
    pass
