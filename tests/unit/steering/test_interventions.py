from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.reading.batches import pad
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleKind, TokenScope
from tests.unit.tiny_models import (
    random_intervention,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
    vectors_of,
)
from tests.unit.tuple_outputs import puts_out_tuples

SCOPES: tuple[TokenScope, ...] = ("all", "generated", "last")
KINDS: tuple[ModuleKind, ...] = ("head", "layer", "mlp")
PROMPTS = [[1, 9, 12, 30, 41], [1, 20, 33], [1, 50, 51, 52, 9, 9, 10, 11]]
N_NEW = 8


@contextmanager
def added_to_outputs(loaded: LoadedModel, iv: Intervention, first: int) -> Iterator[None]:
    """The definition, from column `first` on, elsewhere in the network than the intervention.

    Heads: W_o @ displacement is added to o_proj's output. MLPs: the displacement to the output of
    their last projection. Layers: to the input of the next block, or of the final norm.
    """
    decoder = loaded.model.model
    following = [*decoder.layers[1:], decoder.norm]

    def steered(values: Tensor, shift: Tensor) -> Tensor:
        return values + (torch.arange(values.shape[1])[:, None] >= first) * shift

    handles = []
    kind = iv.edits[0].kind
    for layer, displacement in vectors_of(iv, loaded.shape).items():
        block, shift = decoder.layers[layer], displacement
        if kind == "layer":

            def before(_module: object, args: tuple, shift: Tensor = shift) -> tuple:
                return (steered(args[0], shift), *args[1:])

            handles.append(following[layer].register_forward_pre_hook(before))
            continue
        projection = block.self_attn.o_proj if kind == "head" else block.mlp.down_proj
        if kind == "head":
            shift = projection.weight @ displacement

        def after(_module: object, _args: object, output: Tensor, shift: Tensor = shift) -> Tensor:
            return steered(output, shift)

        handles.append(projection.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def reference_generation(
    loaded: LoadedModel, iv: Intervention, prompt: list[int]
) -> tuple[list[int], Tensor]:
    """Greedy, one row, the whole sequence anew at each step, steered by definition."""
    first = {"all": 0, "generated": len(prompt), "last": len(prompt) - 1}[str(iv.scope)]
    ids, logits = list(prompt), []
    with added_to_outputs(loaded, iv, first):
        for _ in range(N_NEW):
            logits.append(loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1])
            ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :], torch.stack(logits)


def generated(loaded: LoadedModel, prompts: list[list[int]], **kwargs: object) -> tuple:
    batch = pad(loaded, prompts, "left")
    out = loaded.model.generate(
        batch.input_ids,
        attention_mask=batch.mask.long(),
        max_new_tokens=N_NEW,
        min_new_tokens=N_NEW,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **kwargs,
    )
    return out.sequences[:, batch.input_ids.shape[1] :].tolist(), torch.stack(out.logits, 1)


@pytest.fixture(params=[tiny_llama, tiny_qwen2])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    model = request.param()
    # No row may end early, so that all logits can be compared.
    model.generation_config.eos_token_id = None
    return prepare(model, tiny_tokenizer())


