"""Learning how to steer a model in memory: which modules, how strongly, and what that gains."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from real_tasks.evaluation.gain import gains
from real_tasks.evaluation.measures import MEASURES
from real_tasks.evaluation.measuring import Evaluator
from real_tasks.evaluation.tuning import Choice, choose
from real_tasks.experiment.direct.given import behaviour_of
from real_tasks.experiment.direct.learning import Learner, OnProgress
from real_tasks.experiment.direct.steered import Steered
from real_tasks.experiment.direct.steering import BATCH_TOKENS, borrowed
from real_tasks.experiment.methods.known import methods_of
from real_tasks.experiment.needs import check_needs
from real_tasks.experiment.parameters import explained
from real_tasks.experiment.plug_ins import resolved
from real_tasks.experiment.prepared import completed
from real_tasks.experiment.question_checks import check_behaviour, check_texts
from real_tasks.localizers.labels import MODULE_NOUNS, method_label
from real_tasks.models.chat import ChatFormat, check_chat
from real_tasks.models.loading import LoadedModel
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.reading.answers_read import activations_of
from real_tasks.reading.asking import PROMPT, Asking
from real_tasks.vocabulary.config import DataConfig, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import EvaluationConfig, ExperimentConfig
from real_tasks.vocabulary.method_config import MethodConfig
from real_tasks.vocabulary.types import BehaviourData, ModelShape

N_FOLDS = 3
"""A third of the questions is kept for the test."""
SHARES = (0.05, 0.15, 0.4)
"""Of the modules, to choose K from."""
ALPHAS = (1.0, 2.0, 4.0, 8.0, 16.0)
PROBED = 8
"""Questions that are read to see how long reading takes."""
LEAST = 24
"""Questions that are used whatever the time."""
READINGS = 4.0
"""How often a question is read, about: for activations or settings, and in tests."""
READ_SHARE = 0.5
"""Of the time, that reading may take; scores take the rest."""
RANKED_AT, CHOSEN_AT = 0.5, 0.8
"""Of the time, by when modules are ranked, and strengths chosen."""
NEUTRAL_TEXTS = 32
"""Most of them, half for the choice and half for the test."""


def steer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Any,
    *,
    method: str | MethodConfig = "real",
    max_kl: float = 0.05,
    chat: bool | None = None,
    system_prompt: str = "",
    neutral: Sequence[str] = (),
    seed: int = 0,
    evaluation: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    told: OnProgress | None = None,
    planned: Callable[[str], None] = lambda _: None,
    enough: Callable[[], bool] = lambda: False,
) -> Steered:
    """Learn how to steer a model towards the aligned answers, and measure what that does.

    The questions are parted: what is steered is learned on some, how strongly is chosen on others,
    and what comes of it is measured on a third, which nothing was chosen by. The model is left as
    it was.

    Args:
        model: in memory, on its device, quantised or not.
        tokenizer: its tokenizer.
        questions: see `behaviour_of` of `given.py` here; at least 8, better 100 and more.
        method: name of a method (`real methods` lists them), or a method of one's own.
        max_kl: cap on side effects, KL(original || steered) on neutral text, in nats a token;
            of a method behind a gate also on prompts.
        chat: whether prompts go into the tokenizer's chat template; None: if it has one.
        system_prompt: what the system says there.
        neutral: texts on which side effects are measured; without, the behaviour's own.
        seed: of the parts and of the method.
        evaluation: further fields of `EvaluationConfig`, as ``{"top_k": (8, 16)}``.
        minutes: about how long it may take: as many questions are used, and as many layers ranked,
            as the time allows; None: all.
        told: hears of progress: what is done, how much of it is done, and how much there is.
        planned: hears, once, in a sentence what will be done.
        enough: asked now and then while modules are ranked and strengths tried; once it says so,
            the best so far is taken.

    Raises:
        UserInputError: questions, a method or options that cannot be used, or a model of another
            architecture; says what is wrong and how to mend it. No strength fits the cap.
    """
    data = _mixed(behaviour_of(questions), tuple(neutral), seed)
    format = _chat(tokenizer, chat, system_prompt)
    with borrowed(model, tokenizer) as ready:
        loaded = replace(ready, chat=format)
        begun = time.monotonic()
        config = _config(loaded, data, method, seed, {"max_kl": max_kl, **(evaluation or {})})
        seconds = math.inf if minutes is None else 60 * minutes
        n_given, data = len(data.questions), _sized(loaded, data, config, seconds)
        parts = split(question_groups(data.questions), 0, config.data)
        (chosen,) = methods_of(config)
        ends = _until(enough, begun + RANKED_AT * seconds)
        learner = Learner(loaded, data, parts, config, chosen, told or _unheard, ends)
        planned(_plan(learner, n_given, minutes))
        return _tuned(learner, model, _until(enough, begun + CHOSEN_AT * seconds))


def _until(enough: Callable[[], bool], end: float) -> Callable[[], bool]:
    return lambda: enough() or time.monotonic() > end


def _plan(learner: Learner, n_given: int, minutes: float | None) -> str:
    """Say what will be done, on how many questions, and for how long."""
    parts, used = learner.split, len(learner.data.questions)
    some = f"{used} of {n_given}" if used < n_given else f"all {n_given}"
    time = "" if minutes is None else f" About {minutes:g} min at most."
    return (
        f"{method_label(learner.method.name, 'real')} on {some} questions: learns on "
        f"{len(parts.train)}, tunes on {len(parts.validation)} at a KL of up to "
        f"{learner.config.evaluation.max_kl:g} nats/token, tests on {len(parts.test)}.{time}"
    )


def _mixed(data: BehaviourData, neutral: tuple[str, ...], seed: int) -> BehaviourData:
    """Return the data in an order of its own, as files are often sorted."""
    order = np.random.default_rng(seed).permutation(len(data.questions))
    questions = tuple(data.questions[place] for place in order)
    texts = neutral or data.neutral_texts[:NEUTRAL_TEXTS]
    return replace(data, questions=questions, neutral_texts=texts)


def _sized(
    loaded: LoadedModel, data: BehaviourData, config: ExperimentConfig, seconds: float
) -> BehaviourData:
    """Return as many questions as there is time for, by how long it takes to read a few of them."""
    if math.isinf(seconds):
        return data
    batch_tokens = config.extraction.batch_tokens
    for part in (data.questions[:1], data.questions[:PROBED]):  # the first reading warms up
        pairs = [(question, answer) for question in part for answer in question.answers]
        begun = time.monotonic()
        activations_of(loaded, data, pairs, batch_tokens)
    each = (time.monotonic() - begun) / len(part)
    n = max(LEAST, int(READ_SHARE * seconds / (READINGS * each)))
    return replace(data, questions=data.questions[:n])


def _chat(
    tokenizer: PreTrainedTokenizerBase, chat: bool | None, system_prompt: str
) -> ChatFormat | None:
    there = bool(tokenizer.chat_template)
    if (chat or system_prompt) and not there:
        raise UserInputError(
            "the tokenizer has no chat template (a base model?); leave chat and system_prompt out"
        )
    if not there or chat is False:
        return None
    format = ChatFormat(system_prompt, thinking="closed")
    check_chat(tokenizer, format)
    return format


def _config(
    loaded: LoadedModel,
    data: BehaviourData,
    method: str | MethodConfig,
    seed: int,
    evaluation: Mapping[str, Any],
) -> ExperimentConfig:
    """Return the experiment that is done in memory, complete and checked against its data."""
    measures = tuple(name for name in data.measures if not MEASURES[name].generates)
    n_groups = max(question_groups(data.questions), default=-1) + 1
    try:
        config = ExperimentConfig(
            model=ModelConfig(path=loaded.model.config.name_or_path or "model"),
            baselines=(),
            methods=(method,),
            seeds=(seed,),
            data=DataConfig(n_folds=N_FOLDS if n_groups >= 4 * N_FOLDS else 2),
            evaluation=EvaluationConfig.model_validate(
                {
                    "alphas": ALPHAS,
                    "measures": measures or data.measures,
                    "batch_tokens": BATCH_TOKENS,
                    "search": "race",
                    **evaluation,
                }
            ),
        )
    except ValidationError as error:
        raise UserInputError(explained(error, "steer")) from error
    config = _with_top_k(resolved(config), loaded.shape, evaluation)
    check_behaviour(data, config)
    check_needs(data, config)
    check_texts(loaded, data, config)
    return completed(config, data)


def _with_top_k(
    config: ExperimentConfig, shape: ModelShape, evaluation: Mapping[str, Any]
) -> ExperimentConfig:
    if "top_k" in evaluation:
        return config
    (method,) = methods_of(config)
    n_modules = len(shape.modules(method.kind))
    top_k = tuple(sorted({max(1, round(share * n_modules)) for share in SHARES}))
    return config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"top_k": top_k})}
    )


def _tuned(learner: Learner, model: PreTrainedModel, enough: Callable[[], bool]) -> Steered:
    """Choose K and strength on validation questions, and test them."""
    config, method, data = learner.config.evaluation, learner.method, learner.data
    specs = learner.candidates()
    share = all(spec.intervention().shares_prompts for spec in specs.values())
    learner.told("evaluation", 0, 1)
    evaluator = Evaluator(learner.loaded, data, learner.split, config, share_prompts=share)
    found = choose(evaluator, specs, config, method.strengths, enough)
    learner.told("evaluation", 1, 1)
    if not isinstance(found, Choice):
        costs = [f"K {s.top_k}, strength {s.alpha:g}: {s.counted_kl:.3f}" for s in found]
        raise UserInputError(
            f"nothing to steer with fits the cap on KL of {config.max_kl:g} nats a token "
            f"({'; '.join(costs) or 'the method steers nothing'}); raise max_kl, or give weaker "
            "strengths: evaluation={'alphas': (0.01, 0.02)}, or strengths of a method of your own"
        )
    unsteered = evaluator.measure("test", None)
    runs = [(asdict(found.test), asdict(unsteered), found.test.questions)]
    gained = gains(runs, evaluator.objective, config.bootstrap_samples)
    asking = Asking.of(data, learner.loaded.chat)
    facts = {
        PROMPT: asking.as_facts(),
        "gains": {name: asdict(gain) for name, gain in gained.items()},
        "kl": found.test.kl,
    }
    spec = replace(found.spec, provenance={**found.spec.provenance, **facts})
    return Steered(
        model,
        learner.loaded.tokenizer,
        spec,
        asking,
        found=found,
        unsteered=unsteered,
        gains=gained,
        described=_described(learner, found),
        data=data,
    )


def _described(learner: Learner, found: Choice) -> str:
    chosen, parts = found.chosen, learner.split
    method = learner.method
    total = len(learner.loaded.shape.modules(method.kind))
    n = len(found.spec.modules) if method.where == "selected" else chosen.top_k
    what = f"{n} of {total} {MODULE_NOUNS[method.kind]}"
    return (
        f"{method_label(method.name, 'real')}: {what}, strength {chosen.alpha:g}. Learned on "
        f"{len(parts.train)} questions, tuned on {len(parts.validation)}, tested on "
        f"{len(parts.test)} others:"
    )


def _unheard(what: str, done: int, total: int) -> None:
    """Stand in for a listener."""
