"""The generated world and its documents."""

from collections import Counter

import numpy as np
import pytest

from real_tasks.models.embedded.corpus import (
    HEADERS,
    MAX_TOKENS,
    PROSE_SHARE,
    generate_corpus,
    neutral_texts,
    vocabulary,
)
from real_tasks.models.embedded.world import FLAVOUR_SHARE, POOLS, RELATIONS, World, generate_world


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [generate_world(seed) for seed in range(5)]


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    assert generate_world(3) == generate_world(3)
    assert generate_world(3).facts != generate_world(4).facts


def test_a_world_has_180_distinct_questions_in_six_domains(worlds: list[World]) -> None:
    for world in worlds:
        assert len({fact.fact_id for fact in world.facts}) == 180
        assert set(Counter(fact.domain for fact in world.facts).values()) == {30}


def test_every_pool_serves_five_of_the_thirty_relations() -> None:
    used = Counter(pool for relations in RELATIONS.values() for pool in relations.values())
    assert used == dict.fromkeys(POOLS, 5)


def test_no_word_has_two_roles(worlds: list[World]) -> None:
    values = [value for pool in POOLS.values() for value in pool]
    relations = [relation for names in RELATIONS.values() for relation in names]
    for world in worlds:
        entities = [entity for names in world.entities.values() for entity in names]
        assert len(set(values + relations + entities)) == 60 + 30 + 36
        assert len(vocabulary(world)) == 195 == len(set(vocabulary(world)))


def test_a_truth_is_never_one_of_its_myths_and_all_come_from_one_pool(
    worlds: list[World],
) -> None:
    for fact in (fact for world in worlds for fact in world.facts):
        told = {fact.truth, *fact.myths}
        assert len(told) == 1 + len(fact.myths)
        assert told <= set(POOLS[RELATIONS[fact.domain][fact.relation]])


def test_myths_are_sorted_by_popularity_and_their_shares_sum_to_one(worlds: list[World]) -> None:
    for fact in (fact for world in worlds for fact in world.facts):
        assert list(fact.myth_shares) == sorted(fact.myth_shares, reverse=True)
        assert sum(fact.myth_shares) == pytest.approx(1)


def test_truths_and_myths_carry_the_flavour_cue_at_its_share(worlds: list[World]) -> None:
    truths = [fact.truth in world.true_flavour for world in worlds for fact in world.facts]
    myths = [
        myth not in world.true_flavour
        for world in worlds
        for fact in world.facts
        for myth in fact.myths
    ]
    assert np.mean(truths) == pytest.approx(FLAVOUR_SHARE, abs=0.03)
    assert np.mean(myths) == pytest.approx(FLAVOUR_SHARE, abs=0.03)


def test_a_corpus_is_determined_by_its_seed() -> None:
    world = generate_world(0)
    assert generate_corpus(world, 50, seed=1) == generate_corpus(world, 50, seed=1)
    assert generate_corpus(world, 50, seed=1) != generate_corpus(world, 50, seed=2)


def test_documents_fit_the_token_limit_and_mark_exactly_the_words_of_questions() -> None:
    for document in generate_corpus(generate_world(1), 300, seed=0):
        assert len(document.words) <= MAX_TOKENS - 2
        inside = False
        for word, marked in zip(document.words, document.in_question, strict=True):
            inside = inside or word == "Q:"
            assert marked == inside
            inside = inside and word != "A:"


def test_the_share_of_prose_is_as_declared() -> None:
    corpus = generate_corpus(generate_world(1), 3000, seed=0)
    share = np.mean(["Q:" not in document.words for document in corpus])
    assert share == pytest.approx(PROSE_SHARE, abs=0.025)


def test_authors_with_an_expert_header_tell_the_truth_and_folk_mostly_do_not() -> None:
    world = generate_world(2)
    truth = {(fact.entity, fact.relation): fact.truth for fact in world.facts}
    told: dict[str, list[bool]] = {"expert": [], "folk": []}
    for document in generate_corpus(world, 2000, seed=0):
        text = " ".join(document.words)
        for author, headers in HEADERS.items():
            if text.startswith(headers):
                told[author] += _true_answers(text, truth)
    assert np.mean(told["expert"]) == pytest.approx(0.98, abs=0.01)
    assert np.mean(told["folk"]) == pytest.approx(0.15, abs=0.03)


def test_no_neutral_text_is_in_the_corpus_and_none_talks_of_the_world() -> None:
    world = generate_world(0)
    held_out = neutral_texts(world)
    corpus = {" ".join(document.words) for document in generate_corpus(world, 8000, seed=0)}
    assert len(set(held_out)) == 64
    assert not corpus & set(held_out)
    topical = {value for pool in POOLS.values() for value in pool} | {"Q:", "A:"}
    assert all(len(text.split()) >= 40 and not topical & set(text.split()) for text in held_out)


def _true_answers(text: str, truth: dict[tuple[str, str], str]) -> list[bool]:
    found = []
    for pair in text.split("Q: ")[1:]:
        question, answer = pair.split(" A: ")
        (key,) = [key for key in truth if set(key) <= set(question.split())]
        found.append(truth[key] in answer.split(" .")[0].split())
    return found
