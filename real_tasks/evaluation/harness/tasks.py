"""Tasks of lm-evaluation-harness on a steered model (https://github.com/EleutherAI).

The library is optional (extra ``lm-eval``) and slow to import, so it is imported only when a task
is run.
"""

import copy
import difflib
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from real_tasks.evaluation.harness.global_state import alone, quiet, seeds_kept
from real_tasks.models.chat import ChatFormat, Message, continued, conversation
from real_tasks.models.loading import LoadedModel
from real_tasks.models.rope import followers
from real_tasks.reading.out_of_memory import is_out_of_memory
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.scopes import Scope

BATCH_ROWS = 16
"""Prompts of a batch, unless the caller says otherwise."""

log = logging.getLogger(__name__)


def check_installed() -> None:
    """Check that lm-evaluation-harness is there.

    Raises:
        UserInputError: it is not; says how to install it.
    """
    if find_spec("lm_eval") is None:
        raise UserInputError(
            "evaluation.lm_eval_tasks needs lm-evaluation-harness, which is not installed: "
            "pip install real-steering[lm-eval]; or leave it empty"
        )


def check_tasks(
    tasks: Sequence[str], scope: Scope = "all", include_path: Path | None = None
) -> None:
    """Check that tasks can be run; takes seconds, as the library reads all of its own.

    They are names of tasks, groups or tags, or task files (YAML); further ones are in
    ``include_path``.

    Raises:
        UserInputError: the library is missing; unknown names, with those that look like them; or a
            token scope other than ``all``, as the library tells no hook where a prompt ends.
    """
    check_installed()
    if scope != "all":
        raise UserInputError(
            f"token scope {scope!r} cannot be used with tasks of lm-evaluation-harness, which does "
            "not tell where a prompt ends; set evaluation.token_scope to 'all', or leave "
            "evaluation.lm_eval_tasks empty"
        )
    known: list[str] = _manager(include_path).all_tasks
    for name in tasks:
        if name in known or Path(name).is_file():
            continue
        near = difflib.get_close_matches(name, known, n=4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserInputError(
            f"lm-evaluation-harness has no task {name!r}; {hint}`lm-eval ls tasks` lists all, and "
            "the path of a task file (YAML) will do as well"
        )


def lm_eval_results(
    loaded: LoadedModel,
    intervention: Intervention | None,
    tasks: Sequence[str],
    limit: int | None = None,
    batch_size: int = BATCH_ROWS,
    include_path: Path | None = None,
) -> dict[str, float]:
    """Run tasks of lm-evaluation-harness on a model that is steered meanwhile.

    Prompts go through the chat template where ``loaded.chat`` says so. Batches that do not fit the
    memory are halved. Prompts longer than the model's positions lose their beginning, as always in
    lm-evaluation-harness; how many is said in the log.

    Args:
        loaded: this thread's own model.
        intervention: None for the unsteered model; token scope ``all``.
        tasks: names of tasks, groups or tags, or task files (YAML).
        limit: most questions of each task, the first ones.
        batch_size: prompts of a batch.
        include_path: folder with further task files.

    Returns:
        ``lm_eval/<task>/<metric>`` for every metric, with ``/<filter>`` behind it where the task
        filters answers; of a group only its own means.

    Raises:
        UserInputError: the library, a task or its data set is missing (says how to get it), or
            another token scope.
    """
    if not tasks:
        return {}
    check_tasks(tasks, intervention.scope if intervention else "all", include_path)
    found: dict[str, float] = {}
    with alone(), seeds_kept(), quiet(), applied(loaded, intervention):
        for name in tasks:
            results = _results(loaded, name, limit, batch_size, include_path)
            found |= _metrics({name: results[name]} if name in results else results)
    return found


@cache
def _manager(include_path: Path | None) -> Any:
    return import_module("lm_eval.tasks").TaskManager(include_path=include_path)


def _results(
    loaded: LoadedModel, name: str, limit: int | None, batch_size: int, include_path: Path | None
) -> dict[str, dict[str, Any]]:
    """Run one task, in ever smaller batches where memory does not suffice."""
    missing = (OSError, ImportError, ValueError, import_module("datasets").exceptions.DatasetsError)
    for rows in _halved(batch_size):
        try:
            with _rows_alike(loaded):
                return _evaluated(loaded, name, limit, rows, include_path)
        except UserInputError:
            raise
        except _RowsDifferError:
            log.info("%s: prompts one by one, as their lengths change what is computed", name)
            return _evaluated(loaded, name, limit, 1, include_path)
        except missing as error:
            raise UserInputError(_hint(name, error)) from error
        except (RuntimeError, MemoryError) as error:
            if rows == 1 or not is_out_of_memory(error):
                raise
        log.warning("%s: out of memory with batches of %d prompts; trying half", name, rows)
    raise AssertionError("the last batch size either returns or raises")


class _RowsDifferError(Exception):
    """A batch is so long that its rows' lengths change what is computed; they are not known."""


@contextmanager
def _rows_alike(loaded: LoadedModel) -> Iterator[None]:
    """Let no batch run in which a long row would change the others; see `models.rope`."""

    def check(_rotary: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions: Tensor = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        states: Tensor = kwargs["x"] if "x" in kwargs else args[0]
        if len(states) > 1 and not loaded.all_short(int(positions.max()) + 1):
            raise _RowsDifferError

    with ExitStack() as hooks:
        for rotary in followers(loaded.model):
            handle = rotary.register_forward_pre_hook(check, with_kwargs=True)
            hooks.callback(handle.remove)
        yield


def _halved(batch_size: int) -> Iterator[int]:
    yield batch_size
    while batch_size > 1:
        batch_size //= 2
        yield batch_size


def _evaluated(
    loaded: LoadedModel, name: str, limit: int | None, rows: int, include_path: Path | None
) -> dict[str, dict[str, Any]]:
    # The library may give the tokenizer another padding token.
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(loaded.pad_token_id)
    model = import_module("lm_eval.models.huggingface").HFLM(
        pretrained=loaded.model,
        tokenizer=tokenizer,
        backend="causal",
        batch_size=rows,
        max_length=loaded.max_positions,
        # A chat template writes all special tokens that a prompt needs.
        add_bos_token=None if loaded.chat is None else False,
    )
    if loaded.chat is not None:
        model.apply_chat_template = partial(_conversation, loaded.tokenizer, loaded.chat)
    outcome: Any = import_module("lm_eval.evaluator").simple_evaluate(
        model=model,
        tasks=[name],
        limit=limit,
        task_manager=_manager(include_path),
        # Resampling would start processes of its own.
        bootstrap_iters=0,
        log_samples=False,
        apply_chat_template=loaded.chat is not None,
        system_instruction=(loaded.chat.system_prompt or None) if loaded.chat else None,
    )
    results: dict[str, dict[str, Any]] = outcome["results"]
    return results


def _conversation(
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    chat_history: Sequence[Message],
    add_generation_prompt: bool = True,
) -> str:
    """Write a conversation as everywhere else; the library would drop a system prompt silently."""
    written = conversation if add_generation_prompt else continued
    return str(written(tokenizer, chat, chat_history))


def _hint(name: str, error: Exception) -> str:
    return (
        f"lm-evaluation-harness cannot run the task {name!r}: {error}. If its data set is missing, "
        "load it once where there is a network, with HF_HUB_OFFLINE unset and the same HF_HOME: "
        f"""python -c "from lm_eval.tasks import TaskManager; TaskManager().load(['{name}'])"; """
        "or take it out of evaluation.lm_eval_tasks"
    )


def _metrics(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    found = {}
    for task, numbers in results.items():
        for key, value in numbers.items():
            metric, comma, chosen_by = key.partition(",")
            if comma and isinstance(value, int | float | np.number):
                suffix = "" if chosen_by == "none" else f"/{chosen_by}"
                found[f"lm_eval/{task}/{metric}{suffix}"] = float(value)
    return found
