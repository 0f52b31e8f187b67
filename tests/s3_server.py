"""An S3 server of this machine, moto's, with a bucket; it can be taken away for a while."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BUCKET = "shared-store"

# One request at a time: moto looks for an object and writes it in two steps. While it is away,
# whoever asks is hung up on. What lies below /careless/ is written over although it is asked not
# to; below /closed/ nothing may be written, below /forbidden/ nothing be asked.
_PROGRAM = """
import signal, socket, sys
from threading import Event, Lock
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

application, one = DomainDispatcherApplication(create_backend_app), Lock()
away, silent, back = Event(), Event(), Event()
signal.signal(signal.SIGUSR1, lambda *_: away.set())
signal.signal(signal.SIGHUP, lambda *_: (back.clear(), silent.set()))
signal.signal(signal.SIGUSR2, lambda *_: (away.clear(), silent.clear(), back.set()))

def refused(start_response, code):
    start_response("403 Forbidden", [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode()]

def in_turn(environ, start_response):
    if silent.is_set():
        back.wait()
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    if away.is_set():
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    path = environ["PATH_INFO"] + "?" + environ["QUERY_STRING"]
    if "/careless/" in path:
        environ.pop("HTTP_IF_NONE_MATCH", None)
    if "/forbidden/" in path:
        return refused(start_response, "SignatureDoesNotMatch")
    if "/closed/" in path and environ["REQUEST_METHOD"] != "GET":
        return refused(start_response, "AccessDenied")
    with one:
        return list(application(environ, start_response))

run_simple("127.0.0.1", int(sys.argv[1]), in_turn, threaded=True)
"""


@dataclass(frozen=True)
class S3Server:
    """A server, and the environment of who uses it."""

    process: "subprocess.Popen[bytes]"
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """The URL of the bucket."""
        return f"s3://{BUCKET}"

    @contextmanager
    def away(self) -> Iterator[None]:
        """Hang up on whoever asks while the context lasts; what was there is kept."""
        with self._signalled(signal.SIGUSR1):
            yield

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answer nobody while the context lasts, and hang up on who asked at its end."""
        with self._signalled(signal.SIGHUP):
            yield

    @contextmanager
    def _signalled(self, number: int) -> Iterator[None]:
        self.process.send_signal(number)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGUSR2)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server with a bucket while the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        _await(port)
        import boto3

        keys = ("aws_access_key_id", "aws_secret_access_key", "region_name", "endpoint_url")
        given = dict(zip(keys, environment.values(), strict=False))
        boto3.client("s3", **given).create_bucket(Bucket=BUCKET)
        yield S3Server(server, environment)
    finally:
        server.kill()
        server.wait()


def _await(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise TimeoutError("moto's server does not listen")
        time.sleep(0.05)
