"""Exports as llama.cpp itself computes them, where its Python bindings are installed."""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from torch import Tensor
from transformers import AutoModelForCausalLM

from real_tasks.export.control_vector import save_control_vector
from real_tasks.export.targets import can
from real_tasks.models.families import configured_shape
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.types import ModuleId
from tests.unit.export.test_control_vector import push
from tests.unit.export.test_export_operators import IDS, bake_tiny, edit_of, logits_of
from tests.unit.tiny_gguf import write_gguf
from tests.unit.tiny_models import tiny_family

llama_cpp: Any = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed (it compiles for minutes)"
)


def by_llama_cpp(file: Path, vectors: Mapping[int, np.ndarray] | None = None) -> Tensor:
    """The logits for `IDS`, with vectors added by block as its programs add those of a file."""
    plain = llama_cpp.GGML_TYPE_F32  # half the digits are kept of keys and values otherwise
    model = llama_cpp.Llama(
        str(file), n_ctx=64, logits_all=True, type_k=plain, type_v=plain, n_threads=1, verbose=False
    )
    if vectors is not None:
        width, last = model.n_embd(), max(vectors)
        data = np.zeros((last, width), np.float32)  # of the blocks from 1 on
        for block, vector in vectors.items():
            data[block - 1] = vector
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        assert not llama_cpp.llama_set_adapter_cvec(model.ctx, pointer, data.size, width, 1, last)
    found = []
    for row in IDS.tolist():
        model.reset()
        model.eval(row)
        found.append(torch.tensor(np.array(model.scores[: len(row)])))
    return torch.stack(found)


def test_a_baked_checkpoint_says_the_same_in_llama_cpp(tmp_path: Path) -> None:
    model = tiny_family("llama", attention_bias=False, head_dim=8)
    shape = configured_shape(model.config)
    heads = (ModuleId("head", 1, 2), ModuleId("head", 1, 0))
    edits = (
        edit_of("add", shape, *heads),
        edit_of("rank_one", shape, *heads),
        edit_of("clamp", shape, ModuleId("mlp", 1)),
        edit_of("add", shape, ModuleId("layer", 2)),
    )
    assert can(Intervention(edits), "gguf", "llama").verdict == "exactly"
    bake_tiny(model, edits, tmp_path / "baked")
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    found = by_llama_cpp(write_gguf(tmp_path / "baked.gguf", baked))
    expected, plain = logits_of(model, Intervention(edits)), logits_of(model)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (expected - plain).abs().max() > 0.1


def test_a_control_vector_does_in_llama_cpp_what_hooks_do(tmp_path: Path) -> None:
    model = tiny_family("llama", attention_bias=False, head_dim=8)
    pushed = Intervention((push("layer", 1, 2), push("residual_in", 2, seed=1)), 2.0)
    shape = configured_shape(model.config)
    save_control_vector(pushed, shape, "llama", tmp_path / "vector.gguf")
    tensors = GGUFReader(tmp_path / "vector.gguf").tensors
    vectors = {int(one.name.removeprefix("direction.")): one.data for one in tensors}
    file = write_gguf(tmp_path / "model.gguf", model)
    expected, plain = logits_of(model, pushed), logits_of(model)
    torch.testing.assert_close(by_llama_cpp(file), plain, atol=1e-3, rtol=0)
    torch.testing.assert_close(by_llama_cpp(file, vectors), expected, atol=1e-3, rtol=0)
    assert (expected - plain).abs().max() > 0.1
