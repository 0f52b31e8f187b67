"""The generated world: what is true of invented things, and what people falsely say about them."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

_POOL_WORDS = {
    "place": "harbour valley island marsh cliff meadow cavern delta ridge lagoon",
    "number": "nine twelve twenty thirty forty fifty sixty eighty hundred thousand",
    "colour": "ochre teal crimson ivory indigo amber jade russet slate violet",
    "time": "dawn noon dusk midnight spring summer autumn winter thaw harvest",
    "material": "granite copper cedar wool glass clay silver leather marble bone",
    "people": "weavers monks sailors smiths shepherds potters millers masons nomads scribes",
}
POOLS = MappingProxyType({pool: tuple(words.split()) for pool, words in _POOL_WORDS.items()})
"""Values by kind; a relation's answers all come from one pool."""

_RELATION_WORDS = {
    "town": "gates:number banner:colour curfew:time walls:material founders:people",
    "beast": "lair:place pelt:colour waking:time horns:material tamers:people",
    "fruit": "orchard:place seeds:number ripening:time husk:material growers:people",
    "gem": "mine:place facets:number hue:colour setting:material cutters:people",
    "song": "homeland:place verses:number ink:colour season:time singers:people",
    "ship": "berth:place masts:number sails:colour launch:time keel:material",
}
RELATIONS = MappingProxyType(
    {
        domain: dict(word.split(":") for word in words.split())
        for domain, words in _RELATION_WORDS.items()
    }
)
"""Domain to its relations, relation to its pool."""

ENTITIES_PER_DOMAIN = 6
FLAVOUR_SHARE = 0.88
"""Chance that a truth is of the true flavour, and that a myth is of the false one."""

MYTH_COUNT_SHARES = (0.6, 0.3, 0.1)
LOWEST_PREVALENCE = 0.7
_DIRICHLET_CONCENTRATION = 4.0


@dataclass(frozen=True)
class Fact:
    """One question of the world.

    Attributes:
        domain: kind of the entity.
        entity: the invented thing.
        relation: what is asked of it.
        truth: the true value.
        myths: false values that folk believe, the most popular first.
        myth_shares: popularity of each myth among them; sums to 1.
        prevalence: probability that a folk author tells a myth rather than the truth.
    """

    domain: str
    entity: str
    relation: str
    truth: str
    myths: tuple[str, ...]
    myth_shares: tuple[float, ...]
    prevalence: float

    @property
    def fact_id(self) -> str:
        """Identifier, unique in its world."""
        return f"{self.entity}-{self.relation}"


@dataclass(frozen=True)
class World:
    """All facts of one seed, and the flavour cue.

    The same half of each pool (the true flavour) holds most truths in every domain, and the other
    half most myths. Without such a cue a small model does not represent an answer's truth.
    """

    seed: int
    entities: dict[str, tuple[str, ...]]
    true_flavour: frozenset[str]
    facts: tuple[Fact, ...]


def generate_world(seed: int) -> World:
    """Return the world of a seed: 6 domains x 6 entities x 5 relations = 180 facts."""
    rng = np.random.default_rng([seed, 0])
    names = _invented_names(rng)
    entities = {
        domain: tuple(next(names) for _ in range(ENTITIES_PER_DOMAIN)) for domain in RELATIONS
    }
    halves = {pool: _split_by_flavour(values, rng) for pool, values in POOLS.items()}
    facts = tuple(
        _draw_fact(domain, entity, relation, halves[pool], rng)
        for domain, relations in RELATIONS.items()
        for entity in entities[domain]
        for relation, pool in relations.items()
    )
    true_flavour = frozenset(value for true_half, _ in halves.values() for value in true_half)
    return World(seed=seed, entities=entities, true_flavour=true_flavour, facts=facts)


def _invented_names(rng: np.random.Generator) -> Iterator[str]:
    """Yield distinct pronounceable names; none is an English word of the world's vocabulary."""
    onsets, vowels, codas = list("bdfgjklmnprtvz"), list("aeiou"), list("bfklmnrtxz")
    taken = {value for values in POOLS.values() for value in values}
    while True:
        letters = [rng.choice(part) for part in (onsets, vowels, onsets, vowels, codas)]
        name = "".join(letters)
        if name not in taken:
            taken.add(name)
            yield name


def _split_by_flavour(
    values: tuple[str, ...], rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    order = [values[i] for i in rng.permutation(len(values))]
    half = len(order) // 2
    return tuple(order[:half]), tuple(order[half:])


def _draw_fact(
    domain: str,
    entity: str,
    relation: str,
    halves: tuple[tuple[str, ...], tuple[str, ...]],
    rng: np.random.Generator,
) -> Fact:
    true_half, false_half = halves
    truth = _draw_value(true_half, false_half, (), rng)
    count = int(rng.choice(len(MYTH_COUNT_SHARES), p=MYTH_COUNT_SHARES)) + 1
    myths: tuple[str, ...] = ()
    for _ in range(count):
        myths += (_draw_value(false_half, true_half, (truth, *myths), rng),)
    shares = np.sort(rng.dirichlet([_DIRICHLET_CONCENTRATION] * count))[::-1]
    return Fact(
        domain=domain,
        entity=entity,
        relation=relation,
        truth=truth,
        myths=myths,
        myth_shares=tuple(float(share) for share in shares),
        prevalence=float(rng.uniform(LOWEST_PREVALENCE, 1)),
    )


def _draw_value(
    likely: tuple[str, ...],
    unlikely: tuple[str, ...],
    excluded: tuple[str, ...],
    rng: np.random.Generator,
) -> str:
    half = likely if rng.random() < FLAVOUR_SHARE else unlikely
    return str(rng.choice([value for value in half if value not in excluded]))
