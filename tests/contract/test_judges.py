"""What every judge keeps to, over the registry: a new one is tested without being named.

A judge that needs a model or a service has a class here that makes it.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from real_tasks.contract import JudgeContract
from real_tasks.evaluation.judges import JUDGES
from tests.unit.fake_endpoint import FakeEndpoint
from tests.unit.tiny_judges import save_planted_judge


@pytest.mark.parametrize("name", sorted({*JUDGES} - {"endpoint", "truth_info"}))
class TestJudges(JudgeContract):
    pass


class TestEndpoint(JudgeContract):
    name = "endpoint"
    remembers = True

    @pytest.fixture
    def params(self, server: FakeEndpoint) -> dict[str, Any]:
        return {"base_url": server.url, "max_retries": 0}


class TestTruthInfo(JudgeContract):
    name = "truth_info"
    knows_answers = False
    remembers = True

    @pytest.fixture
    def params(self, models: dict[str, Any]) -> dict[str, Any]:
        return models


@pytest.fixture(scope="module")
def server() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("judges")
    true, false = ["Canberra.", "Canberra", "four"], ["Sydney.", "Sydney", "Melbourne.", "five"]
    truth = save_planted_judge(folder / "truth", true, false)
    info = save_planted_judge(folder / "info", [*true, *false], ["nothing"])
    models = {"truth_model": str(truth), "info_model": str(info)}
    # One row a batch, as the size of a batch changes probabilities in their last digits.
    return models | {"dtype": "float32", "device": "cpu", "batch_tokens": 1}
