"""Which changes of the source change a key. The sources of a small program stand in for ours."""

from collections.abc import Iterator

import pytest

from real_tasks.tasks import code_version as module
from real_tasks.tasks.code_version import code_of, code_version

PROGRAM = {
    "real_tasks.top": "from real_tasks.helper import help_out\nimport numpy as np\n",
    "real_tasks.helper": "import real_tasks.deep\nfrom real_tasks import member\n",
    "real_tasks.deep": "from real_tasks.config import ExperimentConfig\nX = 1\n",
    "real_tasks.member": "def inside():\n    from real_tasks.late import y\n    return y\n",
    "real_tasks.late": "import real_tasks.top\ny = 2\n",
    "real_tasks.aside": "z = 3\n",
    "real_tasks.config": "anything = 1\n",
}


def forget() -> None:
    code_version.cache_clear()
    module._code_of_function.cache_clear()
    module._is_module.cache_clear()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    sources = dict(PROGRAM)
    monkeypatch.setattr(module, "_source", lambda name: sources[name].encode())
    monkeypatch.setattr(module, "_is_module", lambda name: name in sources, raising=True)
    module_is_module = module._is_module
    assert module_is_module("real_tasks.top")
    code_version.cache_clear()
    module._code_of_function.cache_clear()
    yield sources
    code_version.cache_clear()
    module._code_of_function.cache_clear()


def version(*roots: str) -> str:
    code_version.cache_clear()
    return code_version(*roots)
