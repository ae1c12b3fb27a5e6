"""Random clauses that make sense: one function per kind of sentence."""

import random
from typing import Any

from keras_transformer.datasets.korean_english.lexicon import (
    ADJECTIVES,
    CITIES,
    COME,
    DO,
    FREQUENCIES,
    GO,
    HAVE,
    KIN,
    LISTENER,
    LIVE,
    MINE,
    MINUTES,
    NAMES,
    NATIVE,
    PARENTS,
    PLACES,
    SELF,
    SPEAKER,
    SPOTS,
    STAY,
    THINGS,
    TIMES,
    TRADES,
    VERBS,
    WE,
    WEATHER,
    Adjective,
    Noun,
    Person,
    Place,
    Spot,
    Time,
    Verb,
)
from keras_transformer.datasets.korean_english.meaning import Age, Clause, Thing, clock

PEOPLE = NAMES + PARENTS + MINE
SEASONS = ("여름에", "겨울에")


def chance(rng: random.Random, share: float) -> bool:
    return rng.random() < share


def subject(rng: random.Random, question: bool = False) -> tuple[Person, bool]:
    """Who does something, and whether the Korean sentence says so."""
    if question:
        if chance(rng, 0.65):
            return LISTENER, chance(rng, 0.3)
        return rng.choice(rng.choice((NAMES, PARENTS))), True
    if chance(rng, 0.42):
        return SPEAKER, chance(rng, 0.7)
    if chance(rng, 0.1):
        return WE, True
    return rng.choice((rng.choice(NAMES), rng.choice(PARENTS), rng.choice(MINE))), True


def other_person(rng: random.Random, than: Any, elders: bool = True) -> Person:
    """Somebody else, as an object or as company."""
    while True:
        who = rng.choice((rng.choice(NAMES), rng.choice(PARENTS), rng.choice(MINE)))
        if who.ko != getattr(than, "ko", None) and (elders or not who.elder):
            return who


def things(kind: str) -> list[Noun]:
    return [noun for noun in THINGS.values() if kind in noun.kinds]


def adjective_for(rng: random.Random, noun: Noun) -> Adjective | None:
    fitting = [each for each in ADJECTIVES.values() if set(each.kinds) & set(noun.kinds)]
    return rng.choice(fitting) if fitting else None


def thing(rng: random.Random, noun: Noun, count: bool | str = False, mine: bool = False) -> Thing:
    """The noun with a determiner, a number or an adjective, or, in most sentences, without."""
    luck = rng.random()
    if count and noun.counter and luck < 0.22:
        return Thing(noun, count=rng.randint(1, 10 if count == "many" else 3))
    if noun.number == "name":
        return Thing(noun)
    if luck < 0.34:
        return Thing(noun, rng.choice(("this", "that")))
    if mine and luck < 0.42 and {"price", "size"} & set(noun.kinds):
        return Thing(noun, "my")
    if luck < 0.56:
        return Thing(noun, adjective=adjective_for(rng, noun))
    return Thing(noun)


def object_of(
    rng: random.Random, verb: Verb, who: Person, count: bool | str = False
) -> Thing | Person:
    """What or whom the verb takes."""
    kind = rng.choice(verb.objects)
    if kind == "person":
        if verb.en in ("love", "trust") and chance(rng, 0.2):
            return SELF
        if verb.en in ("love", "like") and who is SPEAKER and chance(rng, 0.2):
            return LISTENER
        if verb.en in ("meet", "wait for", "help", "know") and chance(rng, 0.35):
            trade = rng.choice(list(TRADES.values()))
            number = rng.randint(2, 6) if count and chance(rng, 0.3) else 0
            if trade.number == "count":
                return Thing(trade, count=number)
        return other_person(rng, who, elders=verb.en != "help")
    noun = rng.choice(things(kind))
    if kind == "like":
        return (
            Thing(noun, "all") if chance(rng, 0.75) else Thing(noun, rng.choice(("this", "that")))
        )
    return thing(rng, noun, count, mine=verb.en in ("sell", "lose", "clean", "ride"))


