"""Log-probabilities read from a saved checkpoint, or from a server of one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
from transformers import AutoModelForCausalLM, PreTrainedModel

from real_tasks.export.parity import Parity, ParityCase, continuation_log_probs
from real_tasks.export.recognition import Comparison, Reading, compare
from real_tasks.models.checkpoints import check_checkpoint
from real_tasks.models.devices import resolve_device
from real_tasks.vocabulary.errors import UserInputError

KEY_VARIABLE = "OPENAI_API_KEY"
TIMEOUT_SECONDS = 120.0
ALTERNATIVES = 20
"""Likeliest next tokens asked for where a server does not score the prompt itself."""


def check_export(target: str, parity: Path | None = None) -> Comparison:
    """Say whether a saved or served model is steered as its parity file says.

    Args:
        target: a checkpoint folder, which plain transformers loads, or the URL of a server with
            OpenAI's completions (``http://host:port/v1``); the environment variable OPENAI_API_KEY
            is sent as the key where it is set.
        parity: the parity file, or the folder that it is in; for a folder, its own by default.

    Raises:
        UserInputError: neither a folder nor a URL; no parity file; a server that does not answer,
            or gives no log-probabilities.
    """
    if target.startswith(("http://", "https://")):
        if parity is None:
            raise UserInputError(
                f"to check {target}, say where the parity file is that `real export` wrote into "
                "the checkpoint (--parity FILE)"
            )
        expected = Parity.load(parity)
        return compare(expected, served_log_probs(target, expected))
    folder = Path(target)
    expected = Parity.load(folder if parity is None else parity)
    check_checkpoint(folder)
    device = str(resolve_device("auto"))
    return compare(expected, saved_log_probs(folder, expected, device))


def saved_log_probs(
    folder: Path, parity: Parity, device: str, device_map: str | None = None
) -> list[list[Reading]]:
    """Return the readings of a checkpoint, loaded by plain transformers in its own type.

    It is loaded to a device, or spread over several by ``device_map``.

    Raises:
        UserInputError: it cannot be loaded.
    """
    from_pretrained = cast(Any, AutoModelForCausalLM).from_pretrained
    try:
        model: PreTrainedModel = from_pretrained(
            folder, dtype="auto", device_map=device_map, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserInputError(f"the checkpoint {folder} cannot be read: {error}") from error
    if device_map is None:
        model = cast(Any, model).to(device)
    model.eval()
    return [
        [Reading(v) for v in continuation_log_probs(model, case.prompt_ids, case.continuation_ids)]
        for case in parity.cases
    ]


def served_log_probs(url: str, parity: Parity) -> list[list[Reading]]:
    """Return the readings of a server with OpenAI's completions, as vLLM or llama.cpp's.

    Prompts are sent as token ids. A server that can score a prompt (``echo``) is asked once a case;
    another one is asked for the likeliest next tokens, once a token.

    Raises:
        UserInputError: no server answers, or it gives no log-probabilities.
    """
    base = url.rstrip("/")
    if not urlsplit(base).path:
        base += "/v1"
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=base, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        server = _Server(client, base)
        return [server.readings(case) for case in parity.cases]


class _Server:
    """A server with OpenAI's completions."""

    def __init__(self, client: httpx.Client, base: str) -> None:
        self._client, self._base = client, base
        self._model = self._first_model()
        self._echoes = True

    def readings(self, case: ParityCase) -> list[Reading]:
        """Return a reading for every token of the case's continuation."""
        if self._echoes:
            scored = self._scored(case)
            if scored is not None:
                return scored
            self._echoes = False
        return [self._next_token(case, place) for place in range(len(case.continuation_ids))]

    def _first_model(self) -> str | None:
        """The model's name, which vLLM wants to hear; a server of a single one may have no list."""
        response = self._send("GET", "models")
        try:
            return str(response.json()["data"][0]["id"]) if response.is_success else None
        except (ValueError, LookupError, TypeError):
            return None

    def _scored(self, case: ParityCase) -> list[Reading] | None:
        """Read the log-probabilities of the prompt's own tokens; None if the server has none."""
        ids = [*case.prompt_ids, *case.continuation_ids]
        response = self._complete(ids, logprobs=1, echo=True)
        if response.is_client_error and response.status_code not in (401, 403, 404):
            return None
        values = self._log_probs(response).get("token_logprobs")
        if not values or len(values) < len(ids):
            return None
        scored = values[len(case.prompt_ids) : len(ids)]
        return None if None in scored else [Reading(float(value)) for value in scored]

    def _next_token(self, case: ParityCase, place: int) -> Reading:
        ids = [*case.prompt_ids, *case.continuation_ids[:place]]
        found = self._log_probs(self._complete(ids, logprobs=ALTERNATIVES))
        token_id, text = case.continuation_ids[place], case.tokens[place]
        if found.get("content"):  # llama.cpp's form
            listed = found["content"][0].get("top_logprobs") or []
            hits = [t["logprob"] for t in listed if t.get("id", token_id) == token_id]
            if listed and "id" not in listed[0]:
                hits = [t["logprob"] for t in listed if t["token"] == text]
            values = [t["logprob"] for t in listed]
        else:
            tops = (found.get("top_logprobs") or [{}])[0] or {}
            hits = [
                value for token, value in tops.items() if token in (text, f"token_id:{token_id}")
            ]
            values = list(tops.values())
        if not values:
            raise UserInputError(
                f"{self._base} gives no log-probabilities; start the server so that completions "
                "have them (logprobs)"
            )
        return Reading(float(hits[0])) if hits else Reading(float(min(values)), at_most=True)

    def _complete(self, ids: list[int], **options: Any) -> httpx.Response:
        # One new token: some servers refuse none.
        body = {"prompt": ids, "max_tokens": 1, "temperature": 0, **options}
        if self._model is not None:
            body["model"] = self._model
        return self._send("POST", "completions", json=body)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UserInputError(
                f"no server answers at {self._base}/{path} ({error}); start it, or correct the URL "
                "(as http://localhost:8000/v1)"
            ) from error

    def _log_probs(self, response: httpx.Response) -> Mapping[str, Any]:
        try:
            response.raise_for_status()
            found: Mapping[str, Any] = response.json()["choices"][0].get("logprobs") or {}
        except httpx.HTTPStatusError as error:
            raise UserInputError(
                f"{self._base}/completions answers {response.status_code}: {response.text[:300]}; "
                f"expected OpenAI's completions (a key goes into {KEY_VARIABLE})"
            ) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserInputError(
                f"{self._base}/completions does not answer as OpenAI's completions do: "
                f"{response.text[:300]}"
            ) from error
        return found
