"""A clause as a meaning: who does what, where and when, and no word of a language's grammar.

`in_korean.korean` says it at one of the four speech levels, `in_english.english` in the one way
that this corpus has for it (docs/corpus.md lists the choices).
"""

from typing import Any, NamedTuple

from keras_transformer.datasets.korean_english.english import number
from keras_transformer.datasets.korean_english.lexicon import (
    MINUTES,
    NATIVE,
    Adjective,
    Noun,
    Person,
    Time,
    Verb,
    Weather,
)


class Thing(NamedTuple):
    """A noun with at most one determiner, number or relative clause, and an adjective."""

    noun: Noun
    determiner: str = ""  # "", "all" (the whole kind), "the", "this", "that", "my"
    count: int = 0  # type: ignore[assignment]  # hides tuple.count
    adjective: Adjective | None = None
    relative: "Clause | None" = None  # whose object this is


class Age(NamedTuple):
    years: int


class Clause(NamedTuple):
    """Who does what, where, when. A slot of "who", "what", "where" or "when" asks for it."""

    subject: Person | Thing | str | None  # None: the weather, or "there is"
    predicate: Verb | Adjective | Weather | Noun | Age | Time  # to be a noun, an age, a time
    object: Thing | Person | str | None = None
    to: Any = None  # a Place, or the Person who receives
    at: Any = None  # a Place or a Spot
    company: Person | None = None
    time: Time | str | None = None
    often: tuple = ()  # of FREQUENCIES, Korean and English
    tense: str = "present"  # past, progressive, future
    mode: str | None = None  # want, can, must
    negative: str | None = None  # 안, 못
    question: bool = False
    said: bool = True  # whether the Korean says the subject


class Pair(NamedTuple):
    """Two clauses: and (고), but (지만), so (어서), if (으면)."""

    first: Clause
    link: str
    second: Clause


def clock(hour: int, minute: int = 0) -> Time:
    """(3, 15) -> 세 시 십오 분, three fifteen."""
    ko, english = f"{NATIVE[hour]} 시", number(hour)
    if minute == 30:
        ko, english = f"{ko} 반", f"{english} thirty"
    elif minute:
        ko, english = f"{ko} {MINUTES[minute]} 분", f"{english} {number(minute)}"
    else:
        english += " o'clock"
    return Time(ko, english, ("present", "past", "future"))
