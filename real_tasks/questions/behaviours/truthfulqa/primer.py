"""TruthfulQA's six-shot QA primer, read from the installed task of lm-evaluation-harness.

Its text is data of others and is not part of this project. The task's template is rendered as the
harness does it, so that a prompt made of the primer equals the harness's context.
"""

import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import yaml
from jinja2 import TemplateError
from jinja2.sandbox import SandboxedEnvironment

from real_tasks.vocabulary.errors import UserInputError

TASK_FILE = "tasks/truthfulqa/truthfulqa_mc1.yaml"
_QUESTION = "\ue000question\ue000"
"""Stands for a question; a private character, which no primer holds."""


class _TaskLoader(yaml.SafeLoader):
    """Reads a task; references to Python functions, which it may hold, are read as None."""


_TaskLoader.add_constructor("!function", lambda _loader, _node: None)


def six_shot_primer() -> tuple[str, str]:
    """Return what stands before ``Q: {question}``, and where it is from (package and version).

    Raises:
        UserInputError: the harness is not installed, or its task is another than expected.
    """
    path, where = _task_file()
    try:
        content = path.read_bytes()
        task: Any = yaml.load(content, Loader=_TaskLoader)
        rendered = (
            SandboxedEnvironment(keep_trailing_newline=True)
            .from_string(task["doc_to_text"])
            .render(question=_QUESTION)
        )
    except (OSError, yaml.YAMLError, TemplateError, LookupError, TypeError) as error:
        raise _unexpected(where, str(error)) from error
    primer, found, _ = rendered.partition(f"Q: {_QUESTION}\nA:")
    if not found or rendered != primer + found or not primer.endswith("\n\n"):
        raise _unexpected(where, "it does not end with 'Q: (question)', a new line and 'A:'")
    return primer, f"{where}, sha256 {hashlib.sha256(content).hexdigest()}"


def _task_file() -> tuple[Path, str]:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserInputError(
            "the six-shot primer is read from lm-evaluation-harness, which is not installed: "
            "pip install real-steering[lm-eval]; or set the preset to plain"
        )
    version = importlib.metadata.version("lm_eval")
    return Path(spec.submodule_search_locations[0]) / TASK_FILE, f"lm_eval {version} {TASK_FILE}"


def _unexpected(where: str, reason: str) -> UserInputError:
    return UserInputError(
        f"{where} is not the task that the six-shot primer is expected in ({reason}); install the "
        "version of the extra lm-eval: pip install real-steering[lm-eval]"
    )
