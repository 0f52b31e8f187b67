"""The task factory: the one place that says when a result may be used again.

A stage's key hashes its kind, the code that it runs, and its inputs, artifacts by the digest of
their content. `execution` says where it runs and is no part of the key.
"""

import importlib
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.results import ResultRecord  # type: ignore[attr-defined]

from real_tasks.tasks.cache.code_version import code_version
from real_tasks.tasks.cache.stopping import stoppable
from real_tasks.tasks.cache.timings import SECONDS, origin
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError
from storage.artifacts.store import CACHE_RECORD, ArtifactRef, ArtifactStore, sha256_of
from storage.errors import StorageError
from storage.paths import Home
from storage.room import room_error
from storage.whole_files import discard

UNKEYED = "execution"
Inputs = Mapping[str, Any]


@lru_cache
def _store_of(home: Home) -> ArtifactStore:
    return ArtifactStore(home)


def store() -> ArtifactStore:
    """Return the artifact store of the current home."""
    return _store_of(Home.current())


class Stage:
    """A cached Prefect task that fills an artifact.

    The wrapped function takes ``out``, an empty folder, and its inputs by name; it returns facts
    for the manifest. Calling or submitting the stage gives the artifact's reference.
    """

    def __init__(
        self,
        kind: str,
        function: Callable[..., dict[str, Any]],
        plugin_modules: Callable[[Inputs], list[str]],
    ) -> None:
        """Wrap ``function``; ``plugin_modules`` names the modules that its inputs choose."""
        self.kind = kind
        self._function = function
        self._plugin_modules = plugin_modules
        named = inspect.signature(function).parameters.values()
        # Prefect fills them in where it runs the task, so that every key must have them.
        self._defaults = {p.name: p.default for p in named if p.default is not p.empty}
        self.without_prefect = self._body()
        """The same work, the artifact store's cache included, outside of any orchestrator."""
        self._task: Task[..., ArtifactRef] = Task(
            fn=self.without_prefect,
            name=kind,
            description=inspect.getdoc(function),
            cache_policy=_ArtifactPolicy(stage=self),
            persist_result=True,
            result_serializer="json",
            retry_condition_fn=_worth_retrying,
            retry_delay_seconds=1,
        )

    def key(self, inputs: Inputs) -> str:
        """Return the content hash of everything that the result depends on."""
        return sha256_of(
            {
                "kind": self.kind,
                "code": code_version(self._function.__module__, *self._plugin_modules(inputs)),
                "inputs": {
                    name: getattr(value, "identity", value)
                    for name, value in {**self._defaults, **inputs}.items()
                    if name != UNKEYED
                },
            }
        )

    def made(self, inputs: Inputs) -> bool:
        """Say whether the result is there already; its checksums are not looked at."""
        return store().find(self.kind, self.key(inputs)) is not None

    def submit(self, name: str, **inputs: Any) -> PrefectFuture[ArtifactRef]:
        """Submit the stage to the flow's task runner, as a task run called ``name``."""
        future: PrefectFuture[ArtifactRef] = self._configured(name, inputs).submit(**inputs)
        return future

    def __call__(self, **inputs: Any) -> ArtifactRef:
        """Run the stage here and return its artifact."""
        ref: ArtifactRef = self._configured(self.kind, inputs)(**inputs)
        return ref

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker in another process imports the stage: what it closes over does not travel.
        return _imported, (self._function.__module__, self._function.__qualname__)

    def _configured(self, name: str, inputs: Inputs) -> Task[..., ArtifactRef]:
        execution = inputs.get(UNKEYED) or ExecutionConfig()
        return self._task.with_options(
            task_run_name=name, retries=execution.retries, result_storage=Home.current().artifacts
        )

    def _body(self) -> Callable[..., ArtifactRef]:
        def body(**inputs: Any) -> ArtifactRef:
            key = self.key(inputs)  # a key that fails in the cache policy would only be logged
            recorded = {name: _readable(value) for name, value in inputs.items()}

            def write(folder: Path) -> dict[str, Any]:
                start = time.perf_counter()
                facts = self._function(folder, **inputs)
                seconds = round(time.perf_counter() - start, 3)
                return {SECONDS: seconds, **origin(), **facts}

            with stoppable():
                return store().make(self.kind, key, write, recorded)

        parameters = list(inspect.signature(self._function).parameters.values())[1:]
        body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        body.__name__ = self._function.__name__
        body.__doc__ = self._function.__doc__
        return body


def stage(
    kind: str, plugin_modules: Callable[[Inputs], list[str]] = lambda _: []
) -> Callable[[Callable[..., dict[str, Any]]], Stage]:
    """Make a function that fills a folder a cached task; see `Stage`."""
    return lambda function: Stage(kind, function, plugin_modules)


def _imported(module: str, name: str) -> Stage:
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Stage), f"{module}.{name} is no stage"
    return found


@dataclass
class _ArtifactPolicy(CachePolicy):
    """Keys the cache record into the artifact's own folder."""

    stage: Stage | None = None

    def compute_key(
        self,
        task_ctx: TaskRunContext,  # noqa: ARG002
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> str | None:
        assert self.stage is not None
        key = self.stage.key(inputs)
        ref = store().heal(self.stage.kind, key)
        if ref is not None:
            _drop_unless_of(ref, store().folder(ref.kind, ref.key) / CACHE_RECORD)
        return f"{self.stage.kind}/{key}/{CACHE_RECORD}"


def _drop_unless_of(ref: ArtifactRef, record: Path) -> None:
    """Remove a cache record that does not lead to the artifact in whose folder it lies."""
    try:
        sound: bool = ResultRecord.deserialize(record.read_bytes()).result == ref
    except FileNotFoundError:
        return
    except Exception:  # whatever damage makes of it: without one, the artifact itself is found
        sound = False
    if not sound:
        discard(record)


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Wrong input stays wrong; no disk empties itself; a lost device may have recovered."""
    try:
        state.result()
    except (UserInputError, StorageError, AssertionError, TypeError):
        return False
    except Exception as error:
        return room_error(Home.current(), error) is None
    return False


def _readable(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    return value