def circumstances(rng: random.Random, verb: Verb) -> dict[str, Any]:
    """Tense, mode and negation, and a time that agrees with them."""
    stative = "stative" in verb.flags
    if "lost" in verb.flags:
        tense, mode = "past", None
    elif not stative and chance(rng, 0.25):
        mode = rng.choice(("want", "can", "must"))
        tense = "past" if mode != "can" and chance(rng, 0.2) else "present"
    else:
        mode = None
        weights = (4, 1, 0.5, 0) if stative and not verb.places else (3, 4, 2.5, 2)
        if stative:
            weights = (*weights[:3], 0)
        tense = rng.choices(("present", "past", "future", "progressive"), weights)[0]
    negative = None
    if "positive" not in verb.flags and mode in (None, "want") and chance(rng, 0.2):
        able = mode is None and not stative and tense in ("present", "past")
        negative = "못" if able and chance(rng, 0.4) else "안"
    if tense == "future" and negative:
        negative = "안"
    time: Time | None = None
    often: tuple = ()
    if not stative or verb.places:
        if chance(rng, 0.3):
            fitting = tense if mode is None or tense == "past" else "future"
            outside = {"공원", "바다"} & set(verb.places)
            time = rng.choice(
                [
                    each
                    for each in TIMES.values()
                    if fitting in each.tenses and (outside or each.ko not in SEASONS)
                ]
            )
            if fitting != "progressive" and chance(rng, 0.2):
                time = clock(rng.randint(1, 12), rng.choice((0, 0, 30, *MINUTES)))
        elif tense == "present" and not (mode or negative) and chance(rng, 0.2):
            often = rng.choice(list(FREQUENCIES.items()))
    return {"tense": tense, "mode": mode, "negative": negative, "time": time, "often": often}


def action(rng: random.Random, verb: Verb | None = None, question: bool | None = None) -> Clause:
    """Somebody does something."""
    verb = verb or rng.choice(list(VERBS.values()))
    question = chance(rng, 0.2) if question is None else question
    who, said = subject(rng, question)
    how = circumstances(rng, verb)
    count: bool | str = how["tense"] in ("past", "future") or how["mode"] in ("want", "must")
    if how["negative"]:
        count = False
    elif count and verb.en in ("buy", "sell", "get", "send", "order", "borrow", "draw"):
        count = "many"
    what = object_of(rng, verb, who, count) if verb.objects else None
    to = None
    if verb.en == "give" or (verb.en == "send" and chance(rng, 0.6)):
        to = other_person(rng, who)
    at = PLACES[rng.choice(verb.places)] if verb.places and chance(rng, 0.25) else None
    together = verb.en in ("eat", "drink", "watch", "walk", "play", "exercise", "shop", "cook")
    company = other_person(rng, who) if together and chance(rng, 0.2) else None
    return Clause(
        who, verb, what, to=to, at=at, company=company, question=question, said=said, **how
    )


def motion(rng: random.Random, question: bool | None = None) -> Clause:
    """Somebody goes or comes somewhere."""
    verb = rng.choices((GO, COME), (4, 1))[0]
    question = chance(rng, 0.2) if question is None else question
    who, said = subject(rng, question)
    places = ("집", "학교", "한국", "공원") if verb is COME else tuple(PLACES)
    to = PLACES[rng.choice(places)]
    how = circumstances(rng, verb)
    company = other_person(rng, who) if chance(rng, 0.12) else None
    return Clause(who, verb, to=to, company=company, question=question, said=said, **how)


def location(rng: random.Random) -> Clause:
    """Somebody lives, or is, somewhere."""
    question = chance(rng, 0.2)
    who, said = subject(rng, question)
    tense = rng.choice(("present", "present", "past"))
    if chance(rng, 0.5):
        place = PLACES[rng.choice(CITIES)]
        mode = "want" if chance(rng, 0.2) else None
        return Clause(
            who,
            LIVE,
            at=place,
            tense=tense,
            mode=mode,
            question=question,
            said=said,
            negative="안" if not mode and chance(rng, 0.15) else None,
        )
    place = PLACES[rng.choice([name for name in PLACES if name not in CITIES])]
    time = TIMES["어제"] if tense == "past" and chance(rng, 0.4) else None
    return Clause(who, STAY, at=place, tense=tense, time=time, question=question, said=said)


