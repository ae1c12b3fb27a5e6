"""The corpus: pairs to train on, and tests of what was learnt rather than remembered.

Sentences are split by meaning: all with the same English, at any speech level, are on one side.
There is a random test, and one for each kind of combination that training never has, although it
has the parts:

    objects     a verb with an object that it never had       시계를 팔다
    topics      nouns seen only as subjects, now as objects   이 치즈는 맛있다 -> 치즈를 먹다
    tenses      a verb in a tense that it never had
    levels      a verb at a speech level that it never had
    clauses     verbs seen only in single clauses, now in two
    counts      a number with a counter that it never had     세 잔
"""

import random
from typing import Any

from keras_transformer import progress
from keras_transformer.datasets.korean_english.clauses import chance
from keras_transformer.datasets.korean_english.conjugation import LEVELS
from keras_transformer.datasets.korean_english.drawing import draw
from keras_transformer.datasets.korean_english.in_english import english
from keras_transformer.datasets.korean_english.in_korean import korean
from keras_transformer.datasets.korean_english.lexicon import (
    ADJECTIVES,
    FREQUENCIES,
    HAVE,
    KIN,
    LISTENER,
    MINE,
    NAMES,
    PARENTS,
    PLACES,
    SPEAKER,
    THINGS,
    TIMES,
    TRADES,
    VERBS,
    WE,
    WEATHER,
    Verb,
)
from keras_transformer.datasets.korean_english.meaning import Clause, Pair, Thing

TESTS = ("random", "objects", "topics", "tenses", "levels", "clauses", "counts")


def _combinations(text):
    return {tuple(pair.split()) for pair in text.split(",")}


OBJECTS = _combinations(
    "마시다 주스, 먹다 사과, 먹다 불고기, 사다 우산, 사다 빵, 팔다 시계, 읽다 소설, 쓰다 편지, "
    "보다 드라마, 듣다 노래, 좋아하다 토끼, 좋아하다 수학, 만들다 케이크, 입다 코트, 배우다 영어, "
    "그리다 고양이, 빌리다 카메라, 주다 꽃, 만나다 의사, 잃어버리다 지갑"
)
TOPICS = {"치즈", "피자", "맥주", "김치"}
TENSES = _combinations(
    "가르치다 past, 읽다 future, 그리다 progressive, 걷다 past, 자다 future, 빌리다 present"
)
VERB_LEVELS = _combinations(
    "마시다 해라, 기다리다 합쇼, 듣다 해, 짓다 해요, 일하다 합쇼, 웃다 합쇼"
)
CLAUSES = {"부르다", "찍다", "공부하다", "빌리다"}
COUNTS = _combinations("3 잔, 7 병, 4 권, 5 마리, 2 대, 6 개, 3 명, 8 송이")
SIZE, TEST_SIZE = 24_000, 300

# What a learner types first. No split has these meanings at any speech level.
PROBES = (
    ("나는 커피를 좋아해", "I love coffee"),
    ("나는 집에 간다", "I go home"),
    ("나는 내 가족들을 사랑해", "I love my family"),
    ("나는 스스로를 사랑해", "I love myself"),
    ("나는 너를 사랑해", "I love you"),
    ("저는 학생이에요.", "I am a student."),
    ("저는 한국 사람입니다.", "I am Korean."),
    ("나는 고양이를 좋아해", "I love cats"),
    ("저는 한국어를 공부해요.", "I study Korean."),
    ("나는 매일 책을 읽는다.", "I read a book every day."),
    ("어제 친구를 만났어요.", "I met a friend yesterday."),
    ("저는 서울에 살아요.", "I live in Seoul."),
    ("물을 마시고 싶어요.", "I want to drink water."),
    ("어디에 갔어?", "Where did you go?"),
    ("뭐 하고 있어?", "What are you doing?"),
    ("배가 고파서 밥을 먹었어요.", "I was hungry, so I ate rice."),
    ("우리 엄마는 선생님이에요.", "My mom is a teacher."),
    ("저는 스무 살이에요.", "I am twenty years old."),
    ("비가 오면 집에 있을 거예요.", "If it rains, I will be at home."),
)

# The same for English to Korean, where the Korean is polite.
POLITE_PROBES = (
    ("저는 커피를 좋아해요.", "I love coffee."),
    ("저는 집에 가요.", "I go home."),
    ("저는 우리 가족을 사랑해요.", "I love my family."),
    ("저는 스스로를 사랑해요.", "I love myself."),
    ("저는 학생이에요.", "I am a student."),
    ("저는 고양이를 좋아해요.", "I love cats."),
    ("저는 한국어를 공부해요.", "I study Korean."),
    ("저는 서울에 살아요.", "I live in Seoul."),
    ("저는 물을 마시고 싶어요.", "I want to drink water."),
    ("저는 배가 고파서 밥을 먹었어요.", "I was hungry, so I ate rice."),
    ("우리 엄마는 한국 사람이에요.", "My mom is Korean."),
    ("저는 스무 살이에요.", "I am twenty years old."),
)


