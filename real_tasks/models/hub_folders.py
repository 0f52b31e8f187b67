"""Folders of a few files on the Hugging Face Hub that are no checkpoints: steering specs."""

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

from real_tasks.vocabulary.errors import UserInputError

_LOGIN = "log in with `hf auth login` or put a token into HF_TOKEN"


def fetched_folder(repo: str, revision: str | None, files: Sequence[str]) -> Path:
    """Return a folder with some files of a repository, from the Hub's cache or downloaded into it.

    Args:
        repo: ``org/name``.
        revision: branch, tag or commit; the main branch without.
        files: names or patterns.

    Raises:
        UserInputError: no such repository or revision, or the Hub is out of reach.
    """
    with _in_words(repo, revision):
        found = snapshot_download(repo, revision=revision, allow_patterns=list(files))
    return Path(found)


def pushed(folder: Path, repo: str, *, private: bool = False, message: str = "") -> str:
    """Upload a folder into a repository, made if need be; return the address of the commit.

    Raises:
        UserInputError: no folder, no token, a repository of others, or the Hub is out of reach.
    """
    if not folder.is_dir():
        raise UserInputError(f"{str(folder)!r} is no folder; name what `real export` wrote")
    with _in_words(repo, None):
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message or f"Add {folder.name}"
        )
    return str(commit.commit_url)


@contextmanager
def _in_words(repo: str, revision: str | None) -> Iterator[None]:
    """Make of the Hub's failures errors that say what to do."""
    try:
        yield
    except HFValidationError as error:
        raise UserInputError(
            f"{repo!r} is neither a folder nor a repository of the Hub (org/name)"
        ) from error
    except GatedRepoError as error:
        raise UserInputError(
            f"{repo} is gated: accept its terms at {constants.ENDPOINT}/{repo}, and {_LOGIN}"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserInputError(
            f"the Hub has no {repo!r}, or only for its members: correct the name, or {_LOGIN}"
        ) from error
    except RevisionNotFoundError as error:
        raise UserInputError(f"{repo} has no revision {revision!r}; correct it") from error
    except LocalTokenNotFoundError as error:
        raise UserInputError(f"writing to the Hub asks for a token: {_LOGIN}") from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserInputError(
                f"the Hub does not let you write {repo} ({status}): {_LOGIN}; the token has to "
                "have write access"
            ) from error
        offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        raise UserInputError(
            f"the Hub cannot be reached for {repo}{offline}, and the cache "
            f"{constants.HF_HUB_CACHE} does not have it; try again where there is a network "
            f"({type(error).__name__}: {error})"
        ) from error
