"""PrOSV on a tiny model: what it trains, against a plain loop, and where it acts."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.hooks import applied
from real_tasks.steering.model_access import Text
from real_tasks.vocabulary.scopes import PromptEnds
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import tiny_loaded

SITE = ModuleId("layer", 1)
ENDS = PromptEnds(first=2, last=2)
PROMPTS = ("Q: w1 w2 w3 w5 w8 ?", "Q: w3 w4 w9 w7 ?", "Q: w4 w9 w12 w13 w1 w2 ?")
ANSWERS = ("w20", "w30 w31")


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tiny_loaded()


def given(loaded: LoadedModel, prompts: tuple[str, ...] = PROMPTS) -> FitterInput:
    """Return prompts with an aligned and a violating answer, and activations of deviation 2."""
    texts = tuple(Text(prompt, f"{prompt} {answer}") for prompt in prompts for answer in ANSWERS)
    drawn = torch.randn(
        len(texts), loaded.shape.d_model, generator=torch.Generator().manual_seed(0)
    )
    values = 2 * (drawn - drawn.mean(0)) / drawn.std(0)
    labels = torch.tensor([1, 0] * len(prompts))
    questions = torch.arange(len(texts)) // 2
    model = cast(Any, ModelHandle(loaded, 1000))
    return FitterInput((SITE,), values[None], labels, questions, texts=texts, model=model)


def fitted(loaded: LoadedModel, data: FitterInput, **params: object) -> Edit:
    found = FITTERS.made("prosv", {"scale": 0.5, "spread": 1.0, "vector_rate": 0.1, **params})
    return Edit((SITE,), found.fit(data, 0), torch.ones(1), scope=ENDS)


@pytest.mark.parametrize("loss", ["language", "preference"])
def test_the_push_is_that_of_a_plain_loop(loaded: LoadedModel, loss: str) -> None:
    data = given(loaded, PROMPTS[:1])
    edit = fitted(loaded, data, loss=loss, steps=4, batch=1)
    width = loaded.shape.d_model
    vector = (
        2 * torch.rand(width, generator=torch.Generator().manual_seed(0)) - 1
    ).requires_grad_()
    scale = torch.tensor(0.5, requires_grad=True)
    groups = [{"params": [scale], "lr": 0.2}, {"params": [vector], "lr": 0.1}]
    optimizer = torch.optim.Adam(groups)
    prompt = torch.tensor(loaded.tokenizer(PROMPTS[0])["input_ids"])
    answers = [torch.tensor(loaded.tokenizer(a)["input_ids"][1:]) for a in ANSWERS]

    def log_prob(answer: Tensor, push: Tensor | None) -> Tensor:
        def hook(_module: object, _args: object, output: Tensor) -> Tensor:
            ends = torch.zeros(output.shape[1], 1)
            ends[[0, 1, len(prompt) - 2, len(prompt) - 1]] = 1
            return output if push is None else output + ends * push

        handle = loaded.model.model.layers[1].register_forward_hook(hook)
        logits = loaded.model(torch.cat([prompt, answer])[None]).logits[0].log_softmax(-1)
        handle.remove()
        return logits[len(prompt) - 1 : -1].gather(1, answer[:, None]).sum()

    with torch.no_grad():
        before = [log_prob(answer, None) for answer in answers]
    for step in range(4):
        push = 2 * scale * vector
        good, bad = (log_prob(answer, push) for answer in answers)
        if loss == "language":
            now = -good
        else:
            now = -torch.sigmoid(max(1.0, float(before[1] - before[0])) * good - bad / 2).log()
        optimizer.zero_grad()
        now.backward()
        assert vector.grad is not None
        vector.grad *= min(1.0, 1 / float(vector.grad.norm()))
        for group, rate in zip(optimizer.param_groups, (0.2, 0.1), strict=True):
            group["lr"] = rate * (1 - step / 4)
        optimizer.step()
    expected = (2 * scale * vector).detach()
    torch.testing.assert_close(
        edit.tensors["scale"] * edit.tensors["direction"][0], expected, atol=1e-4, rtol=1e-3
    )


def test_after_training_the_answer_is_given_and_other_positions_stay_as_they_were(
    loaded: LoadedModel,
) -> None:
    data = given(loaded)
    edit = fitted(loaded, data, loss="language", steps=60, batch=3)
    assert data.model is not None
    with torch.no_grad():
        told = data.model.log_probs(data.texts[::2], Intervention((edit,))).exp()
    assert float(told.min()) > 0.9
    ids = torch.tensor(loaded.tokenizer(PROMPTS[0])["input_ids"])[None]
    following = loaded.model.model.layers[2].input_layernorm
    before, after = (entering(loaded, following, ids, push) for push in (None, edit))
    same = (before == after).all(-1)[0].tolist()
    assert same == [False] * 2 + [True] * (ids.shape[1] - 4) + [False] * 2


def entering(loaded: LoadedModel, module: Any, ids: Tensor, edit: Edit | None) -> Tensor:
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    with torch.no_grad(), applied(loaded, Intervention((edit,)) if edit else None):
        loaded.model(ids)
    handle.remove()
    return seen[0]


@torch.no_grad()
def test_what_is_generated_is_the_same_without_a_cache_and_in_a_padded_batch() -> None:
    loaded = tiny_loaded(padding_side="left")
    push = torch.randn(loaded.shape.d_model, generator=torch.Generator().manual_seed(1))
    tensors = {"direction": push[None] / push.norm(), "scale": 2 * push.norm()[None]}
    steered = Intervention((Edit((SITE,), tensors, torch.ones(1), scope=ENDS),))

    def continued(
        prompts: tuple[str, ...], use_cache: bool, push: Intervention | None = steered
    ) -> list[list[int]]:
        batch = loaded.tokenizer(list(prompts), return_tensors="pt", padding=True)
        how = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        with applied(loaded, push):
            found = loaded.model.generate(
                batch["input_ids"],
                attention_mask=batch["attention_mask"],
                use_cache=use_cache,
                **how,
            )
        return [row[batch["input_ids"].shape[1] :] for row in found.tolist()]

    together = continued(PROMPTS, True)
    assert continued(PROMPTS, False) == together
    assert [continued((prompt,), True)[0] for prompt in PROMPTS] == together
    assert continued(PROMPTS, True, None) != together
