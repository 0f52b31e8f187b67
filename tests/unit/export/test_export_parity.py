"""The parity file, and checking saved and served models with it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from real_tasks.export.bake import bake
from real_tasks.export.lofit import save_heads
from real_tasks.export.parity import PARITY_FILE, Parity, ParityCase, make_parity
from real_tasks.export.parity_prompts import parity_prompts
from real_tasks.export.recognition import Reading, compare
from real_tasks.export.served import check_export
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import random_data, tiny_family, tiny_tokenizer

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return prepare(tiny_family("qwen2", use_sliding_window=False), tiny_tokenizer())


@pytest.fixture(scope="module")
def intervention() -> Intervention:
    generator = torch.Generator().manual_seed(0)
    vectors = {layer: torch.randn(32, generator=generator) for layer in (0, 2)}
    return Intervention.adding(vectors, "all", "head")


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, loaded: LoadedModel, intervention: Intervention
) -> tuple[Path, Path, Parity]:
    """The baked checkpoint with its parity file, the original one, and the parity file."""
    root = tmp_path_factory.mktemp("exported")
    plain, baked = root / "plain", root / "baked"
    loaded.model.save_pretrained(plain)
    tiny_tokenizer().save_pretrained(plain)
    baked.mkdir()
    bake(loaded, intervention, plain, baked)
    prompts = parity_prompts(loaded, random_data(), range(6))
    parity = make_parity(loaded, intervention, prompts)
    parity.save(baked)
    return plain, baked, parity


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server on this machine whose completions are what ``answer`` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": "tiny"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/completions" and body["model"] == "tiny"
            self._send(*answer(body))

        def _send(self, status: int, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@torch.no_grad()
def log_probs(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    return torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)


def like_vllm(model: PreTrainedModel) -> Answer:
    """Scores the prompt itself; one entry more for the token that it generates."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        assert body["echo"] and body["max_tokens"] == 1
        ids, scores = body["prompt"], log_probs(model, body["prompt"])
        values = [None, *(float(scores[i, t]) for i, t in enumerate(ids[1:])), -0.5]
        return 200, {"choices": [{"logprobs": {"token_logprobs": values}}]}

    return answer


