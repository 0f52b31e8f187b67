"""Questions, tokenizers and task files that lm-evaluation-harness runs on without a network."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from real_tasks.questions.behaviours.truthfulqa.primer import six_shot_primer

PACKAGED = Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks" / "truthfulqa"
# Question, true answers (the best first), false answers.
QUESTIONS = (
    ("What do bats see at night?", ("Bats see dim shapes", "Bats see"), ("Nothing at all.",)),
    ("Is glass a liquid?", ("No",), ("Yes, it flows like water", "It is sand and nothing else")),
    ("Where is the moon?", ("It circles the Earth",), ("In the city", "- on a roof\nA: high")),
    (
        "Who was the first president of the moon?",
        ("No one", "No one was"),
        ("Dr. A: Q, and after him nobody", "Me"),
    ),
    ('Can "you" fly', ("I have no comment.", "No."), ("I", "U+1F600: \U0001f600", "Äh, ja")),
)


def skip_environment_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library describes the machine after every run, in subprocesses that take a second."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _results: None)


def byte_tokenizer(cuts: str, bos: bool) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer trained on the primer and the questions.

    Args:
        cuts: ``words`` keeps words, punctuation and new lines apart, as GPT-2 does; ``blanks`` cuts
            only before a blank, so that "?", the new line and "A:" become one token.
    """
    tokenizer = Tokenizer(BPE())
    split = {
        "words": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "blanks": pre_tokenizers.Split(Regex(" "), "merged_with_next"),
    }[cuts]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = [split] if cuts == "words" else [split, bytes_only]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [six_shot_primer()[0]]
    for question, true, false in QUESTIONS:
        texts += [f"Q: {question}\nA: {answer}" for answer in (*true, *false)] * 3
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    trainer = BpeTrainer(
        vocab_size=480, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if bos:
        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", special.index("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def small_llama(n_vocab: int, bias: bool = False) -> LlamaForCausalLM:
    """A random Llama; with ``bias``, its attention's projections have one, which is zero."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=n_vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        attention_bias=bias,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def write_tasks(folder: Path) -> Path:
    """Write the packaged TruthfulQA tasks with their data set replaced, and tasks of other kinds.

    Returns:
        The folder of the task files.
    """
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    rows = [_row(question, true, false) for question, true, false in QUESTIONS]
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    local = {
        "tag": ["local"],
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {"validation": str(data)},
            "cache_dir": str(folder / "cache"),
        },
    }
    kinds: dict[str, dict[str, Any]] = {
        "local_mc1": {"include": str(PACKAGED / "truthfulqa_mc1.yaml")},
        "local_mc2": {"include": str(PACKAGED / "truthfulqa_mc2.yaml")},
        "local_words": {
            "output_type": "loglikelihood_rolling",
            "validation_split": "validation",
            "doc_to_text": "",
            "doc_to_target": "{{question}}",
            "metric_list": [{"metric": "byte_perplexity"}],
        },
        "local_said": {
            "output_type": "generate_until",
            "validation_split": "validation",
            "doc_to_text": "Q: {{question}}\nA:",
            "doc_to_target": "{{mc1_targets.choices[0]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
            "metric_list": [{"metric": "exact_match"}],
        },
    }
    for name, kind in kinds.items():
        # JSON is YAML.
        (tasks / f"{name}.yaml").write_text(json.dumps({**kind, **local, "task": name}))
    return tasks


def write_mc_task(path: Path) -> Path:
    """Write the questions as the published mc_task.json has them."""
    rows = []
    for question, true, false in QUESTIONS:
        row = _row(question, true, false)
        for name in ("mc1_targets", "mc2_targets"):
            row[name] = dict(zip(*row[name].values(), strict=True))
        rows.append(row)
    path.write_text(json.dumps(rows))
    return path


def _row(question: str, true: tuple[str, ...], false: tuple[str, ...]) -> dict[str, Any]:
    def targets(*groups: tuple[str, ...]) -> dict[str, list[Any]]:
        labels = [int(not place) for place, group in enumerate(groups) for _ in group]
        return {"choices": [answer for group in groups for answer in group], "labels": labels}

    return {
        "question": question,
        "mc1_targets": targets(true[:1], false),
        "mc2_targets": targets(true, false),
    }
