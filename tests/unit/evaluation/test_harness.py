import logging
import random
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch

import real_tasks.evaluation.harness.tasks as harness
from real_tasks.evaluation.harness.tasks import check_installed, check_tasks, lm_eval_results
from real_tasks.models.chat import ChatFormat
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import TokenScope
from tests.unit.harness_tasks import (
    PACKAGED,
    QUESTIONS,
    byte_tokenizer,
    skip_environment_report,
    small_llama,
    write_tasks,
)
from tests.unit.tiny_models import vectors_of

NAMES = ("local_mc2", "local_words", "local_said")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_environment_report(monkeypatch)


@cache
def manager_of_local_tasks(include_path: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path, include_defaults=False)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("local"))


@pytest.fixture
def only_local_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the thousands of tasks that the library brings takes seconds."""
    monkeypatch.setattr(harness, "_manager", manager_of_local_tasks)


def loaded_model(bias: bool = False) -> LoadedModel:
    tokenizer = byte_tokenizer("words", bos=True)
    return prepare(small_llama(len(tokenizer), bias), tokenizer)


def steering(loaded: LoadedModel, scope: TokenScope = "all") -> Intervention:
    width = loaded.shape.n_heads * loaded.shape.head_dim
    generator = torch.Generator().manual_seed(0)
    return Intervention.adding(
        {i: 2 * torch.randn(width, generator=generator) for i in (0, 1)}, scope
    )


def with_baked_bias(iv: Intervention) -> LoadedModel:
    """The same weights with the displacement, through o_proj, as o_proj's bias."""
    plain, baked = loaded_model().model, loaded_model(bias=True)
    missing, unexpected = baked.model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(name.endswith("bias") for name in missing)
    for layer, displacement in vectors_of(iv, loaded_model().shape).items():
        projection = baked.model.model.layers[layer].self_attn.o_proj
        projection.bias.copy_(projection.weight @ displacement)
    return baked


def run_directly(loaded: LoadedModel, tasks: Path) -> dict[str, float]:
    """lm-evaluation-harness by itself, on a model without any hook."""
    from lm_eval.models.huggingface import HFLM

    outcome = lm_eval.simple_evaluate(
        model=HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=3),
        tasks=list(NAMES),
        task_manager=manager_of_local_tasks(tasks),
        bootstrap_iters=0,
    )["results"]
    return {
        "lm_eval/local_mc2/acc": outcome["local_mc2"]["acc,none"],
        "lm_eval/local_words/byte_perplexity": outcome["local_words"]["byte_perplexity,none"],
        "lm_eval/local_said/exact_match": outcome["local_said"]["exact_match,none"],
    }


@pytest.mark.usefixtures("only_local_tasks")
def test_results_are_those_of_the_library_itself_steered_and_not(tasks: Path) -> None:
    loaded = loaded_model()
    unsteered = lm_eval_results(loaded, None, NAMES, include_path=tasks)
    assert unsteered == pytest.approx(run_directly(loaded, tasks), rel=1e-4)
    iv = steering(loaded)
    steered = lm_eval_results(loaded, iv, NAMES, include_path=tasks)
    assert steered == pytest.approx(run_directly(with_baked_bias(iv), tasks), rel=1e-4)
    for name in ("lm_eval/local_mc2/acc", "lm_eval/local_words/byte_perplexity"):
        assert steered[name] != pytest.approx(unsteered[name], rel=0.01)


@pytest.mark.usefixtures("only_local_tasks")
@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_prompts_whose_length_counts_are_run_one_by_one(
    tasks: Path, rope: str, caplog: pytest.LogCaptureFixture
) -> None:
    def model() -> LoadedModel:
        loaded = loaded_model()
        config = loaded.model.config
        width = loaded.shape.head_dim // 2
        own = {"rope_theta": 100.0, "rope_type": rope, "factor": 8.0}
        if rope == "longrope":
            own |= {"original_max_position_embeddings": 16, "short_factor": [1.0] * width}
            own |= {"long_factor": [3.0 + i for i in range(width)]}
        else:
            config.max_position_embeddings = 64
        config.rope_parameters = own
        changed = type(loaded.model)(config)
        changed.load_state_dict(loaded.model.state_dict())
        return prepare(changed, loaded.tokenizer)

    with caplog.at_level(logging.INFO):
        together = lm_eval_results(model(), None, NAMES, include_path=tasks, batch_size=16)
    alone = lm_eval_results(model(), None, NAMES, include_path=tasks, batch_size=1)
    assert together == pytest.approx(alone, rel=1e-6)
    if rope == "longrope":
        assert "prompts one by one" in caplog.text
        assert together != pytest.approx(
            lm_eval_results(loaded_model(), None, NAMES, include_path=tasks), rel=1e-3
        )


@pytest.mark.usefixtures("only_local_tasks")
def test_the_model_and_all_globals_are_left_as_they_were(
    tasks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    loaded = loaded_model()
    logger = logging.getLogger("lm_eval")
    before = (list(logger.handlers), logger.propagate, logger.level)
    torch.manual_seed(5)
    random.seed(5)
    expected = (torch.rand(3).tolist(), random.random())
    torch.manual_seed(5)
    random.seed(5)
    shown = not datasets.are_progress_bars_disabled()
    lm_eval_results(loaded, steering(loaded), ("local_mc2",), include_path=tasks)
    assert (torch.rand(3).tolist(), random.random()) == expected
    assert (list(logger.handlers), logger.propagate, logger.level) == before
    assert shown is not datasets.are_progress_bars_disabled()
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in loaded.model.modules())
    out = capfd.readouterr()
    assert "%|" not in out.err + out.out and "INFO" not in out.err


