"""What plug-ins of all kinds keep to."""

from typing import Any, ClassVar

import pytest

from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.registry import Registry


class Contract:
    """Tests of the plug-in ``name``; ``params`` are those that it cannot do without.

    Attributes:
        name: the registered name; a parametrized argument ``name`` goes before.
        registry: where it is registered.
    """

    name: ClassVar[str]
    registry: ClassVar[Registry[Any]]

    @pytest.fixture(name="name")
    def _name(self) -> str:
        return self.name

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        """Parameters, where the plug-in needs some: a file, an address; to be overridden."""
        return {}

    def test_parameters_are_frozen_have_defaults_and_descriptions(self, name: str) -> None:
        params = getattr(self.registry[name], "Params", Frozen)
        assert issubclass(params, Frozen)
        assert params() == params.model_validate(params().model_dump(mode="json"))
        assert all(field.description for field in params.model_fields.values())
