"""OpenAI's own client against the server: texts, streams, steering, errors, many at once."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from real_tasks.models.loading import prepare
from real_tasks.serving.catalogue import Catalogue
from real_tasks.serving.engine import Engine
from real_tasks.serving.generations import Sampling
from real_tasks.serving.http.app import served
from real_tasks.serving.http.guard import Metrics
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.serving.http_server import KEY, NO_ENDS, Server, planted, running
from tests.unit.serving.served import Asked, endless
from tests.unit.tiny_models import tiny_llama, tiny_tokenizer

PROMPT = "w1 w20 w3 w44"
LOGGED_IN = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("specs")) as found:
        yield found


def alone(server: Server, strengths: dict[str, float], prompt: str = PROMPT, n: int = 8) -> str:
    """What transformers' `generate` says under the specs' own contexts, one within the other."""
    model, tokenizer = tiny_llama().eval(), tiny_tokenizer()
    with ExitStack() as steered, torch.no_grad():
        for name, strength in strengths.items():
            spec = SteeringSpec.load(server.folders[name])
            steered.enter_context(spec.with_alpha(strength * spec.alpha).applied_to(model))
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        made = model.generate(**inputs, max_new_tokens=n, do_sample=False)
    return tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def completed(server: Server, model: str = "tiny", **how: Any) -> Any:
    given = {"prompt": PROMPT, "temperature": 0, "max_tokens": 8} | how
    return server.client().completions.create(model=model, **given)


def steering(**strengths: float) -> dict[str, Any]:
    parts = [{"spec": name, "strength": value} for name, value in strengths.items()]
    return {"steering": parts}


def test_the_bare_model_and_each_steered_name_are_listed(server: Server) -> None:
    listed = {one.id: one for one in server.client().models.list()}
    assert list(listed) == ["tiny", "tiny:truth", "tiny:calm"]
    assert server.client().models.retrieve("tiny:calm").id == "tiny:calm"
    facts = listed["tiny:truth"].steering  # a field of this server's
    assert facts["alpha"] == 5 and "at strength 5" in facts["what"]
    assert facts["folder"] == str(server.folders["truth"])


def test_steering_by_name_and_by_request_gives_what_hooks_give_alone(server: Server) -> None:
    def said(**how: Any) -> str:
        return str(completed(server, **how).choices[0].text)

    bare, truth = alone(server, {}), alone(server, {"truth": 1})
    assert said() == bare and said(model="tiny:truth") == truth != bare
    assert said(extra_body=steering(truth=1)) == truth
    assert said(extra_body=steering(truth=0)) == bare
    both = alone(server, {"truth": -0.5, "calm": 1.5})
    assert said(extra_body=steering(truth=-0.5, calm=1.5)) == both
    assert said(model="tiny:truth", extra_body=steering(calm=1.5)) == alone(
        server, {"truth": 1, "calm": 1.5}
    )


def test_a_chat_is_the_template_s_prompt(server: Server) -> None:
    messages = [
        {"role": "system", "content": "w9"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "w1 "}, {"type": "text", "text": "w2"}],
        },
        {"role": "assistant", "content": "w5"},
        {"role": "user", "content": "w7"},
    ]
    reply = server.client().chat.completions.create(
        model="tiny:truth", messages=messages, temperature=0, max_tokens=8
    )
    tokenizer = server.loaded.tokenizer
    ids = tokenizer("s w9 u w1 w2 a w5 u w7 A:", add_special_tokens=False)["input_ids"]
    raw = completed(server, "tiny:truth", prompt=ids).choices[0].text
    assert reply.choices[0].message.content == raw
    assert reply.usage.prompt_tokens == len(ids)
    again = [*messages, reply.choices[0].message, {"role": "user", "content": "w8"}]
    assert (
        server.client()
        .chat.completions.create(model="tiny", messages=again, max_completion_tokens=2)
        .choices
    )


def test_a_stream_has_the_same_text_scores_and_usage(server: Server) -> None:
    whole = completed(server, "tiny:truth", logprobs=2)
    assert whole.usage.completion_tokens == 8 and whole.choices[0].finish_reason == "length"
    chunks = list(
        completed(
            server, "tiny:truth", logprobs=2, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = [chunk.choices[0].text for chunk in chunks[:-1]]
    assert "".join(texts) == whole.choices[0].text and len(texts) > 1
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    scores = whole.choices[0].logprobs
    streamed = [one for chunk in chunks[:-1] for one in chunk.choices[0].logprobs.token_logprobs]
    assert streamed == pytest.approx(scores.token_logprobs, abs=1e-5)
    for token, value, top in zip(
        scores.tokens, scores.token_logprobs, scores.top_logprobs, strict=True
    ):
        assert max(top.values()) == top[token] == value and len(top) == 2


def test_a_chat_streams_deltas_and_tells_bytes(server: Server) -> None:
    asked = {"messages": [{"role": "user", "content": "w7"}], "temperature": 0, "max_tokens": 5}
    client = server.client().chat.completions
    whole = client.create(model="tiny", logprobs=True, top_logprobs=1, **asked)
    chunks = list(client.create(model="tiny", stream=True, **asked))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"
    scored = whole.choices[0].logprobs.content
    assert [bytes(one.bytes).decode() for one in scored] == text.split()
    assert all(one.top_logprobs[0].logprob == one.logprob for one in scored)


def test_seeds_and_n_are_repeatable(server: Server) -> None:
    def drawn(seed: int, n: int = 1) -> list[str]:
        reply = completed(server, temperature=1.2, top_p=0.95, seed=seed, n=n, max_tokens=12)
        return [choice.text for choice in reply.choices]

    three = drawn(7, 3)
    assert len(set(three)) == 3
    assert drawn(7) == three[:1] and drawn(8, 2) == three[1:]


def test_several_prompts_are_answered_in_their_order(server: Server) -> None:
    prompts = [PROMPT, "w50 w51", "w9"]
    reply = completed(server, "tiny:calm", prompt=prompts, stop=["nowhere"])
    found = {choice.index: choice.text for choice in reply.choices}
    assert [found[n] for n in range(3)] == [alone(server, {"calm": 1}, p) for p in prompts]


WRONG: list[tuple[int, str | None, dict[str, Any], str]] = [
    (404, "model_not_found", {"model": "tiny:other"}, "there are: tiny, tiny:truth, tiny:calm"),
    (404, "spec_not_found", {"extra_body": steering(other=1)}, "no spec 'other'"),
    (400, None, {"extra_body": {"steering": [{"spec": "truth", "strength": "two"}]}}, "strength"),
    (400, None, {"extra_body": {"steering": [{"spec": "truth", "strength": True}]}}, "strength"),
    (400, None, {"model": "tiny:truth", "extra_body": steering(truth=2)}, "asked for twice"),
    (400, None, {"extra_body": steering(truth=1e30)}, "too long to be computed with"),
    (400, "context_length_exceeded", {"max_tokens": 124}, "takes 5 and max_tokens 124, .* is 129"),
    (400, "context_length_exceeded", {"prompt": [1] * 200}, "128 positions"),
    (400, None, {"temperature": 3}, "temperature"),
    (400, None, {"frequency_penalty": 1}, "frequency_penalty"),
    (400, None, {"extra_body": {"tools": []}}, "tools: it is not known here"),
    (400, None, {"stop": [""]}, "stop.0: String should have at least 1 character"),
    (400, None, {"extra_body": {"k" * 5000: 1}}, r"kkk\.\.\.kkk.*not known here"),
    (404, "model_not_found", {"model": "m" * 5000}, r"no model 'mmm.*mmm\.\.\.mmm"),
    (400, None, {"prompt": [68]}, "the model has 68 tokens"),
    (400, None, {"n": 128}, "128 texts in one request, and 64 may wait"),
]


@pytest.mark.parametrize(("status", "code", "how", "said"), WRONG, ids=lambda one: str(one)[:40])
def test_errors_have_openai_s_form(
    server: Server, status: int, code: str | None, how: dict[str, Any], said: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=said) as caught:
        completed(server, **how)
    assert caught.value.status_code == status
    assert caught.value.code == code and caught.value.type == "invalid_request_error"


def test_requests_that_are_none_have_that_form_too(server: Server) -> None:
    url = server.url + "/completions"
    found = [
        httpx.post(url, content=content, headers=LOGGED_IN | {"content-type": "application/json"})
        for content in (b"{", b"[]", b"\xff", b'{"model": "tiny", "prompt": "w1", "top_p": NaN}')
    ]
    found += [httpx.get(url, headers=LOGGED_IN), httpx.get(server.url + "/x", headers=LOGGED_IN)]
    assert [one.status_code for one in found] == [400, 400, 400, 400, 405, 404]
    for one in found:
        assert set(one.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"prompt": "w1 \ud800"}, 400, r"holds '\ud800' (near 'w1 \ud800'), which is no character"),
        ({"prompt": "w1", "\ud800": 1}, 400, "unable to parse raw data as a unicode string"),
        ({"prompt": "w1", "model": "\ud800"}, 404, r"there is no model '\ud800'"),
    ],
)
def test_half_a_character_is_refused_in_words(
    server: Server, asked: dict[str, Any], status: int, said: str
) -> None:
    content = json.dumps({"model": "tiny", "max_tokens": 2} | asked)
    headers = LOGGED_IN | {"content-type": "application/json"}
    found = httpx.post(server.url + "/completions", content=content, headers=headers)
    assert found.status_code == status and said in found.json()["error"]["message"]


def test_a_part_of_a_message_that_is_no_text_is_named_by_what_is_wrong(server: Server) -> None:
    picture: Any = {"type": "image_url", "image_url": {"url": "data:,"}}
    with pytest.raises(
        openai.BadRequestError, match=r"messages.0.content.0.type: .*should be 'text'"
    ):
        server.client().chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": [picture]}]
        )


def test_a_body_without_its_content_type_is_told_to_say_it(server: Server) -> None:
    content = b'{"model": "tiny", "prompt": "w1"}'
    found = httpx.post(server.url + "/completions", content=content, headers=LOGGED_IN)
    assert "sent with Content-Type: application/json" in found.json()["error"]["message"]


def test_only_health_is_told_without_the_key(server: Server) -> None:
    root = server.url.removesuffix("/v1")
    assert httpx.get(root + "/health").json() == {"status": "ok"}
    for path in ("/metrics", "/v1/models", "/nowhere"):
        assert httpx.get(root + path).status_code == 401
    with pytest.raises(openai.AuthenticationError, match="Bearer KEY"):
        server.client("another").models.list()


def test_metrics_count_requests_and_tokens(server: Server) -> None:
    def told() -> dict[str, float]:
        root = server.url.removesuffix("/v1")
        lines = httpx.get(root + "/metrics", headers=LOGGED_IN).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    ok = 'real_requests_total{path="/v1/completions",status="200"}'
    completed(server)
    before = told()
    usage = completed(server).usage
    after = told()
    assert after[ok] == before[ok] + 1
    for name, n in (("prompt", usage.prompt_tokens), ("generated", usage.completion_tokens)):
        assert after[f"real_{name}_tokens_total"] == before[f"real_{name}_tokens_total"] + n
    assert after["real_waiting"] == after["real_running"] == 0


def test_many_clients_with_mixed_steering_get_what_each_gets_alone(server: Server) -> None:
    mixtures: Sequence[dict[str, float]] = (
        {}, {"truth": 1}, {"calm": 1}, {"truth": 0.5, "calm": -1}
    )  # fmt: skip
    cases = [(f"w{n} w{3 * n % 60}", mixtures[n % 4]) for n in range(16)]

    def ask(case: tuple[str, dict[str, float]]) -> str:
        prompt, mixture = case
        return str(completed(server, prompt=prompt, extra_body=steering(**mixture)).choices[0].text)

    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(ask, cases))
    assert found == [alone(server, mixture, prompt) for prompt, mixture in cases]


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_row_and_a_full_queue_says_429(
    tmp_path: Path, stream: bool
) -> None:
    long = {"model": "tiny", "prompt": "w1", "max_tokens": 90_000, "temperature": 2, "seed": 3}
    with (
        running(tmp_path, max_rows=1, max_waiting=1, loaded=endless()) as server,
        httpx.Client(base_url=server.url, headers=LOGGED_IN, timeout=60) as client,
        ThreadPoolExecutor(1) as other,
    ):
        if stream:
            with client.stream("POST", "/completions", json=long | {"stream": True}) as reply:
                lines = reply.iter_lines()  # which closes the reply when it is forgotten
                assert next(lines)
                waiting = other.submit(completed, server)
                wait_for(lambda: server.engine.n_waiting == 1)
                with pytest.raises(openai.RateLimitError, match="1 texts wait"):
                    completed(server)
            assert waiting.result().usage.completion_tokens == 8
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/completions", json=long, timeout=0.5)
        wait_for(lambda: server.engine.n_rows == 0)
        assert completed(server).choices[0].finish_reason


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_before_the_first_byte_frees_its_row(stream: bool) -> None:
    loaded = endless()
    loaded.tokenizer.chat_template = NO_ENDS
    question = {"role": "user", "content": "w1"}
    asked = {"model": "tiny", "messages": [question], "max_tokens": 90_000, "stream": stream}
    arriving: list[dict[str, Any]] = [{"type": "http.request", "body": json.dumps(asked).encode()}]

    async def receive() -> dict[str, Any]:
        return arriving.pop() if arriving else {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        await asyncio.sleep(0.1)  # a connection that is full

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    with Engine(loaded, max_rows=1).running() as engine:
        application = served(engine, Catalogue(loaded, "tiny", {}), Metrics())
        asyncio.run(application(scope, receive, send))
        next_one = Asked([1, 10], Sampling(2))
        engine.submit([next_one.generation])
        assert next_one.text()


def test_a_spec_that_changes_on_disk_is_served_as_it_was_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as server:
        before = completed(server, "tiny:truth").choices[0].text
        planted(server.loaded, server.folders["truth"], seed=11, layer=1)
        assert completed(server, "tiny:truth").choices[0].text == before
        listed = {one.id: one for one in server.client().models.list()}
    assert listed["tiny:truth"].steering["changed_on_disk"] is True
    assert listed["tiny:calm"].steering["changed_on_disk"] is False
    assert "truth" in caplog.text and "changed on disk" in caplog.text


def test_every_event_of_a_stream_is_json_and_the_last_says_done(server: Server) -> None:
    asked = {"model": "tiny", "prompt": "w1", "max_tokens": 3, "stream": True}
    reply = httpx.post(server.url + "/completions", json=asked, headers=LOGGED_IN)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert all(json.loads(one.removeprefix("data: "))["choices"] for one in events[:-1])


def test_a_spec_of_another_model_is_refused_at_the_start(server: Server) -> None:
    other = prepare(tiny_llama(seed=5), tiny_tokenizer())
    with pytest.raises(UserInputError, match="was made for the model tiny .* this is another one"):
        Catalogue(other, "other", server.folders)
