"""Every kind of broken checkpoint: one clear error, before any stage runs or a weight is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from real_tasks.experiment.prepared import prepare
from real_tasks.experiment.yaml_files import load_config
from real_tasks.models.loading import load_model
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import SPECIAL, WORDS, tiny_llama, tiny_tokenizer

Break = Callable[[Path], object]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def written(name: str, content: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content)


def configured(**changes: Any) -> Break:
    def change(folder: Path) -> None:
        given = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(given | changes))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / WEIGHTS)

    return rewrite


def sharded(*files: str, **changes: Any) -> Break:
    """Two shards and their list; ``changes`` are made to the list."""

    def split(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = sorted(tensors)
        parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
        for file, mine in parts.items():
            save_file({name: tensors[name] for name in mine}, folder / file)
        given = {
            "metadata": {},
            "weight_map": {name: file for file, mine in parts.items() for name in mine},
        }
        (folder / INDEX).write_text(json.dumps(given | changes))

    return split


def all_of(*breaks: Break) -> Break:
    return lambda folder: [each(folder) for each in breaks]


def cut_off(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def both_shards_hold_one(folder: Path) -> None:
    one, other = load_file(folder / "a.safetensors"), load_file(folder / "b.safetensors")
    name = next(iter(one))
    save_file(other | {name: one[name]}, folder / "b.safetensors")


def doubled_shard(folder: Path) -> None:
    save_file(load_file(folder / "a.safetensors"), folder / WEIGHTS)


def renamed(tensors: dict[str, torch.Tensor], prefix: str) -> None:
    for name in list(tensors):
        tensors[prefix + name] = tensors.pop(name)


def longer_tokenizer(folder: Path) -> None:
    tiny_tokenizer(words=(*WORDS, "more", "words")).save_pretrained(folder)


O_BIAS, LAYER = "model.layers.1.self_attn.o_proj.bias", "model.layers.2."
BROKEN: dict[str, tuple[Break, str]] = {
    "a bias of o_proj without a place": (
        weights(lambda t: t.update({O_BIAS: torch.ones(32)})),
        rf"holds {O_BIAS}, for which its config\.json has no place.*attention_bias",
    ),
    "a configuration of fewer layers": (
        configured(num_hidden_layers=2),
        r"holds model\.layers\.2\..* and 6 more, for which .*num_hidden_layers",
    ),
    "a configuration of more layers": (
        configured(num_hidden_layers=4),
        r"lacks model\.layers\.3\..* and 6 more",
    ),
    "a billion layers": (configured(num_hidden_layers=10**9), "more than 10000"),
    "more layers than tensors": (configured(num_hidden_layers=9999), "tensors in all"),
    "no language-model head": (
        weights(lambda t: t.pop("lm_head.weight")),
        "lacks lm_head",
    ),
    "a prefix of another framework": (
        weights(lambda t: renamed(t, "module.")),
        r"lacks .*holds module\.lm_head",
    ),
    "a weight of another shape": (
        weights(lambda t: t.update({"model.norm.weight": torch.ones(31)})),
        r"does not fit its config\.json: model\.norm\.weight has the shape \(31,\).* \(32,\)",
    ),
    "weights of integers": (
        weights(lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)})),
        r"model\.norm\.weight are of the type I8",
    ),
    "a git-lfs pointer as weights": (written(WEIGHTS, POINTER), "git-lfs pointer.*`git lfs pull`"),
    "a git-lfs pointer as a shard": (
        all_of(sharded(), written("b.safetensors", POINTER)),
        r"b\.safetensors is a git-lfs pointer",
    ),
    "a git-lfs pointer with line ends of Windows": (
        written(WEIGHTS, POINTER.replace(b"\n", b"\r\n")),
        "git-lfs pointer",
    ),
    "a git-lfs pointer as merges": (written("merges.txt", POINTER), "git-lfs pointer"),
    "a git-lfs pointer as the tokenizer": (
        written("tokenizer.json", POINTER),
        r"tokenizer\.json is a git-lfs pointer",
    ),
    "a git-lfs pointer as tokenizer.model": (
        written("tokenizer.model", POINTER),
        r"tokenizer\.model is a git-lfs pointer",
    ),
    "a git-lfs pointer as the configuration": (
        written("config.json", POINTER),
        r"config\.json is a git-lfs pointer",
    ),
    "weights cut off": (cut_off, "damaged or cut off"),
    "empty weights": (written(WEIGHTS, b""), r"model\.safetensors is empty"),
    "a web page as weights": (written(WEIGHTS, b"<!doctype html><html>"), r"web page \(HTML\)"),
    "pickled weights under the other name": (written(WEIGHTS, b"PK\x03\x04abcdefgh"), "pickled"),
    "a list of shards that is a list": (all_of(sharded(), written(INDEX, b"[]")), "holds a list"),
    "a binary list of shards": (all_of(sharded(), written(INDEX, b"\x80\xff")), "cannot be read"),
    "shards in a list": (sharded(weight_map=["a.safetensors"]), "expected under weight_map"),
    "no shards": (sharded(weight_map={}), "expected under weight_map"),
    "shards that are numbers": (sharded(weight_map={"a": 1}), "expected under weight_map"),
    "shards of another folder": (
        sharded(weight_map={"a": "../a.safetensors"}),
        "expected under weight_map",
    ),
    "a list of shards without its facts": (sharded(metadata=None), "expected .* metadata"),
    "a shard that is not there": (
        sharded(weight_map={"a": "c.safetensors"}),
        r"missing: c\.safetensors",
    ),
    "a weight in another shard than is said": (
        sharded(weight_map={"lm_head.weight": "b.safetensors", "x": "a.safetensors"}),
        r"says that b\.safetensors holds the weight lm_head\.weight",
    ),
    "a weight in two shards": (
        all_of(sharded(), both_shards_hold_one),
        r"is in a\.safetensors and in b\.safetensors",
    ),
    "weights twice": (all_of(sharded(), doubled_shard), "holds weights twice"),
    "a configuration that is a list": (written("config.json", b"[1]"), "holds a list"),
    "a configuration that is null": (written("config.json", b"null"), "holds a NoneType"),
    "a binary configuration": (written("config.json", b"\xff\xfe\x00"), "cannot be read"),
    "an empty configuration": (written("config.json", b""), "is empty"),
    "a deeply nested configuration": (
        written("config.json", b'{"a":' * 99999),
        "cannot be read",
    ),
    "NaN in the configuration": (configured(rms_norm_eps=float("nan")), "NaN where a number"),
    "no heads": (configured(num_attention_heads=0), "cannot be read|num_attention_heads=0"),
    "null heads": (configured(num_attention_heads=None), "num_attention_heads"),
    "negative heads": (configured(num_attention_heads=-8), "num_attention_heads=-8"),
    "a head_dim of zero": (configured(head_dim=0), "head_dim=0"),
    "a head_dim of text": (configured(head_dim="12"), "head_dim"),
    "no vocabulary": (configured(vocab_size=0), "vocab_size=0"),
    "a null vocabulary": (configured(vocab_size=None), "vocab_size"),
    "a vocabulary beyond memory": (configured(vocab_size=10**18), "can be set up"),
    "no hidden size": (configured(hidden_size=0), "hidden_size=0"),
    "heads that do not divide": (configured(head_dim=None, hidden_size=33), "not a multiple"),
    "key heads that do not divide": (configured(num_key_value_heads=3), "no multiple"),
    "no layers": (configured(num_hidden_layers=0), "num_hidden_layers=0"),
    "layers in fractions": (configured(num_hidden_layers=2.5), "num_hidden_layers"),
    "no positions": (configured(max_position_embeddings=0), "max_position_embeddings=0"),
    "an unknown rope": (
        configured(rope_parameters={"rope_type": "nonsense", "rope_theta": 1e4}),
        "nonsense",
    ),
    "rope's theta in words": (
        configured(rope_parameters={"rope_type": "default", "rope_theta": "abc"}),
        "rope_theta='abc'",
    ),
    "rope's theta zero": (
        configured(rope_parameters={"rope_type": "default", "rope_theta": 0}),
        "rope_theta=0",
    ),
    "a negative factor of rope": (
        configured(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": -2.0}),
        r"factor=-2\.0",
    ),
    "rope that is a list": (configured(rope_parameters=[1]), "rope_parameters"),
    "an unknown activation": (configured(hidden_act="nonsense"), "can be set up.*nonsense"),
    "an unknown architecture": (configured(model_type="llama9"), "llama9"),
    "an architecture that is a number": (configured(model_type=3), "cannot be read"),
    "an unknown quantisation": (
        configured(quantization_config={"quant_method": "zzz"}),
        "quantised in a way that is unknown here.*zzz",
    ),
    "quantisation that is no mapping": (configured(quantization_config=4), "unknown here"),
    "a known quantisation": (
        configured(quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantised by gptq.*before it was quantised",
    ),
    "weights under another name": (
        configured(transformers_weights="other.safetensors"),
        "only model.safetensors",
    ),
    "a tokenizer that is a list": (written("tokenizer.json", b"[]"), "holds a list"),
    "a tokenizer that is no tokenizer": (
        written("tokenizer.json", b"{}"),
        "cannot be read",
    ),
    "a tokenizer's settings as a list": (written("tokenizer_config.json", b"[]"), "holds a list"),
    "a tokenizer beyond the embeddings": (
        longer_tokenizer,
        "2 tokens beyond .* 68 .*'more'",
    ),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_one_error_before_anything_is_made(
    kind: str, checkpoint: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("weights were read")

    damage, said = BROKEN[kind]
    damage(checkpoint)
    monkeypatch.setattr("real_tasks.models.loading.read_weights", never)
    config = load_config(None, [f"model.path={checkpoint}", "baselines=[]"])
    with pytest.raises(UserInputError, match=said) as failed:
        prepare(config)
    assert len(str(failed.value)) < 2000
    assert not home.exists()


@pytest.mark.parametrize(
    "kind",
    ["a bias of o_proj without a place", "a configuration of fewer layers"]
    + [kind for kind in BROKEN if kind.startswith("a git-lfs pointer")],
)
def test_loading_alone_finds_it_too(kind: str, checkpoint: Path) -> None:
    damage, said = BROKEN[kind]
    damage(checkpoint)
    with pytest.raises(UserInputError, match=said):
        load_model(checkpoint, execution=ExecutionConfig(device="cpu"))


def test_good_shards_are_read_as_the_whole(checkpoint: Path) -> None:
    cpu, ids = ExecutionConfig(device="cpu"), torch.tensor([[1, 9, len(SPECIAL)]])
    expected = load_model(checkpoint, execution=cpu).model(ids).logits
    sharded()(checkpoint)
    torch.testing.assert_close(load_model(checkpoint, execution=cpu).model(ids).logits, expected)
