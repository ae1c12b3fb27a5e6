"""Random sentences of two clauses that make sense together."""

import random
from typing import Any

from keras_transformer.datasets.korean_english.clauses import (
    PEOPLE,
    action,
    chance,
    object_of,
    other_person,
    quality,
    subject,
    things,
)
from keras_transformer.datasets.korean_english.lexicon import (
    ADJECTIVES,
    GO,
    PLACES,
    SPEAKER,
    STAY,
    THINGS,
    VERBS,
    WEATHER,
    Person,
)
from keras_transformer.datasets.korean_english.meaning import Clause, Pair, Thing

FOR = ("맛있다", "재미있다", "예쁘다", "귀엽다", "싸다", "쉽다")
AGAINST = ("비싸다", "맵다", "어렵다", "작다")
# Why one does what: a feeling or the weather, and what follows from it.
CONSEQUENCES = {
    "배가 고프다": ("먹다", "만들다"),
    "목이 마르다": ("마시다",),
    "피곤하다": ("자다", "쉬다", "집"),
    "아프다": ("병원", "쉬다", "못 일하다", "못 운동하다", "못 학교"),
    "바쁘다": ("못 만나다", "못 자다", "못 쉬다", "못 놀다"),
    "행복하다": ("웃다", "부르다", "춤을 추다"),
    "날씨가 좋다": ("공원", "산책하다", "걷다", "찍다", "바다"),
    "날씨가 나쁘다": ("있다", "못 산책하다", "못 수영하다"),
    "덥다": ("수영하다", "마시다", "바다"),
    "춥다": ("있다", "입다", "못 수영하다"),
    "따뜻하다": ("공원", "걷다", "산책하다"),
    "비가 오다": ("있다", "못 공원", "빌리다", "못 산책하다"),
    "눈이 오다": ("있다", "놀다", "찍다"),
}


def joined(rng: random.Random) -> Pair:
    """Two clauses in one sentence."""
    return rng.choice(
        (and_then, each_their_own, likes_but, although, therefore, therefore, whenever)
    )(rng)


def _plain(rng, who, tense, verb=None):
    """An action without circumstances."""
    while True:
        each = verb or rng.choice(list(VERBS.values()))
        if not verb and ("stative" in each.flags or "lost" in each.flags):
            continue
        clause = action(rng, each, question=False)
        what = object_of(rng, each, who) if each.objects else None
        return clause._replace(
            subject=who,
            object=what,
            tense=tense,
            mode=None,
            negative=None,
            time=None,
            often=(),
            company=None,
            said=who is not SPEAKER or chance(rng, 0.7),
            to=other_person(rng, who) if each.en == "give" else None,
        )


def and_then(rng: random.Random) -> Pair:
    who, _ = subject(rng)
    tense = rng.choice(("present", "past", "past", "future"))
    first, second = (_plain(rng, who, tense)._replace(at=None) for _ in range(2))
    if second.predicate is first.predicate:
        return and_then(rng)
    return Pair(first, "고", second)


def each_their_own(rng: random.Random) -> Pair:
    one = rng.choice(PEOPLE)
    other = SPEAKER if chance(rng, 0.3) else other_person(rng, one)
    tense = rng.choice(("present", "past"))
    verb = rng.choice([each for each in VERBS.values() if each.objects and not each.flags])
    first = _plain(rng, one, tense, verb)._replace(at=None, said=True)
    second = _plain(rng, other, tense, verb)._replace(at=None, said=True)
    return Pair(first, "고", second)


def likes_but(rng: random.Random) -> Pair:
    who, said = subject(rng)
    like = VERBS["좋아하다", "like"]
    one, other = rng.sample(things(rng.choice(("taste", "drink", "pet", "interesting"))), 2)
    if "like" not in one.kinds or "like" not in other.kinds:
        return likes_but(rng)
    hate = chance(rng, 0.5)
    first = Clause(who, like, Thing(one, "all"), said=said)
    second = Clause(
        who,
        VERBS["싫어하다", "hate"] if hate else like,
        Thing(other, "all"),
        negative=None if hate else "안",
    )
    return Pair(first, "지만", second)


def although(rng: random.Random) -> Pair:
    if chance(rng, 0.5):
        first: Any = quality(rng)._replace(question=False, negative=None)
        # One of each: what speaks for a thing, and what against it.
        fitting = FOR if first.predicate.ko in AGAINST else AGAINST
        kinds = set(first.subject.noun.kinds)
        others = [name for name in fitting if kinds & set(ADJECTIVES[name].kinds)]
        if first.predicate.ko not in FOR + AGAINST or not others:
            return although(rng)
        return Pair(first, "지만", first._replace(predicate=ADJECTIVES[rng.choice(others)]))
    who, said = subject(rng)
    hard = rng.choice(("바쁘다", "피곤하다", "배가 고프다", "목이 마르다", "아프다"))
    better = rng.choice(("행복하다", "친절하다"))
    first = Clause(who, ADJECTIVES[hard], said=said)
    return Pair(first, "지만", first._replace(predicate=ADJECTIVES[better]))


def consequence(rng: random.Random, cause: str, who: Person, tense: str) -> Clause:
    """Something from `CONSEQUENCES`, as a clause."""
    what = rng.choice(CONSEQUENCES[cause])
    negative = "못" if what.startswith("못 ") else None
    what = what.removeprefix("못 ")
    if what == "있다":
        return Clause(who, STAY, at=PLACES["집"], tense=tense)
    if what in PLACES:
        return Clause(who, GO, to=PLACES[what], tense=tense, negative=negative)
    verb = next(verb for (ko, _), verb in VERBS.items() if ko == what)
    clause = _plain(rng, who, tense, verb)._replace(at=None, negative=negative)
    if what == "만들다":
        clause = clause._replace(object=Thing(rng.choice(things("eat"))))
        if "make" not in clause.object.noun.kinds:
            return consequence(rng, cause, who, tense)
    special = {"덥다": ("물", "주스", "콜라"), "춥다": ("코트",), "비가 오다": ("우산",)}.get(cause)
    if special and verb.objects:
        clause = clause._replace(object=Thing(THINGS[rng.choice(special)]))
    if verb.en == "meet":
        clause = clause._replace(object=other_person(rng, who))
    return clause


def _cause(rng, who, tense):
    cause = rng.choice(list(CONSEQUENCES))
    if cause in WEATHER:
        return Clause(None, WEATHER[cause], tense=tense)
    return Clause(who, ADJECTIVES[cause], tense=tense, said=who is not SPEAKER or chance(rng, 0.6))


def therefore(rng: random.Random) -> Pair:
    who, _ = subject(rng)
    tense = rng.choice(("present", "past", "past"))
    first = _cause(rng, who, tense)
    return Pair(first, "어서", consequence(rng, first.predicate.ko, who, tense))


def whenever(rng: random.Random) -> Pair:
    who, _ = subject(rng)
    first = _cause(rng, who, "present")
    second = consequence(rng, first.predicate.ko, who, rng.choice(("present", "future")))
    if second.negative:
        second = second._replace(tense="present")
    return Pair(first, "으면", second)