@pytest.mark.usefixtures("only_local_tasks")
def test_a_tag_gives_all_its_tasks_and_a_limit_counts_questions(tasks: Path) -> None:
    seen: list[int] = []
    loaded = loaded_model()
    handle = loaded.model.register_forward_pre_hook(lambda *_: seen.append(1))
    found = lm_eval_results(loaded, None, ("local",), 1, batch_size=1, include_path=tasks)
    handle.remove()
    assert {key.split("/")[1] for key in found} == {*NAMES, "local_mc1"}
    n_answers_of_first_question = 2 + 3
    assert len(seen) < n_answers_of_first_question + 2 + 8


@pytest.mark.usefixtures("only_local_tasks")
def test_a_task_file_does_as_well_as_a_name(tasks: Path) -> None:
    loaded = loaded_model()
    by_name = lm_eval_results(loaded, None, ("local_mc1",), include_path=tasks)
    by_file = lm_eval_results(loaded, None, (str(tasks / "local_mc1.yaml"),), include_path=tasks)
    assert by_name == by_file and set(by_name) == {"lm_eval/local_mc1/acc"}


@pytest.mark.usefixtures("only_local_tasks")
def test_batches_that_run_out_of_memory_are_halved_and_said(
    tasks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = loaded_model()
    expected = lm_eval_results(loaded, None, ("local_mc2",), include_path=tasks)

    def too_large(_module: object, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    handle = loaded.model.register_forward_pre_hook(too_large)
    found = lm_eval_results(loaded, None, ("local_mc2",), batch_size=8, include_path=tasks)
    handle.remove()
    assert found == pytest.approx(expected, rel=1e-4)
    assert [record.args[1] for record in caplog.records if "memory" in record.msg] == [8, 4]


@pytest.mark.usefixtures("only_local_tasks")
def test_prompts_that_the_library_cuts_are_counted(
    tasks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = loaded_model()
    loaded.model.config.max_position_embeddings = 64
    n_answers = sum(1 + len(false) for _, _, false in QUESTIONS)
    lm_eval_results(loaded, None, ("local_mc1",), include_path=tasks)
    (said,) = [record.getMessage() for record in caplog.records if "cut" in record.getMessage()]
    assert 5 < int(said.split()[-2]) <= n_answers


@pytest.mark.usefixtures("only_local_tasks")
def test_prompts_go_through_the_chat_template_where_the_model_says_so(tasks: Path) -> None:
    loaded = loaded_model()
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    plain = lm_eval_results(loaded, None, ("local_mc2",), include_path=tasks)
    chat = LoadedModel(**{**vars(loaded), "chat": ChatFormat("Be terse.")})
    assert lm_eval_results(chat, None, ("local_mc2",), include_path=tasks) != plain


@pytest.mark.usefixtures("only_local_tasks")
def test_prompts_in_a_chat_template_get_no_further_special_tokens(tasks: Path) -> None:
    loaded = loaded_model()
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<think>{% endif %}"
    )
    chat = LoadedModel(**{**vars(loaded), "chat": ChatFormat("Be terse.", thinking="closed")})
    read: list[str] = []

    def keep(_model: object, args: tuple[torch.Tensor, ...]) -> None:
        read.extend(loaded.tokenizer.decode(row) for row in args[0])

    handle = loaded.model.register_forward_pre_hook(keep)
    lm_eval_results(chat, None, ("local_mc2",), include_path=tasks)
    handle.remove()
    assert read
    assert all(text.startswith("<system>Be terse.<user>") for text in read)
    assert all("<think></think>" in text for text in read)


@pytest.mark.usefixtures("only_local_tasks")
def test_a_data_set_that_is_not_there_is_named(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = (tasks / "local_mc1.yaml").read_text()
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(source.replace('"json"', '"no-such/data-set"'))
    with pytest.raises(UserInputError, match=r"(?s)elsewhere.*no-such/data-set.*HF_HOME"):
        lm_eval_results(loaded_model(), None, (str(elsewhere),), include_path=tasks)


@pytest.mark.parametrize("scope", ["generated", "last"])
def test_other_scopes_are_refused(scope: TokenScope) -> None:
    loaded = loaded_model()
    with pytest.raises(UserInputError, match="evaluation.token_scope to 'all'"):
        lm_eval_results(loaded, steering(loaded, scope), ("mmlu",))
    with pytest.raises(UserInputError, match=f"{scope!r} cannot be used"):
        check_tasks(("mmlu",), scope)


@pytest.mark.usefixtures("only_local_tasks")
def test_an_unknown_task_is_refused_with_those_that_look_like_it() -> None:
    check_tasks(("truthfulqa_mc1", "truthfulqa"), include_path=PACKAGED)
    with pytest.raises(UserInputError, match="'truthfulqa_mc3'; did you mean .*truthfulqa_mc"):
        check_tasks(("truthfulqa_mc1", "truthfulqa_mc3"), include_path=PACKAGED)


def test_without_the_library_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda _name: None)
    with pytest.raises(UserInputError, match=r"pip install real-steering\[lm-eval\]"):
        check_installed()


def test_no_tasks_have_no_results() -> None:
    assert lm_eval_results(loaded_model(), None, ()) == {}
