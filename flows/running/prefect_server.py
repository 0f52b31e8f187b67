"""The Prefect server that the settings name: does it answer, is it one, does it take us?"""

import httpx
from prefect import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from real_tasks.vocabulary.errors import UserInputError
from storage.paths import without_password

_TIMEOUT_S = 10.0
_MEND = (
    "give it as http://HOST:PORT/api, start that server (`prefect server start`), or unset "
    "PREFECT_API_URL (`prefect config unset PREFECT_API_URL` where a profile sets it): a run then "
    "starts a server of its own, or joins that of `real up`"
)


def check_prefect_server() -> None:
    """Ask the server of PREFECT_API_URL for its version; without one there is nothing to check.

    Raises:
        UserInputError: the address is none, nothing answers there in time, or something else than
            a Prefect server, or it refuses us.
    """
    address = PREFECT_API_URL.value()
    if not address:
        return
    shown = f"PREFECT_API_URL is {without_password(address)!r}"
    try:
        answer = _version()
    except httpx.TimeoutException as error:
        raise _refused(f"{shown}, where nothing answers within {_TIMEOUT_S:.0f} s") from error
    except httpx.HTTPStatusError as error:
        raise _unwelcome(shown, error.response.status_code) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, ValueError) as error:
        raise _refused(f"{shown}, which is no address ({error})") from error
    except httpx.HTTPError as error:
        hint = "; does it speak http, not https?" if "SSL" in str(error) else ""
        raise _refused(f"{shown}, where no server answers ({error}{hint})") from error
    if not _is_version(answer):
        raise _refused(f"{shown}, where something else than Prefect's API answers")


def _version() -> httpx.Response:
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client({"timeout": _TIMEOUT_S}, sync_client=True) as client,
    ):
        return client.request("GET", "/admin/version")


def _is_version(answer: httpx.Response) -> bool:
    try:
        found = answer.json()
    except ValueError:
        return False
    return isinstance(found, str) and found[:1].isdigit()


def _unwelcome(shown: str, status: int) -> UserInputError:
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return UserInputError(
            f"{shown}, and the server there refuses us ({status}): set PREFECT_API_AUTH_STRING to "
            "its user:password (or PREFECT_API_KEY to a key of Prefect Cloud)"
        )
    return _refused(f"{shown}, where the answer ({status}) is not that of Prefect's API")


def _refused(what: str) -> UserInputError:
    return UserInputError(f"{what}: {_MEND}")
