"""The MLflow record: a parent run an experiment, a child run a method.

In a database of the home, or where REAL_MLFLOW_URI says: a server (http) or a database.

MLflow's active run belongs to one thread, so that every call here names its run. MLflow takes
seconds to import, so that it is imported when it is first needed.
"""

import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import StorageError
from storage.locks import locked
from storage.paths import Home, sqlite_url
from storage.place import settle

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

Scalar = str | int | float | bool | None
MetricValues = float | Sequence[tuple[int, float]]
"""One value, or a curve: pairs of (step, value)."""

GIT_COMMIT_TAG = "mlflow.source.git.commit"
"""The tag in which MLflow shows a run's commit."""

EXPERIMENT = "real-steering"
"""The experiment of all runs."""

_KIND_TAG = "mlflow.experimentKind"
_KIND = "custom_model_development"
"""Without it MLflow's pages open an experiment on its (empty) page of traces."""

# MLflow takes 1,000 entries and 100 parameters in one call, and 6,000 characters in a parameter.
_METRICS_PER_CALL = 900
_PARAMS_PER_CALL = 100
_PARAM_LENGTH = 6000

_STATES = {"running": "RUNNING", "completed": "FINISHED", "failed": "FAILED", "crashed": "KILLED"}


class TrackingError(StorageError):
    """The MLflow record cannot be written as asked."""


