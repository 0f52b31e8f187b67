"""What all flows' tests share."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_pictures(unrendered: None) -> None:
    """Spend no time on pictures that nobody looks at."""
