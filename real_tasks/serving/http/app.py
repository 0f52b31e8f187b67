"""The application: OpenAI's addresses, health and metrics."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from real_tasks.serving.catalogue import Catalogue, UnknownNameError
from real_tasks.serving.engine import Engine
from real_tasks.serving.generations import Generation, Piece
from real_tasks.serving.http.asked import ChatAsked, CompletionAsked
from real_tasks.serving.http.errors import handle_errors, told
from real_tasks.serving.http.guard import Guard, Metrics
from real_tasks.serving.http.replies import ChatReply, Choice, Reply
from real_tasks.serving.http.requests import Wanted, chat_wanted, completion_wanted

CLIENT_GONE = 499
"""Status of a request whose client has gone, in the metrics; nobody is told."""


def served(engine: Engine, catalogue: Catalogue, metrics: Metrics, key: str | None = None) -> Guard:
    """Return the application that serves a running engine and a catalogue of its model.

    The engine's passes are told to ``metrics``. Clients must send the key, if there is one.
    """
    app = FastAPI(title="real serve", docs_url=None, redoc_url=None, lifespan=_threads_ready)
    handle_errors(app)
    metrics.watch(engine)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def tell_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(catalogue, one) for one in catalogue.models]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name not in catalogue.models:
            raise UnknownNameError("model", name, tuple(catalogue.models))
        return _model(catalogue, name)

    @app.post("/v1/completions")
    async def completions(asked: CompletionAsked, request: Request) -> Response:
        wanted = await run_in_threadpool(completion_wanted, engine, catalogue, asked)
        n_prompt = sum(map(len, wanted.prompts))
        reply = Reply(asked.model, n_prompt, asked.logprobs is not None)
        return await _answer(engine, wanted, reply, asked, request)

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatAsked, request: Request) -> Response:
        wanted = await run_in_threadpool(chat_wanted, engine, catalogue, asked)
        reply = ChatReply(asked.model, len(wanted.prompts[0]), bool(asked.logprobs))
        return await _answer(engine, wanted, reply, asked, request)

    return Guard(app, metrics, key)


@asynccontextmanager
async def _threads_ready(_app: FastAPI) -> AsyncIterator[None]:
    """Use a thread once: what that imports cannot be imported when all files are taken."""
    await run_in_threadpool(time.monotonic)
    yield


def _model(catalogue: Catalogue, name: str) -> dict[str, Any]:
    facts = {"id": name, "object": "model", "created": 0, "owned_by": "real-steering"}
    spec_name = catalogue.models[name]
    if spec_name is None:
        return facts
    named = catalogue.specs[spec_name]
    steering = {
        "spec": spec_name,
        "folder": str(named.folder),
        "alpha": named.spec.alpha,
        "what": named.spec.explain(),
        "changed_on_disk": named.changed_on_disk,
    }
    return facts | {"steering": steering}


async def _answer(
    engine: Engine,
    wanted: Wanted,
    reply: Reply,
    asked: CompletionAsked | ChatAsked,
    request: Request,
) -> Response:
    pieces, generations = _begun(engine, wanted)
    if asked.stream:
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return _Events(_chunks(pieces, reply, wanted.n_texts, usage), generations)
    gone = asyncio.ensure_future(_gone(request))
    work = asyncio.ensure_future(_gathered(pieces, wanted.n_texts))
    try:
        await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        done = work.done()
    finally:
        gone.cancel()
        work.cancel()
        _cancel(generations)
    return JSONResponse(reply.whole(work.result())) if done else Response(status_code=CLIENT_GONE)


class _Events(StreamingResponse):
    """Server-sent events; however they end, before the first one included, their texts do too."""

    def __init__(self, chunks: AsyncIterator[str], generations: Sequence[Generation]) -> None:
        super().__init__(chunks, media_type="text/event-stream")
        self._generations = generations

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _cancel(self._generations)


def _cancel(generations: Sequence[Generation]) -> None:
    for generation in generations:
        generation.cancel()


def _begun(
    engine: Engine, wanted: Wanted
) -> tuple[AsyncIterator[tuple[int, Piece]], Sequence[Generation]]:
    """Submit the texts; return their pieces, and what cancels them when nobody listens."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Piece]]()

    def emit(index: int, piece: Piece) -> None:
        with suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(arrived.put_nowait, (index, piece))

    generations = wanted.generations(emit)
    engine.submit(generations)

    async def pieces() -> AsyncIterator[tuple[int, Piece]]:
        n_open = len(generations)
        while n_open:
            index, piece = await arrived.get()
            n_open -= piece.is_last
            yield index, piece

    return pieces(), generations


async def _gathered(pieces: AsyncIterator[tuple[int, Piece]], n_texts: int) -> list[Choice]:
    choices = [Choice() for _ in range(n_texts)]
    async for index, piece in pieces:
        if piece.error is not None:
            raise piece.error
        choices[index].take(piece)
    return choices


async def _gone(request: Request) -> None:
    """Wait until the client has gone; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chunks(
    pieces: AsyncIterator[tuple[int, Piece]], reply: Reply, n_texts: int, with_usage: bool
) -> AsyncIterator[str]:
    """Yield server-sent events: openings, pieces, the usage, an end."""
    choices = [Choice() for _ in range(n_texts)]
    for index in range(n_texts):
        opening = reply.opening(index)
        if opening is not None:
            yield _event(opening)
    async for index, piece in pieces:
        if piece.error is not None:
            yield _event(told(piece.error)[1])
            return
        choices[index].take(piece)
        yield _event(reply.chunk(index, piece))
    if with_usage:
        yield _event(reply.closing(choices))
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