@pytest.mark.parametrize("kind", KINDS)
def test_scope_all_equals_the_definition_at_every_position(
    loaded: LoadedModel, kind: ModuleKind
) -> None:
    iv = random_intervention(loaded, "all", kind=kind)
    ids = torch.tensor([PROMPTS[0], PROMPTS[0][::-1]])
    with torch.no_grad():
        plain = loaded.model(ids).logits
        with added_to_outputs(loaded, iv, 0):
            expected = loaded.model(ids).logits
        with applied(loaded, iv):
            found = loaded.model(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 0.1


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_generation_in_a_left_padded_batch_equals_the_definition_row_by_row(
    loaded: LoadedModel, kind: ModuleKind, scope: TokenScope, use_cache: bool
) -> None:
    iv = random_intervention(loaded, scope, kind=kind)
    with applied(loaded, iv):
        tokens, logits = generated(loaded, PROMPTS, use_cache=use_cache)
    for row, prompt in enumerate(PROMPTS):
        expected_tokens, expected_logits = reference_generation(loaded, iv, prompt)
        assert tokens[row] == expected_tokens
        torch.testing.assert_close(logits[row], expected_logits, atol=1e-3, rtol=1e-3)


def test_the_three_scopes_and_no_steering_generate_different_texts(loaded: LoadedModel) -> None:
    first_logits, texts = [], []
    for iv in (None, *(random_intervention(loaded, scope) for scope in SCOPES)):
        with applied(loaded, iv):
            tokens, logits = generated(loaded, PROMPTS)
        first_logits.append(logits[:, 0])
        texts.append(tokens)
    assert len({str(t) for t in texts}) == 4
    # The first new token is predicted at the prompt's last position, not yet generated.
    assert torch.equal(first_logits[0], first_logits[2])
    assert not torch.equal(first_logits[0], first_logits[3])


@pytest.mark.parametrize("scope", SCOPES)
def test_sequential_generations_in_one_context_do_not_disturb_each_other(
    loaded: LoadedModel, scope: TokenScope
) -> None:
    iv = random_intervention(loaded, scope)
    with applied(loaded, iv):
        together = [generated(loaded, [prompt])[0][0] for prompt in (*PROMPTS, PROMPTS[0])]
    for tokens, prompt in zip(together, (*PROMPTS, PROMPTS[0]), strict=True):
        assert tokens == reference_generation(loaded, iv, prompt)[0]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_loop_over_a_cache_by_hand_equals_generate(
    loaded: LoadedModel, scope: TokenScope
) -> None:
    iv = random_intervention(loaded, scope)
    cache, ids, tokens = DynamicCache(), torch.tensor([PROMPTS[0]]), []
    with torch.no_grad(), applied(loaded, iv):
        for _ in range(N_NEW):
            logits = loaded.model(ids, past_key_values=cache, use_cache=True).logits
            ids = logits[:, -1:].argmax(-1)
            tokens.append(int(ids))
        assert generated(loaded, PROMPTS[:1])[0] == [tokens]


@pytest.mark.parametrize("scope", ["generated", "last"])
def test_all_that_follows_a_filled_cache_is_steered_however_many_tokens(
    loaded: LoadedModel, scope: TokenScope
) -> None:
    iv = random_intervention(loaded, scope)
    ids, n_prompt, cache = torch.tensor([PROMPTS[2]]), 2, DynamicCache()
    with torch.no_grad():
        with applied(loaded, iv, torch.tensor([n_prompt])):
            expected = loaded.model(ids).logits[:, n_prompt:]
        with applied(loaded, iv):
            loaded.model(ids[:, :n_prompt], past_key_values=cache, use_cache=True)
            found = loaded.model(
                ids[:, n_prompt:],
                attention_mask=torch.ones_like(ids),
                past_key_values=cache,
                use_cache=True,
            ).logits
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_beams_are_steered_as_without_a_cache(loaded: LoadedModel) -> None:
    with applied(loaded, random_intervention(loaded, "last")):
        cached = generated(loaded, PROMPTS, num_beams=3)[0]
        assert cached == generated(loaded, PROMPTS, num_beams=3, use_cache=False)[0]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_teacher_forcing_with_prompt_lengths_equals_the_definition(
    loaded: LoadedModel, kind: ModuleKind, scope: TokenScope
) -> None:
    iv = random_intervention(loaded, scope, kind=kind)
    lengths = [3, 1, 4]
    batch = pad(loaded, PROMPTS, "right")
    with torch.no_grad(), applied(loaded, iv, torch.tensor(lengths)):
        found = loaded.model(batch.input_ids, attention_mask=batch.mask).logits
    for row, (prompt, length) in enumerate(zip(PROMPTS, lengths, strict=True)):
        first = {"all": 0, "generated": length, "last": length - 1}[scope]
        with torch.no_grad(), added_to_outputs(loaded, iv, first):
            expected = loaded.model(torch.tensor([prompt])).logits[0]
        torch.testing.assert_close(found[row, : len(prompt)], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_scope_last_steers_the_last_real_position_of_a_plain_forward_pass(
    loaded: LoadedModel, kind: ModuleKind, side: str
) -> None:
    iv = random_intervention(loaded, "last", kind=kind)
    batch = pad(loaded, PROMPTS, side)
    positions = (batch.mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), applied(loaded, iv):
        found = loaded.model(
            batch.input_ids, attention_mask=batch.mask, position_ids=positions
        ).logits
    for row, prompt in enumerate(PROMPTS):
        with torch.no_grad(), added_to_outputs(loaded, iv, len(prompt) - 1):
            expected = loaded.model(torch.tensor([prompt])).logits[0]
        torch.testing.assert_close(found[row][batch.mask[row]], expected, atol=1e-3, rtol=1e-3)


def test_scope_generated_without_a_known_prompt_is_refused(loaded: LoadedModel) -> None:
    ids = torch.tensor([PROMPTS[0]])
    with applied(loaded, random_intervention(loaded, "generated")):
        with pytest.raises(UserInputError, match="where the prompt ends"):
            loaded.model(ids)
        with pytest.raises(UserInputError, match="where the prompt ends"):
            loaded.model(inputs_embeds=torch.zeros(1, 3, 32))
    loaded.model(ids)


def test_prompt_lengths_for_another_number_of_rows_are_refused(loaded: LoadedModel) -> None:
    iv = random_intervention(loaded, "generated")
    with (
        applied(loaded, iv, torch.tensor([2, 3])),
        pytest.raises(UserInputError, match="2 prompt_lengths for a batch of 1 rows"),
    ):
        loaded.model(torch.tensor([PROMPTS[0]]))


def test_prompts_filled_up_on_the_right_are_refused_in_generate(loaded: LoadedModel) -> None:
    batch = pad(loaded, PROMPTS, "right")
    with (
        applied(loaded, random_intervention(loaded, "last")),
        pytest.raises(UserInputError, match="padding_side = 'left'"),
    ):
        loaded.model.generate(batch.input_ids, attention_mask=batch.mask.long(), max_new_tokens=2)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_displacement_changes_nothing(
    loaded: LoadedModel, kind: ModuleKind, scope: TokenScope
) -> None:
    zero = random_intervention(loaded, scope, scale=0.0, kind=kind)
    tokens, logits = generated(loaded, PROMPTS)
    with applied(loaded, zero):
        steered_tokens, steered_logits = generated(loaded, PROMPTS)
    assert tokens == steered_tokens
    assert torch.equal(logits, steered_logits)


def untouched(loaded: LoadedModel) -> bool:
    hooked = any(m._forward_pre_hooks or m._forward_hooks for m in loaded.model.modules())
    return not hooked and "generate" not in vars(loaded.model)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_and_generate_are_restored_at_the_end_and_after_an_error(
    loaded: LoadedModel, kind: ModuleKind
) -> None:
    iv = random_intervention(loaded, "generated", kind=kind)
    with applied(loaded, iv):
        assert not untouched(loaded)
        generated(loaded, PROMPTS)
    assert untouched(loaded)
    with pytest.raises(KeyError), applied(loaded, iv):
        raise KeyError("broken")
    assert untouched(loaded)
    nowhere = Intervention.adding({0: torch.zeros(32), 99: torch.ones(1)}, "all", kind)
    with pytest.raises(UserInputError), applied(loaded, nowhere):
        pass
    assert untouched(loaded)


def test_a_generation_that_fails_leaves_no_prompt_behind(loaded: LoadedModel) -> None:
    with applied(loaded, random_intervention(loaded, "generated")):
        with pytest.raises(TypeError):
            loaded.model.generate(torch.tensor([PROMPTS[0]]), max_new_tokens="many")
        with pytest.raises(UserInputError, match="where the prompt ends"):
            loaded.model(torch.tensor([PROMPTS[0]]))


@pytest.mark.parametrize("kind", KINDS)
def test_nested_displacements_add_up(loaded: LoadedModel, kind: ModuleKind) -> None:
    one, two = (random_intervention(loaded, "last", seed, kind=kind) for seed in (1, 2))
    sums = {i: vectors_of(one, loaded.shape)[i] + vectors_of(two, loaded.shape)[i] for i in (0, 2)}
    both = Intervention.adding(sums, "last", kind)
    with applied(loaded, one), applied(loaded, two):
        nested = generated(loaded, PROMPTS)
    with applied(loaded, both):
        at_once = generated(loaded, PROMPTS)
    assert nested[0] == at_once[0]
    torch.testing.assert_close(nested[1], at_once[1], atol=1e-4, rtol=1e-4)
    assert untouched(loaded)


@torch.no_grad()
def test_displacements_of_different_kinds_nest(loaded: LoadedModel) -> None:
    ids = torch.tensor([PROMPTS[2]])
    each = [random_intervention(loaded, "last", kind=kind) for kind in KINDS]
    first = len(PROMPTS[2]) - 1
    with ExitStack() as contexts:
        for iv in each:
            contexts.enter_context(added_to_outputs(loaded, iv, first))
        expected = loaded.model(ids).logits
    with applied(loaded, each[0]), applied(loaded, each[1]), applied(loaded, each[2]):
        found = loaded.model(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert untouched(loaded)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["layer", "mlp"])
def test_parts_that_put_out_tuples_are_steered_like_those_with_a_tensor(kind: ModuleKind) -> None:
    loaded = tiny_loaded()
    ids = torch.tensor([PROMPTS[2]])
    iv = random_intervention(loaded, "last", kind=kind)
    with applied(loaded, iv):
        expected = loaded.model(ids).logits
    for block in loaded.model.model.layers:
        puts_out_tuples(block if kind == "layer" else block.mlp)
    with applied(loaded, iv):
        torch.testing.assert_close(loaded.model(ids).logits, expected)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_whose_weights_are_elsewhere_until_needed_is_steered_the_same(
    kind: ModuleKind, scope: TokenScope
) -> None:
    accelerate = pytest.importorskip("accelerate", reason="comes with the extra 'large'")
    loaded = tiny_loaded()
    loaded.model.generation_config.eos_token_id = None
    iv = random_intervention(loaded, scope, kind=kind)
    with applied(loaded, iv):
        expected = generated(loaded, PROMPTS)
    accelerate.cpu_offload(loaded.model, execution_device=torch.device("cpu"))
    assert next(loaded.model.parameters()).is_meta
    with applied(loaded, iv):
        tokens, logits = generated(loaded, PROMPTS)
    assert tokens == expected[0]
    torch.testing.assert_close(logits, expected[1], atol=1e-4, rtol=1e-4)


def test_a_plain_model_is_steered_like_a_loaded_one(loaded: LoadedModel) -> None:
    iv = random_intervention(loaded, "generated")
    with applied(loaded.model, iv):
        plain = generated(loaded, PROMPTS)[0]
    with applied(loaded, iv):
        assert generated(loaded, PROMPTS)[0] == plain


@pytest.mark.parametrize(
    ("displacement", "kind", "message"),
    [
        ({3: torch.ones(96)}, "head", "steers layer 3, but the model has layers 0 to 2"),
        (
            {0: torch.ones(64)},
            "head",
            r"shape \[64\] for an o_proj input of \[96\] \(8 heads of 12\)",
        ),
        ({0: torch.full((96,), float("nan"))}, "head", "NaN or infinity"),
        ({-1: torch.ones(32)}, "layer", "steers layer -1, but the model has layers 0 to 2"),
        (
            {0: torch.ones(96)},
            "layer",
            r"shape \[96\] for the output of a decoder layer of \[32\];",
        ),
        ({0: torch.ones(1, 32)}, "mlp", r"shape \[1, 32\] for the output of an MLP of \[32\];"),
        ({0: torch.full((32,), float("inf"))}, "mlp", "NaN or infinity"),
    ],
)
def test_displacements_that_do_not_fit_are_refused(
    displacement: dict[int, Tensor], kind: ModuleKind, message: str
) -> None:
    with (
        pytest.raises(UserInputError, match=message),
        applied(tiny_loaded(), Intervention.adding(displacement, "all", kind)),
    ):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_models_are_steered_in_their_own_type(kind: ModuleKind) -> None:
    loaded = prepare(tiny_llama().to(torch.bfloat16), tiny_tokenizer())
    with torch.no_grad(), applied(loaded, random_intervention(loaded, "last", kind=kind)):
        assert loaded.model(torch.tensor([PROMPTS[0]])).logits.dtype == torch.bfloat16
