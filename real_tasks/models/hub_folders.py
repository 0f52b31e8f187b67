"""Folders to and from the Hugging Face Hub, and what to do where it refuses or is not reached."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError

_LOGIN = "log in with `hf auth login` or put a token into HF_TOKEN"


class OutOfReachError(UserInputError):
    """Not in the cache, and the Hub does not answer."""


def fetched_folder(repo: str, revision: str | None, files: Sequence[str], nor: str = "") -> Path:
    """Return a folder with some files of a repository, from the Hub's cache or downloaded into it.

    Args:
        repo: ``org/name``.
        revision: branch, tag or commit; the main branch without.
        files: names or patterns of files beside each other; those in folders are not looked at.
        nor: what else the name is not, after "it is no folder here".

    Raises:
        OutOfReachError: it is not in the cache, and the Hub is out of reach.
        UserInputError: no such repository or revision, or one that may not be read.
    """
    with _in_words(repo, revision, f"; it is no folder here{nor}"):
        found = snapshot_download(
            repo, revision=revision, allow_patterns=list(files), ignore_patterns="*/*"
        )
    return Path(found)


def pushed(folder: Path, repo: str, *, private: bool = False, message: str = "") -> str:
    """Upload a folder into a repository, made if need be; return the address of the commit.

    Raises:
        UserInputError: no token, a repository of others, or the Hub is out of reach.
    """
    with _in_words(repo, None):
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message or f"Add {folder.name}"
        )
    return str(commit.commit_url)


def public_name(path: str) -> str:
    """Return a model's Hub id, or its name: paths of a machine tell nobody else anything."""
    is_hub_id = path.count("/") == 1 and path[0] not in "./~" and not Path(path).exists()
    return path if is_hub_id else ModelConfig(path=path).name


def named(repo: str, revision: str | None) -> str:
    """Return a repository's name with its revision, if one was said."""
    return f"{repo} at revision {revision}" if revision else repo


def download_command(repo: str, revision: str | None) -> str:
    """Return the shell command that fetches a repository."""
    return f"`hf download {repo}{f' --revision {revision}' if revision else ''}`"


@contextmanager
def _in_words(repo: str, revision: str | None, nor: str = "") -> Iterator[None]:
    """Make of the Hub's failures errors that say what to do; ``nor`` where something is read."""
    try:
        yield
    except HFValidationError as error:
        raise UserInputError(
            f"{repo!r} is no name of a repository of the Hub (org/name){nor}"
        ) from error
    except GatedRepoError as error:
        raise UserInputError(
            f"{repo} is gated: accept its terms at {constants.ENDPOINT}/{repo}, and {_LOGIN}"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserInputError(
            f"the Hub has no {repo!r}, or only for its members{nor}. Correct the name, or {_LOGIN}"
        ) from error
    except RevisionNotFoundError as error:
        raise UserInputError(
            f"{repo} has no revision {revision!r}; correct it (a branch, tag or commit)"
        ) from error
    except LocalTokenNotFoundError as error:
        raise UserInputError(f"writing to the Hub asks for a token: {_LOGIN}") from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        # What was answered is behind the error on what is not in the cache.
        answers = [getattr(one, "response", None) for one in (error, error.__cause__)]
        status = next((one.status_code for one in answers if one is not None), None)
        if status in (401, 403):
            raise UserInputError(
                f"the Hub does not let you {'read' if nor else 'write'} {repo} ({status}): "
                f"{_LOGIN}" + ("" if nor else "; the token has to have write access")
            ) from error
        offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        reason = f"({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        if not nor:
            raise OutOfReachError(
                f"the Hub cannot be reached{offline}, so that {repo} was not written, or not whole;"
                f" try again where there is a network. {reason}"
            ) from error
        raise OutOfReachError(
            f"{named(repo, revision)} is not, or not whole, in the cache {constants.HF_HUB_CACHE}, "
            f"and the Hub cannot be reached{offline}{nor}. Where there is a network: "
            f"{download_command(repo, revision)} (HF_HOME moves the cache), or give the path of a "
            f"folder that holds it. {reason}"
        ) from error