def possession(rng: random.Random) -> Clause:
    """Somebody has something, or nothing of it."""
    question = chance(rng, 0.2)
    who, said = subject(rng, question)
    if chance(rng, 0.5):
        noun = rng.choice(list(KIN.values()))
    else:
        noun = rng.choice(things("lose") + things("pet") + things("ride"))
    negative = "안" if chance(rng, 0.3) else None
    count = rng.randint(2, 5) if noun.counter and not negative and chance(rng, 0.35) else 0
    tense = "past" if noun not in KIN.values() and chance(rng, 0.2) else "present"
    return Clause(
        who,
        HAVE,
        Thing(noun, count=count),
        tense=tense,
        negative=negative,
        question=question,
        said=said,
    )


def there_is(rng: random.Random) -> Clause:
    """A thing is on, under, by something."""
    if chance(rng, 0.35):
        noun = rng.choice(things("eat") + things("drink"))
        place: Place | Spot = PLACES[rng.choice(("집", "가게", "부엌"))]
    else:
        noun = rng.choice(things("give") + things("lose") + things("pet"))
        spots = [spot for spot in SPOTS if "pet" not in noun.kinds or not spot.ko.endswith("위")]
        place = rng.choice(spots) if chance(rng, 0.8) else PLACES[rng.choice(("방", "집", "가게"))]
    count = rng.randint(2, 6) if noun.counter and chance(rng, 0.4) else 0
    adjective = None if count or not chance(rng, 0.25) else adjective_for(rng, noun)
    what = Thing(noun, count=count, adjective=adjective)
    tense = "past" if chance(rng, 0.2) else "present"
    return Clause(None, HAVE, what, at=place, tense=tense, question=chance(rng, 0.15))


def quality(rng: random.Random) -> Clause:
    """What a thing is like."""
    adjective = rng.choice([each for each in ADJECTIVES.values() if _of_things(each)])
    noun = rng.choice(things(rng.choice(adjective.kinds)))
    luck = rng.random()
    if luck < 0.35 or noun.number == "name":
        what = Thing(noun, "all")
    elif luck < 0.5 and {"price", "size"} & set(noun.kinds):
        what = Thing(noun, "my")
    elif luck < 0.62:
        what = _that_somebody(rng, noun) or Thing(noun, "this")
    else:
        what = Thing(noun, rng.choice(("this", "that")))
    tense = "past" if what.determiner != "all" and chance(rng, 0.25) else "present"
    negative = "안" if chance(rng, 0.2) else None
    return Clause(what, adjective, tense=tense, negative=negative, question=chance(rng, 0.15))


def _of_things(adjective):
    return not {"feeling", "nature"} & set(adjective.kinds)


def _that_somebody(rng, noun):
    """The noun with a relative clause: 제가 산 책."""
    verbs = [
        verb
        for verb in VERBS.values()
        if set(verb.objects) & set(noun.kinds)
        and not {"positive", "water"} & {*verb.flags, verb.en}
    ]
    if not verbs or noun.number == "name":
        return None
    verb = rng.choice(verbs)
    who = SPEAKER if chance(rng, 0.5) else rng.choice(PEOPLE)
    tense = "present" if verb.en == "like" else "past"
    if verb.en == "give" and who is SPEAKER:
        return None
    return Thing(noun, relative=Clause(who, verb, tense=tense))


def with_relative(rng: random.Random) -> Clause:
    """Somebody eats, reads, watches... what somebody made, bought, wrote..."""
    pairs = (
        ("먹다", "eat"),
        ("마시다", "drink"),
        ("읽다", "read"),
        ("보다", "watch"),
        ("듣다", "listen to"),
    )
    verb = VERBS[rng.choice(pairs)]
    what = _that_somebody(rng, rng.choice(things(verb.objects[0])))
    if what is None or what.relative.predicate is verb:
        return action(rng, verb)
    who, said = subject(rng)
    if what.relative.subject is who:
        said = False  # 제가 만든 빵을 먹었어요
    tense = rng.choice(("present", "past", "past", "future"))
    mode = "want" if tense == "present" else None
    return Clause(who, verb, what, said=said, tense=tense, mode=mode)