def like_llama_cpp(model: PreTrainedModel) -> Answer:
    """Refuses ``echo``; lists the likeliest next tokens with their ids."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if body.get("echo"):
            return 400, {"error": {"message": "no echo"}}
        values, ids = log_probs(model, body["prompt"])[-1].topk(body["logprobs"])
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        top = [{"id": token, "token": "?", "logprob": value} for value, token in pairs]
        return 200, {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]}

    return answer


def with_token_texts(model: PreTrainedModel) -> Answer:
    """Ignores ``echo``; lists the likeliest next tokens by their texts."""
    tokenizer = tiny_tokenizer()

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        values, ids = log_probs(model, body["prompt"])[-1].topk(5)
        top = {tokenizer.decode([int(i)]): float(v) for v, i in zip(values, ids, strict=True)}
        found = {"token_logprobs": [max(top.values())], "top_logprobs": [top]}
        return 200, {"choices": [{"logprobs": found}]}

    return answer


def test_expected_log_probabilities_are_those_of_the_hooked_and_the_plain_model(
    loaded: LoadedModel, intervention: Intervention, exported: Any
) -> None:
    cases = exported[2].cases
    assert [case.about for case in cases] == ["behaviour"] * 4 + ["neutral"] * 2
    for case in cases:
        ids = [*case.prompt_ids, *case.continuation_ids]
        assert ids[0] == loaded.tokenizer.bos_token_id
        start = len(case.prompt_ids)
        with applied(loaded, intervention):
            steered = log_probs(loaded.model, ids)
        for values, expected in ((steered, case.steered), (None, case.unsteered)):
            values = log_probs(loaded.model, ids) if values is None else values
            by_hand = [float(values[start + i - 1, ids[start + i]]) for i in range(len(expected))]
            assert by_hand == pytest.approx(expected, abs=1e-5)
        likeliest = steered[start - 1 : -1].argmax(-1).tolist()
        assert likeliest == list(case.continuation_ids)


def test_a_parity_file_comes_back_exactly(exported: Any) -> None:
    assert Parity.load(exported[1]) == exported[2]
    assert Parity.load(exported[1] / PARITY_FILE) == exported[2]


def test_a_baked_folder_is_found_to_be_steered(exported: Any) -> None:
    found = check_export(str(exported[1]))
    assert (found.verdict, found.ok) == ("steered", True)
    assert found.from_steered < 1e-4 < found.from_unsteered
    assert "steered as expected" in found.sentence()


def test_the_original_folder_is_found_to_be_unsteered(exported: Any) -> None:
    plain, baked, _ = exported
    found = check_export(str(plain), parity=baked / PARITY_FILE)
    assert (found.verdict, found.ok) == ("unsteered", False)
    assert found.from_unsteered < 1e-4 < found.from_steered
    assert "UNSTEERED" in found.sentence()


def test_another_model_is_found_to_be_neither(exported: Any, tmp_path: Path) -> None:
    tiny_family("qwen2", seed=5, use_sliding_window=False).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    found = check_export(str(tmp_path), parity=exported[1])
    assert (found.verdict, found.ok) == ("other", False)
    assert "another base model" in found.sentence() and "% is there" not in found.sentence()


@pytest.mark.parametrize("kind", [like_vllm, like_llama_cpp, with_token_texts])
def test_servers_of_three_kinds_are_told_apart_steered_and_unsteered(
    exported: Any, kind: Callable[[PreTrainedModel], Answer]
) -> None:
    plain, baked, _ = exported
    for folder, verdict in ((baked, "steered"), (plain, "unsteered")):
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with serving(kind(model)) as url:
            assert check_export(url, parity=baked).verdict == verdict
            assert check_export(f"{url}/v1/", parity=baked).verdict == verdict


def test_a_server_with_half_of_the_steering_is_neither(exported: Any) -> None:
    _, baked, parity = exported
    model = AutoModelForCausalLM.from_pretrained(baked).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.bias *= 0.5
    with serving(like_vllm(model)) as url:
        found = check_export(url, parity=baked)
    assert found.verdict == "other"
    assert min(found.from_steered, found.from_unsteered) > parity.tolerance
    assert 0.1 < found.share < 0.9
    assert f"of what steering does, {found.share:.0%} is there" in found.sentence()


def test_a_server_that_rounds_is_still_told_as_steered(exported: Any) -> None:
    _, baked, parity = exported
    model = AutoModelForCausalLM.from_pretrained(baked, dtype=torch.bfloat16).eval()
    with serving(like_vllm(model)) as url:
        found = check_export(url, parity=baked)
    assert found.verdict == "steered"
    assert found.from_steered > parity.tolerance
    assert "off by more than the tolerance" in found.sentence()


def test_no_server_a_wrong_path_and_no_log_probabilities_are_explained(exported: Any) -> None:
    baked = exported[1]
    with serving(lambda _: (200, {"choices": [{"text": "", "logprobs": None}]})) as url:
        with pytest.raises(UserInputError, match="gives no log-probabilities"):
            check_export(url, parity=baked)
        gone = url
    with pytest.raises(UserInputError, match="no server answers at"):
        check_export(gone, parity=baked)
    with (
        serving(lambda _: (404, {"detail": "Not Found"})) as url,
        pytest.raises(UserInputError, match="answers 404.*OpenAI's completions"),
    ):
        check_export(url, parity=baked)
    with (
        serving(lambda _: (200, ["no completion"])) as url,
        pytest.raises(UserInputError, match="does not answer as OpenAI's completions"),
    ):
        check_export(url, parity=baked)
    with pytest.raises(UserInputError, match="--parity FILE"):
        check_export("http://localhost:1/v1")


def test_a_folder_without_a_parity_file_or_with_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="no parity file"):
        check_export(str(tmp_path))
    (tmp_path / PARITY_FILE).write_text('{"cases": 3}')
    with pytest.raises(UserInputError, match="no parity file, or damaged"):
        check_export(str(tmp_path))


def one_case(steered: tuple[float, ...], unsteered: tuple[float, ...]) -> Parity:
    n = len(steered)
    case = ParityCase(
        about="neutral",
        prompt="w1",
        prompt_ids=(1, 9),
        continuation_ids=(9,) * n,
        tokens=("w1",) * n,
        steered=steered,
        unsteered=unsteered,
    )
    return Parity(dtype="float32", tolerance=1e-3, cases=(case,))


@pytest.mark.parametrize(
    ("read", "verdict"),
    [
        ((-1.0, -2.0), "steered"),
        ((-1.0005, -2.0), "steered"),
        ((-3.0, -5.0), "unsteered"),
        ((-1.1, -2.2), "steered"),
        ((-2.9, -4.7), "unsteered"),
        ((-2.0, -3.5), "other"),
        ((float("nan"), -2.0), "other"),
    ],
)
def test_the_verdict_follows_the_distances(read: tuple[float, float], verdict: str) -> None:
    parity = one_case((-1.0, -2.0), (-3.0, -5.0))
    assert compare(parity, [[Reading(value) for value in read]]).verdict == verdict


def test_steering_below_the_tolerance_cannot_be_told() -> None:
    parity = one_case((-1.0,), (-1.0001,))
    found = compare(parity, [[Reading(-1.0)]])
    assert (found.verdict, found.ok) == ("too weak to tell", False)
    assert compare(parity, [[Reading(-4.0)]]).verdict == "other"


def test_a_token_that_is_not_listed_is_off_by_what_is_above_the_last_listed_one() -> None:
    assert Reading(-7.0, at_most=True).off(-9.0) == 0.0
    assert Reading(-7.0, at_most=True).off(-6.5) == pytest.approx(0.5)
    assert Reading(-7.0).off(-9.0) == pytest.approx(2.0)


def test_lofits_list_holds_layer_and_head_best_first(tmp_path: Path) -> None:
    modules = (ModuleId("head", 7, 3), ModuleId("head", 0, 11), ModuleId("head", 7, 0))
    save_heads(modules, tmp_path / "heads.npy")
    found = np.load(tmp_path / "heads.npy", allow_pickle=False)
    assert found.dtype.kind == "i"
    assert found.tolist() == [[7, 3], [0, 11], [7, 0]]
    with pytest.raises(UserInputError, match="attention heads, found modules of kind 'mlp'"):
        save_heads((ModuleId("mlp", 1),), tmp_path / "other.npy")