def held_out(meaning: Clause | Pair, level: str) -> set[str]:
    """Returns the tests that test a combination of words in this sentence."""
    found = set()
    clauses = list(_clauses(meaning))
    for clause in clauses:
        if isinstance(clause.predicate, Verb):
            verb = clause.predicate.ko
            if isinstance(clause.object, Thing):
                if (verb, clause.object.noun.ko) in OBJECTS:
                    found.add("objects")
                # 치즈가 있다 has it as its subject.
                if clause.object.noun.ko in TOPICS and clause.predicate is not HAVE:
                    found.add("topics")
            if (verb, clause.tense) in TENSES:
                found.add("tenses")
            if (verb, level) in VERB_LEVELS:
                found.add("levels")
            if isinstance(meaning, Pair) and verb in CLAUSES:
                found.add("clauses")
        what = clause.object
        if isinstance(what, Thing) and (str(what.count), what.noun.counter) in COUNTS:
            found.add("counts")
    return found


def _clauses(meaning):
    """Yields every clause of a sentence. A relative clause gets the noun it describes as object."""
    for clause in (meaning.first, meaning.second) if isinstance(meaning, Pair) else (meaning,):
        yield clause
        for what in (clause.subject, clause.object):
            if isinstance(what, Thing) and what.relative:
                yield what.relative._replace(object=Thing(what.noun))


def levels(meaning: Clause | Pair) -> tuple[str, ...]:
    """Returns the speech levels that a meaning can be said at: 너 is only for friends."""
    if any(LISTENER in (clause.object, clause.to) for clause in _clauses(meaning)):
        return LEVELS[:2]
    return LEVELS


def generate(
    seed: int = 1, size: int = SIZE, test_size: int = TEST_SIZE, to_korean: bool = False
) -> dict[str, list[tuple[str, str]]]:
    """Returns the corpus: "train", "valid" and each of `TESTS` as lists of (Korean, English).

    Args:
        seed: The same seed gives the same sentences on every machine.
        size: Sentences to train on.
        test_size: Sentences of each test, and to validate on.
        to_korean: Whether English will be translated. Each English sentence then has one Korean
            sentence, polite (해요) and with its subject, and there is no test of levels.
    """
    rng = random.Random(seed)
    tests = [name for name in TESTS if not (to_korean and name == "levels")]  # there is but one
    splits: dict[str, list[tuple[str, str]]] = {name: [] for name in ("train", "valid", *tests)}
    wanted = dict.fromkeys(splits, test_size) | {"train": size}
    side_of = dict.fromkeys((text.rstrip("?.") for _, text in PROBES + POLITE_PROBES), "probes")
    said: set[str] = set()
    with progress.work("writing sentences", sum(wanted.values()), "sentences") as done:
        while any(len(splits[name]) < wanted[name] for name in splits):
            meaning = draw(rng)
            key = english(meaning, period=False).rstrip("?")
            allowed = levels(meaning)
            chosen = rng.sample(allowed, rng.randint(1, len(allowed)))
            period = chance(rng, 0.5)
            if to_korean:
                meaning, chosen = _with_subject(meaning), ["해요"]
                # One Korean sentence each: the first of "I read", and 우리 가족 for my family.
                if key in side_of or "가족들" in korean(meaning, "해요"):
                    continue
            combinations = [held_out(meaning, level) & splits.keys() for level in chosen]
            kinds: set[str] = set().union(*combinations)
            if len(kinds) > 1:
                continue
            lot = rng.choices(("train", "valid", "random"), (94, 3, 3))[0]
            (side,) = kinds or {lot}
            if side_of.setdefault(key, side) != side:
                side = side_of[key]  # said before, perhaps at another level
                if kinds or side not in ("train", "valid", "random"):
                    continue
            for level, combination in zip(chosen, combinations, strict=True):
                text = korean(meaning, level, period)
                new = text.rstrip(".") not in said and len(splits[side]) < wanted[side]
                if new and (combination or not kinds):
                    said.add(text.rstrip("."))
                    splits[side].append((text, english(meaning, period)))
                    done()
                    if side != "train":
                        break  # a test has each meaning once
    return splits


def _with_subject(meaning):
    if isinstance(meaning, Pair):
        return meaning._replace(first=meaning.first._replace(said=True))
    return meaning._replace(said=True)


def words() -> list[tuple[str, str]]:
    """Returns every word of the corpus with its English."""
    tables: tuple[Any, ...] = (THINGS, TRADES, KIN, VERBS, ADJECTIVES, WEATHER, PLACES, TIMES)
    found = [
        (word.ko, getattr(word, "en", None) or word.at)
        for table in tables
        for word in table.values()
    ]
    people = [(who.ko, who.en) for who in (SPEAKER, WE, *NAMES, *PARENTS, *MINE)]
    return list(dict.fromkeys([*people, *found, *FREQUENCIES.items()]))
