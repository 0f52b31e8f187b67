"""Prompts in a chat template, over kinds of tokenizers and of templates."""

from dataclasses import replace
from functools import cache
from typing import Any, cast

import pytest
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.models.chat import ChatFormat
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.reading.activations import activations_at_last_token, check_vocabulary
from real_tasks.reading.batches import encode
from real_tasks.reading.prompts import answered_text, prompt_text, reading_text
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, BehaviourData, Question

SPECIAL = ("<unk>", "<s>", "</s>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>")
SENTENCES = (
    "Is it so that glass can be seen from the Moon ?",
    "No , glass cannot . Yes , it can be seen .",
    "What is it that bulls see ? Be brief and say so .",
    "[INST] [/INST] user assistant system : \n\n ANSWER",
)
BEFORE_TEXT: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "bos": ("<s>",),
    "prefix without bos": ("[gMASK]", "<sop>"),
}
CUTS = ("bytes", "blank first", "blank always", "blank prepended", "words")
TEMPLATES = {
    "writes bos, lines": (
        "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "writes a prefix": (
        "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "brackets": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
        "[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }} {{ eos_token }}"
        "{% endif %}{% endfor %}"
    ),
    "writes no special token": (
        "{% for m in messages %}{{ m['role'] }} : {{ m['content'] | trim }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}assistant :{% endif %}"
    ),
    "wants parts": (
        "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{% for part in m['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "an empty thinking block": (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>\n\n</think>\n\n{% endif %}"
    ),
}
ANSWERS = (Answer("a", "No , glass cannot .", 1, is_best=True), Answer("b", "Yes .", 0))
DATA = BehaviourData(
    "any", (Question("q", "Is it so that glass can be seen from the Moon ?", "any", ANSWERS),)
)


def tokenizer_of(cuts: str, before: str, ends: bool = False) -> PreTrainedTokenizerFast:
    if cuts == "words":
        words = dict.fromkeys((*SPECIAL, *" ".join(SENTENCES).split()))
        made = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        in_bytes = cuts == "bytes"
        made = Tokenizer(BPE(unk_token=None if in_bytes else "<unk>", fuse_unk=True))
        if in_bytes:
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        elif cuts == "blank prepended":
            made.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        else:
            made.pre_tokenizer = pre_tokenizers.Metaspace(
                prepend_scheme=cast(Any, cuts.split()[1]), split=False
            )
        alphabet = pre_tokenizers.ByteLevel.alphabet() if in_bytes else [*"\n:<>/think"]
        trainer = BpeTrainer(
            vocab_size=400,
            special_tokens=list(SPECIAL),
            initial_alphabet=alphabet,
            show_progress=False,
        )
        made.train_from_iterator(SENTENCES, trainer)
    made.add_special_tokens(list(SPECIAL))
    tokens = BEFORE_TEXT[before]
    known = [(token, made.token_to_id(token)) for token in (*tokens, "</s>")]
    single = " ".join([*tokens, "$A", *(["</s>"] if ends else [])])
    made.post_processor = TemplateProcessing(single=single, special_tokens=known)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@cache
def tiny_model(n_tokens: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=n_tokens,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config)


def loaded_with(tokenizer: PreTrainedTokenizerFast, template: str, chat: ChatFormat) -> LoadedModel:
    tokenizer.chat_template = template
    return replace(prepare(tiny_model(len(tokenizer)), tokenizer), chat=chat)


def own_tokens(loaded: LoadedModel, template: str) -> list[int]:
    """The tokenizer's own cut, tokens and all."""
    assert loaded.chat is not None
    messages: list[Any] = [
        dict(message) for message in loaded.chat.messages(DATA.questions[0].text)
    ]
    if template == "wants parts":
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    own = loaded.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
    return list(cast(Any, own)["input_ids"])


@pytest.mark.parametrize("system", ["", "Be brief ."])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("before", BEFORE_TEXT)
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_s_tokens_are_those_of_the_tokenizer_s_own_template(
    cuts: str, before: str, template: str, ends: bool, system: str
) -> None:
    loaded = loaded_with(tokenizer_of(cuts, before, ends), TEMPLATES[template], ChatFormat(system))
    (found,) = encode(loaded, [prompt_text(loaded, DATA, DATA.questions[0])])
    assert found == own_tokens(loaded, template)


@torch.no_grad()
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_answers_after_a_chat_prompt_have_the_log_probability_of_a_plain_loop(
    cuts: str, template: str
) -> None:
    loaded = loaded_with(tokenizer_of(cuts, "bos"), TEMPLATES[template], ChatFormat())
    (question,) = DATA.questions
    (found,) = score_choices(loaded, encode_choices(loaded, DATA, [0], 1000), None)
    prompt = own_tokens(loaded, template)
    blank = " " if template in ("brackets", "writes no special token") else ""
    text = str(prompt_text(loaded, DATA, question))
    wholes: list[list[int]] = [
        cast(Any, loaded.tokenizer)(f"{text}{blank}{a.text}", add_special_tokens=False)["input_ids"]
        for a in ANSWERS
    ]
    split = len(prompt)
    while any(whole[:split] != prompt[:split] for whole in wholes):
        split -= 1
    assert len(prompt) - split <= 2
    for whole, score in zip(wholes, found, strict=True):
        log_probs = loaded.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        places = range(split, len(whole))
        expected = sum(float(log_probs[place - 1, whole[place]]) for place in places)
        assert score == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("cuts", CUTS)
def test_activations_are_read_at_the_last_token_of_the_answer_in_the_template(cuts: str) -> None:
    loaded = loaded_with(
        tokenizer_of(cuts, "prefix without bos", ends=True),
        TEMPLATES["writes a prefix"],
        ChatFormat("Be brief ."),
    )
    text = reading_text(loaded, DATA, DATA.questions[0], ANSWERS[0])
    ids = cast(Any, loaded.tokenizer)(str(text), add_special_tokens=False)["input_ids"]
    found = activations_at_last_token(loaded, [text], 1000, "layer")[0, 0, 0]
    expected = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0, -1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("before", ["nothing", "bos"])
@pytest.mark.parametrize("template", ["writes bos, lines", "brackets"])
def test_an_unknown_token_that_begins_sequences_too_is_no_unknown_word(
    before: str, template: str
) -> None:
    tokenizer = tokenizer_of("words", before)
    tokenizer.backend_tokenizer.model = WordLevel(
        tokenizer.backend_tokenizer.get_vocab(), unk_token="<s>"
    )
    tokenizer.unk_token = tokenizer.eos_token = "<s>"
    loaded = loaded_with(tokenizer, TEMPLATES[template], ChatFormat())
    asked = [answered_text(loaded, DATA, DATA.questions[0], answer) for answer in ANSWERS]
    check_vocabulary(loaded, asked)
    plain = replace(loaded, chat=None)
    texts = [SENTENCES[0]]
    check_vocabulary(plain, texts)
    with pytest.raises(UserInputError, match=r"1 of 2 texts hold words .*: 'cheese';"):
        check_vocabulary(plain, [*texts, "Is it cheese ?"])
