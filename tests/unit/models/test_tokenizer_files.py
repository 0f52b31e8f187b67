"""Forms in which a tokenizer lies beside a checkpoint."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig

from real_tasks.models.checkpoints import check_files, missing_from, read_tokenizer
from real_tasks.vocabulary.errors import UserInputError

TEXT = "the moon is here 12"
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "moon", "is", "he", "##re", "12")


def folder_of(tmp_path: Path, architecture: str, tokenizer_class: str | None = None) -> Path:
    AutoConfig.for_model(architecture).save_pretrained(tmp_path)
    if tokenizer_class is not None:
        text = json.dumps({"tokenizer_class": tokenizer_class})
        (tmp_path / "tokenizer_config.json").write_text(text)
    return tmp_path


def declare(folder: Path, **given: Any) -> None:
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(said | given))


def ids(folder: Path, text: str = TEXT) -> list[int]:
    read = cast(Any, read_tokenizer(folder))
    return list(read(text, add_special_tokens=False)["input_ids"])


def words() -> Tokenizer:
    made = Tokenizer(WordLevel({w: i for i, w in enumerate(("?", *TEXT.split()))}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def in_bytes(digits: bool) -> Tokenizer:
    made = Tokenizer(BPE())
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alone = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([alone, cut]) if digits else cut
    trainer = BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT, "1000000 3.14159"], trainer)
    return made


def blank_first() -> Tokenizer:
    made = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.train_from_iterator([TEXT], BpeTrainer(special_tokens=["<unk>"], show_progress=False))
    return made


@pytest.mark.parametrize("declared", [None, "PreTrainedTokenizerFast", "Qwen2Tokenizer"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gemma", "starcoder2"])
@pytest.mark.parametrize("kind", ["words", "bytes", "bytes, digits alone", "blank first"])
def test_a_tokenizer_json_is_read_as_it_stands_whatever_the_architecture(
    tmp_path: Path, kind: str, architecture: str, declared: str | None
) -> None:
    made = {
        "words": words,
        "bytes": lambda: in_bytes(digits=False),
        "bytes, digits alone": lambda: in_bytes(digits=True),
        "blank first": blank_first,
    }[kind]()
    folder = folder_of(tmp_path, architecture, declared)
    made.save(str(folder / "tokenizer.json"))
    assert ids(folder) == made.encode(TEXT, add_special_tokens=False).ids


@pytest.mark.parametrize("declared", [None, "BertTokenizer"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_a_vocab_txt_alone_is_a_list_of_word_pieces(
    tmp_path: Path, architecture: str, declared: str | None
) -> None:
    folder = folder_of(tmp_path, architecture, declared)
    (folder / "vocab.txt").write_text("\n".join(PIECES))
    assert not [name for name in missing_from(folder) if "tokenizer" in name]
    assert ids(folder) == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(("architecture", "declared"), [("gpt2", None), ("llama", "GPT2Tokenizer")])
def test_a_vocabulary_with_merges_is_read_in_bytes(
    tmp_path: Path, architecture: str, declared: str | None
) -> None:
    folder, made = folder_of(tmp_path, architecture, declared), in_bytes(digits=False)
    made.model.save(str(folder))
    assert ids(folder) == made.encode(TEXT).ids


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vocab.json", "cannot be read"),
        ("tokenizer.model", "pip install sentencepiece"),
        ("spiece.model", "pip install sentencepiece"),
        ("tekken.json", "pip install mistral-common"),
    ],
)
def test_a_form_that_cannot_be_read_says_what_would_do(
    tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, "llama")
    (folder / name).write_text("{}")
    monkeypatch.setattr("real_tasks.models.tokenizer_files.find_spec", lambda _name: None)
    with pytest.raises(UserInputError, match=said):
        read_tokenizer(folder)


def test_a_class_that_reads_nothing_of_the_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, "qwen2")
    (folder / "spiece.model").write_text("{}")
    monkeypatch.setattr("real_tasks.models.tokenizer_files.find_spec", lambda _name: True)
    with pytest.raises(UserInputError, match=r"reads no word of spiece\.model .*tokenizer_class"):
        read_tokenizer(folder)


def sentencepiece_folder(tmp_path: Path, kind: str) -> Path:
    """A checkpoint whose tokenizer is a model of sentencepiece, as Llama 2's, Gemma's or T5's."""
    library: Any = pytest.importorskip("sentencepiece")
    architecture, declared, options = {
        "gemma": ("gemma", "GemmaTokenizer", {"add_dummy_prefix": False, "pad_id": 0, "eos_id": 1}),
        "llama": ("llama", "LlamaTokenizer", {}),
        "mistral": ("mistral", "LlamaTokenizer", {}),
        "no class": ("llama", None, {}),
        "unigrams": ("llama", "LlamaTokenizer", {"model_type": "unigram"}),
        "other words": ("qwen2", None, {}),
    }[kind]
    folder = folder_of(tmp_path, architecture, declared)
    declare(folder, add_bos_token=True)
    ids = {"bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>"}
    library.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT, "water is wet 3.14159"] * 50),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=290,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=3,
        **({"model_type": "bpe"} | options | (ids if kind == "gemma" else {})),
    )
    (folder / "tokenizer.vocab").unlink()
    return folder


def test_a_sentencepiece_model_alone_is_read_where_it_is_read_as_the_library_does(
    tmp_path: Path,
) -> None:
    folder = sentencepiece_folder(tmp_path, "gemma")
    library: Any = pytest.importorskip("sentencepiece")
    said = library.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in (TEXT, "  two  blanks", "東京\tnaïve", "here."):
        assert ids(folder, text) == said.encode(text)
    assert cast(Any, read_tokenizer(folder))("a")["input_ids"][0] == said.bos_id()
    (folder / "tokenizer_config.json").unlink()
    declare(folder, tokenizer_class="GemmaTokenizer")
    with pytest.raises(UserInputError, match="texts begin with <bos>: put add_bos_token"):
        read_tokenizer(folder)


@pytest.mark.parametrize("kind", ["llama", "mistral", "no class", "unigrams", "other words"])
def test_a_sentencepiece_model_that_is_cut_otherwise_than_by_the_library_is_refused(
    tmp_path: Path, kind: str
) -> None:
    folder = sentencepiece_folder(tmp_path, kind)
    with pytest.raises(
        UserInputError, match=r"otherwise than sentencepiece .*tokenizer\.json that"
    ):
        read_tokenizer(folder)


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.model", "chat_template.jinja"])
def test_a_pointer_in_the_place_of_a_file_of_text_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\n")
    with pytest.raises(UserInputError, match=f"{name} is a git-lfs pointer"):
        check_files(tmp_path)
