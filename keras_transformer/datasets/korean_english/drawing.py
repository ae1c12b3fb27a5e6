"""Draws random meanings. They depend only on a `random.Random`, so a seed always gives the same."""

import random
from collections.abc import Callable

from keras_transformer.datasets.korean_english import clauses
from keras_transformer.datasets.korean_english.joined import joined
from keras_transformer.datasets.korean_english.meaning import Clause, Pair

KINDS: dict[Callable[[random.Random], Clause | Pair], int] = {
    clauses.action: 45,
    clauses.motion: 9,
    clauses.location: 5,
    clauses.possession: 6,
    clauses.there_is: 8,
    clauses.quality: 11,
    clauses.with_relative: 4,
    clauses.feeling: 6,
    clauses.identity: 5,
    clauses.age: 2,
    clauses.hour: 2,
    clauses.weather: 2,
    clauses.asking: 8,
    joined: 20,
}


def draw(rng: random.Random) -> Clause | Pair:
    """Returns a random meaning."""
    kinds, weights = zip(*KINDS.items(), strict=True)
    return rng.choices(kinds, weights)[0](rng)
