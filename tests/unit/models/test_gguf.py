import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Quantised
from safetensors.torch import load_file
from transformers import PreTrainedModel

from real_tasks.models.checking import check_model, checkpoint_config
from real_tasks.models.families import configured_shape
from real_tasks.models.gguf import conversion
from real_tasks.models.gguf.conversion import convert, described
from real_tasks.models.gguf.files import gguf_file
from real_tasks.models.hub import local_checkpoint
from real_tasks.models.loading import load_model
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_gguf import TEMPLATE, TOKENS, tensors_of, write_gguf
from tests.unit.tiny_models import tiny_family

IDS = torch.tensor([[1, 9, 12, 30, 5, 41, 22, 8, 17, 60, 33, 10]])
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": False, "rope_theta": 5e4},
    "qwen2": {"use_sliding_window": False, "sliding_window": None},
    "qwen3": {},
    "gpt2": {"n_positions": 96},
    "starcoder2": {"rope_theta": 1e6},
    "stablelm": {"qk_layernorm": False, "partial_rotary_factor": 0.5, "use_qkv_bias": True},
    "phi3": {},
    "gemma2": {"tie_word_embeddings": True},
    "gemma3_text": {
        "tie_word_embeddings": True,
        "final_logit_softcapping": None,
        "layer_types": ["sliding_attention"] * 3,
    },
}
WHOLE_BLOCKS = {"head_dim": 16, "intermediate_size": 64}
"""Rows of 32 numbers or a multiple, as quantisation asks for."""


@pytest.fixture(autouse=True)
def at_home(home: Path) -> None:
    home.mkdir()


def tiny(name: str = "llama", **changes: Any) -> PreTrainedModel:
    return tiny_family(name, **(FAMILIES[name] | changes))


def converted(file: Path) -> Path:
    out = file.parent / f"{file.stem}-converted"
    out.mkdir()
    convert(file, out)
    return out


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_says_the_same_from_its_gguf_file(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    file = write_gguf(tmp_path / "tiny.gguf", model)
    loaded = load_model(converted(file))
    torch.testing.assert_close(logits(loaded.model), logits(model), rtol=0, atol=1e-6)
    shape, texts = check_model(ModelConfig(path=str(file)))
    assert shape == loaded.shape
    assert texts is not None and texts.tokenizer("ab?")["input_ids"][0] == 1


@pytest.mark.parametrize("kind", [Quantised.F16, Quantised.Q8_0, Quantised.Q4_1])
def test_quantised_weights_are_what_their_blocks_say(kind: Quantised, tmp_path: Path) -> None:
    model = tiny(tie_word_embeddings=True, **WHOLE_BLOCKS)
    found = load_file(
        converted(write_gguf(tmp_path / "tiny.gguf", model, kind)) / "model.safetensors"
    )
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    stored = tensors_of(model, "llama")
    for ours, theirs in {
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
        "blk.2.attn_v.weight": "model.layers.2.self_attn.v_proj.weight",
        "token_embd.weight": "model.embed_tokens.weight",
    }.items():
        expected = gguf.dequantize(gguf.quantize(stored[ours], kind), kind)
        assert np.array_equal(found[theirs].numpy(), expected)
        assert not np.array_equal(expected, stored[ours])
    # Rows of queries are moved, whole, within their head.
    rows = gguf.dequantize(gguf.quantize(stored["blk.0.attn_q.weight"], kind), kind)[:16]
    assert np.array_equal(
        found["model.layers.0.self_attn.q_proj.weight"][:16].numpy(), [*rows[::2], *rows[1::2]]
    )


def test_llama_3_scaling_of_positions_is_known_by_its_factors(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 5e5,
    }
    model = tiny(rope_parameters=scaling)
    plain = tiny(rope_theta=5e5)
    unscaled = plain.model.rotary_emb.inv_freq  # type: ignore[union-attr]
    factors = (unscaled / model.model.rotary_emb.inv_freq).numpy()  # type: ignore[union-attr]
    assert 1 < sorted(factors)[-2] <= 8
    file = write_gguf(tmp_path / "tiny.gguf", model, weights={"rope_freqs.weight": factors})
    loaded = load_model(converted(file))
    assert loaded.model.config.rope_parameters == scaling
    torch.testing.assert_close(logits(loaded.model), logits(model), rtol=0, atol=1e-6)
    factors[0] = 3
    other = write_gguf(tmp_path / "other.gguf", model, weights={"rope_freqs.weight": factors})
    with pytest.raises(UserInputError, match="otherwise than Llama 3"):
        described(other)


def test_other_scaling_of_positions_is_kept(tmp_path: Path) -> None:
    model = tiny(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4})

    def scaled(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    file = write_gguf(tmp_path / "tiny.gguf", model, change=scaled)
    torch.testing.assert_close(
        logits(load_model(converted(file)).model), logits(model), rtol=0, atol=1e-6
    )
    longrope = write_gguf(
        tmp_path / "long.gguf",
        model,
        change=lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE),
    )
    with pytest.raises(UserInputError, match="scales positions as 'longrope'"):
        described(longrope)


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ({"add_bos_token": True}, [1]),
        ({"add_bos_token": False}, []),
        ({"add_bos_token": None}, []),
        ({"add_bos_token": None, "pre": "llama-bpe"}, [1]),
    ],
)
def test_texts_begin_as_the_file_says(
    told: dict[str, Any], first: list[int], tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny(), tokenizer=told)
    tokenizer = load_model(converted(file)).tokenizer
    # Merged by the file's two rules: "abc", then "b" alone.
    assert tokenizer("abcb")["input_ids"] == [*first, TOKENS.index("abc"), TOKENS.index("b")]
    assert tokenizer.chat_template == TEMPLATE


