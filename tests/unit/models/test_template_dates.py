"""Chat templates that write today's date: the day is named, so that prompts never change unseen."""

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from real_tasks.experiment.prepared import prepare
from real_tasks.experiment.transfer import prepare_transfer
from real_tasks.experiment.yaml_files import load_config
from real_tasks.models.chat import ChatFormat
from real_tasks.models.loading import LoadedModel, load_model
from real_tasks.reading.batches import encode
from real_tasks.reading.prompts import prompt_text
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.experiment_config import TransferConfig
from tests.unit.tiny_models import WORDS, random_data, tiny_llama, tiny_tokenizer

SAID = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
# As the templates of Llama 3.1, and those of Mistral and gpt-oss, write it.
IF_NOT_GIVEN = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }} " + SAID
)
ALWAYS = "{%- set today = strftime_now('%Y-%m-%d') %}Current date: {{ today }} " + SAID
NEVER = SAID
DAY = date(2023, 4, 5)
DATED = tuple(
    dict.fromkeys(
        word
        for day in (DAY, date.today(), date(2020, 1, 1))
        for word in f"Today Date: Current date: 1 {day:%d %b %Y} {day:%Y-%m-%d}".split()
    )
)
WORDS_AND_DATES = WORDS[: -len(DATED)] + DATED


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "model")
    tiny_tokenizer(words=WORDS_AND_DATES).save_pretrained(tmp_path / "model")
    rows = [
        {"question": f"w{n} ?", "aligned": ["w1"], "violating": [f"w{n + 20}"]} for n in range(12)
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "model"


def settings(checkpoint: Path, template: str, **model: Any) -> list[str]:
    (checkpoint / "chat_template.jinja").write_text(template)
    return [
        f"model.path={checkpoint}",
        "model.chat_template=true",
        *[f"model.{name}={value}" for name, value in model.items()],
        "behaviour.name=jsonl",
        f"behaviour.params={{path: {checkpoint.parent / 'questions.jsonl'}}}",
        "evaluation.measures=[multiple_choice]",
        "localizer.params.units=2",
    ]


def loaded_on(checkpoint: Path, day: date | None) -> LoadedModel:
    options = ModelConfig(chat_template=True, template_date=day)
    return load_model(checkpoint, options, ExecutionConfig(device="cpu"))


@pytest.mark.parametrize(
    ("template", "written"), [(IF_NOT_GIVEN, "05 Apr 2023"), (ALWAYS, "2023-04-05")]
)
def test_a_prompt_has_the_tokens_of_the_tokenizer_s_own_template_on_the_named_day(
    checkpoint: Path, template: str, written: str
) -> None:
    settings(checkpoint, template)
    loaded, data = loaded_on(checkpoint, DAY), random_data(1)
    text = prompt_text(loaded, data, data.questions[0])
    tokenizer, by_hand = (
        tiny_tokenizer(words=WORDS_AND_DATES),
        re.sub(r"strftime_now\(.*?\)", f"'{written}'", template),
    )
    messages = [{"role": "user", "content": data.questions[0].text}]
    own: Any = tokenizer.apply_chat_template(
        messages, chat_template=by_hand, add_generation_prompt=True
    )
    assert f"ate: {written} " in text and encode(loaded, [text]) == [own["input_ids"]]
    assert "dated 2023-04-05" in ChatFormat(day=DAY).described()


@pytest.mark.parametrize("template", [IF_NOT_GIVEN, ALWAYS])
def test_a_run_names_the_day_on_which_it_starts_and_another_run_may_name_it_too(
    checkpoint: Path, template: str
) -> None:
    given = settings(checkpoint, template)
    assert prepare(load_config(None, given)).config.model.template_date == date.today()
    named = load_config(None, [*given, "model.template_date=2023-04-05"])
    assert prepare(named).config.model.template_date == DAY


@pytest.mark.parametrize(
    ("template", "model"),
    [(NEVER, {}), (IF_NOT_GIVEN, {"template_arguments": "{date_string: 1 Jan 2020}"})],
)
def test_prompts_without_today_s_date_have_none(
    checkpoint: Path, template: str, model: dict[str, str]
) -> None:
    config = load_config(None, settings(checkpoint, template, **model))
    assert prepare(config).config.model.template_date is None


def test_a_transfer_names_one_day_for_all_its_behaviours(checkpoint: Path) -> None:
    experiment = load_config(None, settings(checkpoint, ALWAYS))
    other = experiment.behaviour.model_copy(
        update={"params": {**experiment.behaviour.params, "name": "other"}}
    )
    transfer = TransferConfig(behaviours=(experiment.behaviour, other), experiment=experiment)
    config, sources = prepare_transfer(transfer)
    days = {one.model.template_date for one in (config.experiment, *(s.config for s in sources))}
    assert days == {date.today()}