class Tracker:
    """Writes to the MLflow record of one home; safe under threads and processes of a machine."""

    def __init__(self, home: Home) -> None:
        """Use the database and the artifact folder of ``home``; nothing is created yet."""
        self._home = home
        self._database = home.mlflow / "mlflow.db"

    def initialise(self) -> None:
        """Make the database and our experiment where there are none: seconds.

        Every other method does so too; with this one it is done before tasks write from several
        threads, in the background if wanted.

        Raises:
            mlflow.exceptions.MlflowException: the database is another version's; the message says
                how to upgrade it.
        """
        self._experiment_id(EXPERIMENT)

    def start_run(
        self,
        experiment: str,
        name: str,
        params: Mapping[str, Scalar],
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Start a run of an experiment, which is made where there is none, and return its id.

        Of ``params``, flat, a text longer than MLflow takes is cut, and becomes whole an artifact
        under ``params/``. The tag ``GIT_COMMIT_TAG`` names the commit of the code.
        """
        return self._create_run(self._experiment_id(experiment), name, params, tags or {})

    def child_run(
        self,
        parent: str,
        name: str,
        params: Mapping[str, Scalar],
        metrics: Mapping[str, MetricValues],
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Record a completed run under the run ``parent`` and return its id; see ``start_run``.

        Artifacts may be added to it afterwards.
        """
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        experiment_id = self._client.get_run(parent).info.experiment_id
        tags = {**(tags or {}), MLFLOW_PARENT_RUN_ID: parent}
        run_id = self._create_run(experiment_id, name, params, tags)
        self.log_metrics(run_id, metrics)
        self.finish(run_id, "completed")
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, MetricValues]) -> None:
        """Add metrics to a run: for each one value, or pairs of (step, value)."""
        entries = _metrics(metrics)
        while chunk := list(islice(entries, _METRICS_PER_CALL)):
            self._client.log_batch(run_id, metrics=chunk, synchronous=True)

    def log_artifacts(self, run_id: str, paths: Iterable[Path], folder: str | None = None) -> None:
        """Copy files, and folders with all that is in them, into a folder of a run's artifacts.

        Raises:
            TrackingError: a path is not there.
        """
        for path in paths:
            if not path.exists():
                raise TrackingError(f"{path} is to be recorded in MLflow, but it is not there")
            # A folder is copied as one by log_artifact too.
            self._client.log_artifact(run_id, str(path), artifact_path=folder)

    def page_of(self, run_id: str) -> str:
        """Return the address of a run's page, below the address of a server of this database."""
        experiment = self._client.get_run(run_id).info.experiment_id
        return f"/#/experiments/{experiment}/runs/{run_id}"

    def finish(self, run_id: str, status: str = "completed") -> None:
        """End a run: ``completed``, ``failed`` or ``crashed``.

        Raises:
            TrackingError: there is no such status.
        """
        if status not in _STATES:
            raise TrackingError(f"unknown status {status!r}; expected one of {', '.join(_STATES)}")
        self._client.set_terminated(run_id, _STATES[status])

    def end_crashed(self, run_ids: Collection[str]) -> None:
        """End, as killed, what runs began here and did not end, given the names of crashed ones."""
        from mlflow.entities import Run
        from mlflow.store.entities import PagedList

        experiment, token = self._experiment_id(EXPERIMENT), None
        while True:
            page: PagedList[Run] = self._client.search_runs(
                [experiment], "attributes.status = 'RUNNING'", page_token=token
            )
            for run in page:
                if run.data.tags.get("run_id") in run_ids:
                    self.finish(run.info.run_id, "crashed")
            if not (token := page.token):
                return

    @cached_property
    def _client(self) -> "MlflowClient":
        with locked(self._home.mlflow / ".lock"):
            if self._home.owns_mlflow and not self._database.exists():
                self._create_database()
            settle(self._home)
            return _mlflow_client(self._home.mlflow_uri)

    def _create_database(self) -> None:
        """Make the database elsewhere and move it: one that is killed half-way cannot be mended."""
        for left in self._home.mlflow.glob(".new-*"):  # by a run that was killed here
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=self._home.mlflow, prefix=".new-") as folder:
            made, copy = Path(folder) / "made.db", Path(folder) / "copy.db"
            self._make_tables(sqlite_url(made))
            with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            copy.replace(self._database)

    def _make_tables(self, uri: str) -> None:
        """Make MLflow's tables, and the experiment that it wants, with an address as its place.

        By default this is the current folder, whose name goes into a statement with all its signs.
        """
        _settle_mlflow()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        make: Any = SqlAlchemyStore  # which has no types
        make(uri, str(self._artifacts()))

    def _experiment_id(self, name: str) -> str:
        client = self._client  # first: making it takes the same lock
        with locked(self._home.mlflow / ".lock"):
            found = client.get_experiment_by_name(name)
            if found is None:
                made = client.create_experiment(name, self._artifacts(), {_KIND_TAG: _KIND})
                return str(made)
            if _KIND_TAG not in found.tags:
                client.set_experiment_tag(found.experiment_id, _KIND_TAG, _KIND)
            return str(found.experiment_id)

    def _artifacts(self) -> str | None:
        """Where artifacts of a new experiment go: into the home, or where the server puts them."""
        if self._home.mlflow_uri.startswith(("http://", "https://")):
            return None
        return (self._home.mlflow / "artifacts").as_uri()

    def _create_run(
        self, experiment_id: str, name: str, params: Mapping[str, Scalar], tags: Mapping[str, str]
    ) -> str:
        run = self._client.create_run(experiment_id, tags=dict(tags), run_name=name)
        run_id = str(run.info.run_id)
        texts = {key: str(value) for key, value in params.items()}
        entries = _params(texts)
        while chunk := list(islice(entries, _PARAMS_PER_CALL)):
            self._client.log_batch(run_id, params=chunk, synchronous=True)
        for key, text in texts.items():
            if len(text) > _PARAM_LENGTH:
                self._client.log_text(run_id, text, f"params/{key}.txt")
        return run_id


def _mlflow_client(uri: str) -> "MlflowClient":
    _settle_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _settle_mlflow() -> None:
    """Settle, before MLflow is imported, what it sends and says."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for noisy in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _metrics(metrics: Mapping[str, MetricValues]) -> "Iterator[Metric]":
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for name, values in metrics.items():
        points = [(0, values)] if isinstance(values, float | int) else values
        for step, value in points:
            yield Metric(name, float(value), now, step)


def _params(texts: Mapping[str, str]) -> "Iterator[Param]":
    from mlflow.entities import Param

    for key, text in texts.items():
        cut = f"{text[: _PARAM_LENGTH - 1]}…" if len(text) > _PARAM_LENGTH else text
        yield Param(key, cut)