def test_digits_are_cut_apart_where_the_vocabulary_was_made_so(tmp_path: Path) -> None:
    spelled = [*TOKENS[:-1], "12"]
    expected = {"gpt-2": [67], "smollm": [spelled.index("1"), spelled.index("2")]}
    for pre, ids in expected.items():
        told = {"merges": ["1 2"], "pre": pre, "tokens": spelled, "token_type": [1] * 68}
        file = write_gguf(tmp_path / f"{pre}.gguf", tiny(), tokenizer=told)
        _, texts = check_model(ModelConfig(path=str(file)))
        assert texts is not None
        assert texts.tokenizer("12", add_special_tokens=False)["input_ids"] == ids


def test_a_template_without_a_system_is_refused_a_system_prompt(tmp_path: Path) -> None:
    users = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}"
    file = write_gguf(tmp_path / "tiny.gguf", tiny(), template=users + "{% endfor %}A: ")
    options = ModelConfig(path=str(file), chat_template=True)
    check_model(options)
    with pytest.raises(UserInputError, match="leaves out what the system says"):
        check_model(options.model_copy(update={"system_prompt": "Be brief."}))


def test_planning_converts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny(**WHOLE_BLOCKS), Quantised.Q8_0)
    monkeypatch.setattr(gguf, "dequantize", lambda *_: pytest.fail("dequantised"))
    monkeypatch.setattr(conversion, "_dequantised", lambda *_: pytest.fail("dequantised"))
    with pytest.MonkeyPatch.context() as header:
        header.setattr("real_tasks.models.gguf.files._check_types", lambda *_: None)
        assert configured_shape(checkpoint_config(str(file))).n_heads == 4
    monkeypatch.setattr(conversion, "_describe", lambda *_: pytest.fail("read again"))
    assert configured_shape(checkpoint_config(str(file))).d_model == 32


def test_a_folder_stands_for_its_one_gguf_file(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny())
    assert gguf_file(str(tmp_path)) == file
    shutil.copy(file, tmp_path / "other.gguf")
    with pytest.raises(UserInputError, match="several GGUF files: other.gguf, tiny.gguf; name"):
        gguf_file(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    assert gguf_file(str(tmp_path)) is None


def cut(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: cut(file, 0.9), "damaged or cut off"),
        (lambda file: cut(file, 0.02), "damaged or cut off"),
        (lambda file: file.write_bytes(b""), "is empty"),
        (lambda file: file.write_bytes(b"PK\x03\x04"), "no GGUF file"),
        (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"), "git-lfs"),
        (lambda file: file.unlink(), "there is no file"),
    ],
)
def test_what_is_no_whole_gguf_file_is_named(spoil: Any, said: str, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny())
    spoil(file)
    with pytest.raises(UserInputError, match=said):
        checkpoint_config(str(file))


def test_a_part_of_a_split_file_is_named(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny-00001-of-00003.gguf", tiny())
    for path in (file, tmp_path):
        with pytest.raises(UserInputError, match="part 1 of 3 .* --merge"):
            checkpoint_config(str(path))


def spoiled_type(file: Path, number: int) -> None:
    """Write another type of weights into the entry of the first matrix."""
    content = bytearray(file.read_bytes())
    name = b"token_embd.weight"
    place = content.index(name) + len(name) + 4 + 2 * 8
    content[place : place + 4] = number.to_bytes(4, "little")
    file.write_bytes(content)


@pytest.mark.parametrize(("number", "said"), [(9, "Q8_1"), (77, "77")])
def test_a_quantisation_that_cannot_be_read_is_named(
    number: int, said: str, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny())
    spoiled_type(file, number)
    with pytest.raises(UserInputError, match=f"quantised as .*{said}"):
        checkpoint_config(str(file))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"architecture": "mamba"}, "mamba"),
        ({"architecture": "rwkv7"}, "'rwkv7', whose GGUF files transformers cannot read"),
        ({"weights": {"blk.0.attn_q.bias": np.ones(48, np.float32)}}, "holds blk.0.attn_q.bias"),
        ({"weights": {"blk.1.ffn_up.weight": None}}, "lacks model.layers.1.mlp.up_proj.weight"),
        ({"tokenizer": {"model": "bert"}}, "tokenizer of the kind 'bert'"),
        ({"tokenizer": {"pre": "superbpe"}}, "cuts texts as 'superbpe'"),
        ({"tokenizer": {"merges": ["q q"]}}, "tokenizer in .* cannot be read"),
    ],
)
def test_a_model_that_would_be_read_wrongly_is_refused(
    written: dict[str, Any], said: str, tmp_path: Path
) -> None:
    model = tiny()
    if "architecture" in written:
        written = written | {"weights": dict.fromkeys(tensors_of(model, "llama"))}
        written["weights"] |= {"token_embd.weight": np.ones((68, 32), np.float32)}
    file = write_gguf(tmp_path / "tiny.gguf", model, **written)
    with pytest.raises(UserInputError, match=said):
        checkpoint_config(str(file))


def test_only_experiments_take_a_gguf_file(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny())
    with pytest.raises(UserInputError, match="only the model of an experiment may be"):
        local_checkpoint(str(file), None)
    with pytest.raises(UserInputError, match="only a Hugging Face id has revisions"):
        local_checkpoint(str(file), "main", config_only=True)
