"""What stands before the application: the key, and the metrics of requests."""

import hmac
import json
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from real_tasks.serving.engine import Engine, Step
from real_tasks.serving.http.errors import body

OPEN = ("/health",)
"""Paths that need no key."""


class Metrics:
    """What ``/metrics`` tells, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        labels = ("path", "status")
        self.requests = Counter("real_requests", "Requests answered", labels, registry=own)
        self.read = Counter("real_prompt_tokens", "Tokens of prompts", registry=own)
        self.written = Counter("real_generated_tokens", "New tokens", registry=own)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self.rows = Histogram("real_batch_rows", "Texts in a pass", buckets=sizes, registry=own)
        self.seconds = Histogram("real_pass_seconds", "Seconds of a pass", registry=own)
        self.waiting = Gauge("real_waiting", "Texts that wait", registry=own)
        self.running = Gauge("real_running", "Texts under way", registry=own)

    def watch(self, engine: Engine) -> None:
        """Tell of an engine's queue and batch."""
        self.waiting.set_function(lambda: engine.n_waiting)
        self.running.set_function(lambda: engine.n_rows)

    def step(self, step: Step) -> None:
        """Take note of a pass."""
        self.read.inc(step.prompt_tokens)
        self.written.inc(step.rows)
        self.rows.observe(step.rows)
        self.seconds.observe(step.seconds)


class Guard:
    """An ASGI application before another: asks for the key, and counts what is answered."""

    def __init__(self, app: Any, metrics: Metrics, key: str | None) -> None:
        self._app, self._metrics = app, metrics
        self._key = None if key is None else f"bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                # The route is known only behind the application; unknown paths are one.
                path = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        if self._key is None or scope["path"] in OPEN or self._has_key(scope):
            await self._app(scope, receive, counted)
        else:
            await _refuse(counted)

    def _has_key(self, scope: Any) -> bool:
        assert self._key is not None
        given = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, key = given.partition(b" ")
        return hmac.compare_digest(kind.lower() + b" " + key.strip(), self._key)


async def _refuse(send: Any) -> None:
    message = "no key, or a wrong one; send Authorization: Bearer KEY"
    content = json.dumps(body(message, "invalid_request_error", "invalid_api_key")).encode()
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": content})
