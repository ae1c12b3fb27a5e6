"""Draws random meanings. A `random.Random` decides everything: a seed gives the same for ever."""

from keras_transformer.datasets.korean_english import clauses
from keras_transformer.datasets.korean_english.joined import joined

KINDS = {
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


def draw(rng):
    """A random meaning: a `Clause` or a `Pair`."""
    kinds, weights = zip(*KINDS.items(), strict=True)
    return rng.choices(kinds, weights)[0](rng)
