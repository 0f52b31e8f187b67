"""Errors in OpenAI's form, so that its clients understand them."""

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from real_tasks.serving.catalogue import UnknownNameError
from real_tasks.serving.engine import PositionsError, QueueFullError
from real_tasks.vocabulary.errors import UserInputError, WorkFailedError, without_long_words

_OF_TYPES = re.compile(r"constrained-.*|str|int|list\[.*")
"""What pydantic puts into a path for the kinds that a value may be of."""

log = logging.getLogger(__name__)


def body(message: str, kind: str, code: str | None = None, param: str | None = None) -> Any:
    """Return OpenAI's form of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def told(error: Exception) -> tuple[int, Any]:
    """Return the status and the body for what went wrong."""
    wrong = "invalid_request_error"
    if isinstance(error, UnknownNameError):
        param = "model" if error.kind == "model" else "steering"
        return 404, body(str(error), wrong, f"{error.kind}_not_found", param)
    if isinstance(error, PositionsError):
        return 400, body(str(error), wrong, "context_length_exceeded")
    if isinstance(error, UserInputError):
        return 400, body(str(error), wrong)
    if isinstance(error, QueueFullError):
        return 429, body(str(error), "rate_limit_error", "queue_full")
    if isinstance(error, RequestValidationError):
        return 400, _invalid(error)
    if isinstance(error, HTTPException):
        return error.status_code, body(str(error.detail), wrong)
    if isinstance(error, WorkFailedError):
        return 503, body(str(error), "server_error")
    log.error("a request failed", exc_info=error)
    return 500, body(
        f"the server failed ({type(error).__name__}); its log says more", "server_error"
    )


def handle_errors(app: FastAPI) -> None:
    """Have an application answer every error in this form."""

    async def answer(_request: Request, error: Exception) -> JSONResponse:
        status, content = told(error)
        headers = {"Retry-After": "1"} if status == 429 else None
        return JSONResponse(content, status, headers)

    kinds = (UserInputError, QueueFullError, WorkFailedError, RequestValidationError)
    for kind in (*kinds, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _invalid(error: RequestValidationError) -> Any:
    # Of a value that may be of several kinds, the deepest error is of the kind that was meant.
    first = max(error.errors(), key=lambda one: len(one["loc"]))
    path = [str(part) for part in first["loc"] if part != "body"]
    param = without_long_words(".".join(part for part in path if not _OF_TYPES.fullmatch(part)))
    said = _SAID.get(first["type"], first["msg"])
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return body(f"{param or 'the request'}: {said}{more}", "invalid_request_error", None, param)


_SAID = {
    "extra_forbidden": "it is not known here",
    "model_attributes_type": "expected a JSON object, sent with Content-Type: application/json",
}