def feeling(rng: random.Random) -> Clause:
    """How somebody is."""
    adjective = rng.choice([each for each in ADJECTIVES.values() if not _of_things(each)])
    question = chance(rng, 0.2)
    who, said = subject(rng, question)
    tense = "past" if "feeling" in adjective.kinds and chance(rng, 0.4) else "present"
    time = TIMES["어제"] if tense == "past" and chance(rng, 0.4) else None
    negative = "안" if chance(rng, 0.2) else None
    return Clause(
        who, adjective, tense=tense, time=time, negative=negative, question=question, said=said
    )


def identity(rng: random.Random) -> Clause:
    """What somebody is by trade."""
    question = chance(rng, 0.2)
    who, said = subject(rng, question)
    trades = [trade for trade in TRADES.values() if trade.en != "friend"]
    if who.pronoun in ("we", "they"):
        who, said = SPEAKER, True
    tense = "past" if chance(rng, 0.2) else "present"
    negative = "안" if chance(rng, 0.2) else None
    return Clause(
        who, rng.choice(trades), tense=tense, negative=negative, question=question, said=said
    )


def age(rng: random.Random) -> Clause:
    """How old somebody is."""
    who, said = subject(rng)
    if who.pronoun in ("we", "they") or who.elder or who in PARENTS:
        who, said = SPEAKER, True
    return Clause(who, Age(rng.choice(list(NATIVE))), said=said)


def hour(rng: random.Random) -> Clause:
    """What time it is."""
    now = clock(rng.randint(1, 12), rng.choice((0, *MINUTES)))
    return Clause(None, now, time=TIMES["지금"], tense="present")


def weather(rng: random.Random, tense: str | None = None, question: bool | None = None) -> Clause:
    predicate = rng.choice(list(WEATHER.values()))
    tenses = ["present", "past", "future"] + ["progressive"] * (not predicate.descriptive)
    tense = tense or rng.choice(tenses)
    days = {"past": ("오늘", "어제"), "future": ("오늘", "내일"), "progressive": ("지금",)}.get(
        tense, ("여름에", "겨울에", "밤에")
    )
    time = TIMES[rng.choice(days)] if chance(rng, 0.5) else None
    negative = "안" if predicate.descriptive and chance(rng, 0.15) else None
    question = chance(rng, 0.15) if question is None else question
    return Clause(None, predicate, tense=tense, time=time, negative=negative, question=question)


def asking(rng: random.Random) -> Clause:
    """A question for who, what, where or when."""
    clause: Any  # mypy cannot check `_replace` with a slot that is drawn
    slot = rng.choice(("object", "object", "to", "at", "time", "subject"))
    if slot == "object" and chance(rng, 0.2):  # 뭐 해요?
        who, said = subject(rng, question=True)
        tense = rng.choice(("present", "past", "future", "progressive"))
        return Clause(who, DO, "what", tense=tense, question=True, said=said)
    if slot == "to":
        clause = motion(rng, question=True)
        if clause.tense == "present":
            clause = clause._replace(tense="progressive")
    else:
        # Not wear and play, whose Korean depends on what one wears or plays.
        verbs = [
            verb
            for verb in VERBS.values()
            if verb.objects and "stative" not in verb.flags and verb.en not in ("wear", "play")
        ]
        if slot == "at":
            verbs = [verb for verb in verbs if verb.places]
        clause = action(rng, rng.choice(verbs), question=True)
    asked = {"to": "where", "at": "where", "time": "when", "subject": "who"}.get(slot, "what")
    if slot == "object":
        asked = "who" if "person" in clause.predicate.objects else "what"
    clause = clause._replace(**{slot: asked}, mode=None, negative=None, often=(), company=None)
    if slot == "subject" or clause.tense in ("present", "progressive") and slot == "time":
        clause = clause._replace(tense=rng.choice(("past", "future")), time=None)
        clause = clause._replace(**{slot: asked}, said=True)
    elif slot != "time":
        clause = clause._replace(time=None)
    return clause
