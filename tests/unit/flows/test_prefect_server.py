"""A Prefect server that is dead, no server, or refuses us is said before any work, in words."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    temporary_settings,
)

from flows.running import prefect_server
from flows.running.prefect_server import check_prefect_server
from real_tasks.vocabulary.errors import UserInputError

Answer = Callable[[str, str | None], tuple[int, str]]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve, and give the address; the answer is a status and a body, by path and password."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def prefect(path: str, password: str | None) -> tuple[int, str]:
    return (200, json.dumps("3.8.8")) if path == "/api/admin/version" else (404, "{}")


def refusal(url: str) -> str:
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(UserInputError) as caught:
        check_prefect_server()
    return str(caught.value)


def test_a_server_that_answers_is_taken_and_without_one_nothing_is_asked() -> None:
    with serving(prefect) as host, temporary_settings({PREFECT_API_URL: f"http://{host}/api"}):
        check_prefect_server()
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        check_prefect_server()


@pytest.mark.parametrize(
    "url",
    [
        "garbage",
        "http://",
        "ftp://x/api",
        "http://localhost:99999/api",
        " ",
        "ü",
    ],
)
def test_what_is_no_address_is_refused_with_the_form_of_one(url: str) -> None:
    assert "http://HOST:PORT/api" in refusal(url)


def test_a_dead_server_is_named_without_its_password() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        said = refusal(f"http://me:secret@127.0.0.1:{bound.getsockname()[1]}/api")
    assert "no server answers" in said and "unset PREFECT_API_URL" in said and "secret" not in said


@pytest.mark.parametrize(
    "answer",
    [
        lambda *_: (200, "<html>"),
        lambda *_: (200, "{}"),
        lambda *_: (404, "not here"),
        lambda *_: (500, "broken"),
        lambda *_: (503, "busy"),
        lambda *_: (302, ""),
    ],
)
def test_another_server_than_prefects_api_is_refused(answer: Answer) -> None:
    with serving(answer) as host:
        assert "Prefect's API" in refusal(f"http://{host}/api")


def test_the_servers_pages_are_not_its_api() -> None:
    with serving(prefect) as host:
        assert "http://HOST:PORT/api" in refusal(f"http://{host}")


def test_a_password_that_is_refused_is_asked_for_and_the_right_one_taken() -> None:
    def guarded(path: str, password: str | None) -> tuple[int, str]:
        right = password == "Basic bWU6c2VjcmV0"
        return prefect(path, password) if right else (401, "{}")

    with serving(guarded) as host:
        url = f"http://{host}/api"
        assert "PREFECT_API_AUTH_STRING" in refusal(url)
        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: "me:secret"}):
            check_prefect_server()


def test_https_at_a_server_of_http_gets_a_hint() -> None:
    with serving(prefect) as host:
        assert "speak http, not https" in refusal(f"https://{host}/api")


def test_a_server_that_is_silent_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefect_server, "_TIMEOUT_S", 0.2)
    gone = threading.Event()
    with serving(lambda *_: (200, "late") if gone.wait(20) else (500, "")) as host:
        try:
            start = time.monotonic()
            assert "nothing answers within" in refusal(f"http://{host}/api")
            assert time.monotonic() - start < 20, "the request had no end of its own"
        finally:
            gone.set()


@pytest.mark.parametrize(
    ("name", "value"), [("PREFECT_API_URL", "http://[::1/api"), ("PREFECT_LOGGING_LEVEL", "loud")]
)
def test_a_setting_that_prefect_does_not_read_is_no_traceback(
    tmp_path: Path, name: str, value: str
) -> None:
    command = [sys.executable, "-m", "flows.cli", "clean", "--home", str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {name: value}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Prefect's settings are wrong" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
