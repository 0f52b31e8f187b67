"""The one authority for paths: everything that a run makes lives under one home."""

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

HOME_VARIABLE = "REAL_HOME"
STORE_VARIABLE = "REAL_STORE"
# Not MLFLOW_TRACKING_URI: MLflow sets that one itself, to whatever was used last.
MLFLOW_VARIABLE = "REAL_MLFLOW_URI"
DEFAULT_HOME = ".real"


@dataclass(frozen=True)
class Home:
    """The folder of artifacts, tables, runs and databases; deleting it resets everything.

    Attributes:
        root: the folder, of this machine.
        store: URL of the store behind it that machines share, None for a home alone.
    """

    root: Path
    store: str | None = None

    @classmethod
    def current(cls) -> "Home":
        """Return the home named by the environment variable REAL_HOME, or ``./.real``.

        Its store is the one that REAL_STORE names: ``s3://bucket/prefix``, or a shared folder.
        """
        root = Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).absolute()
        return cls(root, full_url(os.environ.get(STORE_VARIABLE)))

    @property
    def artifacts(self) -> Path:
        """Content-addressed results of stages: ``artifacts/<kind>/<key>/``."""
        return self.root / "artifacts"

    @property
    def tables(self) -> Path:
        """Parquet files behind the SQL views: ``tables/<view>/<run_id>.parquet``."""
        return self.root / "tables"

    @property
    def runs(self) -> Path:
        """What people look at, a folder a run: report, figures, steering specs."""
        return self.root / "runs"

    @property
    def verdicts(self) -> Path:
        """What judges said of generated answers: ``verdicts/<2 characters>/<key>.json``."""
        return self.root / "verdicts"

    @property
    def models(self) -> Path:
        """Models that were fetched by name, and what GGUF files say of themselves."""
        return self.root / "models"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts."""
        return self.root / "mlflow"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking URI: that in REAL_MLFLOW_URI, a server or database; else the home's."""
        return os.environ.get(MLFLOW_VARIABLE) or self._mlflow_database

    @property
    def mlflow_place(self) -> str:
        """Where MLflow's record is, to be shown to people: a path, or an address, no password."""
        if self.owns_mlflow:
            return str(self.mlflow / "mlflow.db")
        return without_password(self.mlflow_uri.removeprefix("sqlite:///"))

    @property
    def owns_mlflow(self) -> bool:
        """Whether MLflow's database is the home's own."""
        return self.mlflow_uri == self._mlflow_database

    @property
    def _mlflow_database(self) -> str:
        return sqlite_url(self.mlflow / "mlflow.db")

    @property
    def prefect(self) -> Path:
        """Prefect's own state (database, profiles)."""
        return self.root / "prefect"

    @property
    def logs(self) -> Path:
        """What servers and workers write while they run: ``logs/<name>.log``."""
        return self.root / "logs"

    @property
    def shared(self) -> Path:
        """What the home knows of its store: ``shared/<hash of the store's URL>/``."""
        assert self.store is not None, "only a home with a store shares anything"
        return self.root / "shared" / hashlib.sha256(self.store.encode()).hexdigest()[:16]


def sqlite_url(path: Path, driver: str = "pysqlite") -> str:
    """Return the URL of an SQLite file, for SQLAlchemy and those that cut such URLs by hand."""
    if not set(str(path)) & set("?#%"):
        return f"sqlite:///{path}" if driver == "pysqlite" else f"sqlite+{driver}:///{path}"
    from sqlalchemy import URL  # most homes have none of these characters, and help waits for it

    # With the driver's name: MLflow takes all that follows a plain sqlite:/// for a path to make.
    query = {"uri": "true"}
    return URL.create(
        f"sqlite+{driver}", database=f"file:{quote(str(path))}", query=query
    ).render_as_string()


_LONGEST, _DEEPEST = 3500, 500
"""Bytes and parts of a folder's path: the system allows 4,096, and what lies in it has names too;
folders are made by as many nested calls as there are parts."""


def check_folder(path: Path) -> None:
    """Check that a folder is, or may come to be, at a full path.

    Raises:
        OSError: something else is there, or nothing may be.
        ValueError: the path has a NUL, or bytes that are no UTF-8.
    """
    os.fsencode(path).decode()
    if len(os.fsencode(path)) > _LONGEST or len(path.parts) > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder")
    except FileNotFoundError:
        return


def full_url(store: str | None) -> str | None:
    """Return a store's URL without a slash at its end, a folder's with its full path."""
    if not store:
        return None
    plain = store if "://" in store else str(Path(store).absolute())
    return plain.rstrip("/")


def without_password(address: str) -> str:
    """Return an address as it may be shown."""
    scheme, separator, rest = address.partition("://")
    login, at, place = rest.rpartition("@")
    user = login.partition(":")[0]
    return f"{scheme}{separator}{user}{at}{place}"
