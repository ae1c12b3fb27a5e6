"""A meaning in Korean, at a speech level."""

from keras_transformer.datasets.korean_english.conjugation import (
    copula,
    finite,
    future,
    honorific,
    join,
    not_copula,
    past,
)
from keras_transformer.datasets.korean_english.hangul import tail, with_particle
from keras_transformer.datasets.korean_english.lexicon import (
    DO,
    HAVE,
    LISTENER,
    LIVE,
    NATIVE,
    SPEAKER,
    STAY,
    WE,
    Adjective,
    Noun,
    Person,
    Time,
    Verb,
    Weather,
)
from keras_transformer.datasets.korean_english.meaning import Age, Clause, Pair, Thing


def korean(meaning: Clause | Pair, level: str, period: bool = True) -> str:
    """Returns the sentence at a speech level of `LEVELS`."""
    if isinstance(meaning, Pair):
        first, link, second = meaning
        same = first.subject == second.subject
        # The subject of a reason or a condition is a topic only if the whole sentence has it too.
        topic = same or link in ("고", "지만")
        words = _korean(first, level, link, topic, alone=same)
        if same:
            second = second._replace(said=False)
        words += _korean(second, level, "")
        asks = second.question
    else:
        words, asks = _korean(meaning, level, ""), meaning.question
    return " ".join(words) + ("?" if asks else "." if period else "")


def _korean(clause, level, form, topic=True, alone=True):
    """The words of a clause; `form` is "" for the end of a sentence, a link, or "relative"."""
    polite = level in ("해요", "합쇼")
    subject, predicate = clause.subject, clause.predicate
    words = []
    if clause.said and subject is not None and not (polite and subject is LISTENER):
        words.append(_subject(clause, level, topic))
    if isinstance(clause.time, Time):
        words.append(clause.time.ko + ("에" if clause.time.ko.endswith(("시", "분", "반")) else ""))
    elif clause.time:
        words.append("언제")
    if clause.often:
        words.append(clause.often[0])
    if clause.company:
        words.append(with_particle(_person(clause.company, level), "with"))
    if clause.at is not None:
        at = "어디" if clause.at == "where" else clause.at.ko
        words.append(at + ("에" if predicate in (STAY, HAVE, LIVE) else "에서"))
    if isinstance(clause.to, Person):
        words.append(_person(clause.to, level) + ("께" if clause.to.elder else "에게"))
    elif clause.to is not None:
        words.append(("어디" if clause.to == "where" else clause.to.ko) + "에")

    honoured = _honoured(subject, polite)
    if isinstance(predicate, Noun | Age | Time):
        return words + _be(clause, level, honoured)
    verb, descriptive, before = _verb(clause, honoured)
    if clause.object is not None:
        words.append(_object(clause, level, before))
    return [*words, *_ending(clause, level, form, verb, descriptive, alone)]


def _honoured(subject, polite):
    if isinstance(subject, Person):
        return subject.elder or (subject is LISTENER and polite)
    return False


def _person(who, level):
    """A person's word: 나 or 저, 민수 씨, 수진이, 제 친구."""
    polite = level in ("해요", "합쇼")
    if who is SPEAKER:
        return "저" if polite else "나"
    if who.name:
        if polite:
            return who.ko + " 씨"
        return who.ko + "이" if level == "해" and tail(who.ko) else who.ko
    mine = {"내": "제 " if polite else "내 ", "우리": "우리 ", "": ""}[who.mine]
    return mine + who.ko


def _thing(what, level):
    """A thing's words without a particle: 이 책, 예쁜 꽃, 커피 세 잔, 제가 산 책."""
    words = []
    if what.relative:
        words += _korean(what.relative, level, "relative", topic=False)
    polite = level in ("해요", "합쇼")
    ours = what.noun.ko == "집"
    mine = "우리" if ours else "제" if polite else "내"
    words += {"this": ["이"], "that": ["그"], "my": [mine]}.get(what.determiner, [])
    if what.adjective:
        words.append(_adnominal(what.adjective.ko))
    words.append(what.noun.ko)
    if what.count:
        words += [NATIVE[what.count], what.noun.counter]
    return " ".join(words)


def _adnominal(adjective):
    return join(adjective, "는" if adjective.endswith("있다") else "은")


def _subject(clause, level, topic):
    subject = clause.subject
    if subject == "who":
        return "누가"
    if isinstance(subject, Thing):
        return with_particle(_thing(subject, level), "topic" if topic else "subject")
    word = _person(subject, level)
    if subject.elder and level == "합쇼":
        return word + ("께서는" if topic else "께서")
    return with_particle(word, "topic" if topic else "subject")


def _object(clause, level, before):
    """The object and its particle, or before a noun with 하다 none: 수학 공부를 안 해요."""
    what, verb = clause.object, clause.predicate
    if what == "what":
        word = "뭐" if level in ("해", "해요") else "무엇"
    elif what == "who":
        word = "누구"
    else:
        word = _person(what, level) if isinstance(what, Person) else _thing(what, level)
    if before or (verb is DO and word == "뭐"):
        return word
    if "water" in verb.objects:
        return word + "에"
    return with_particle(word, "subject" if verb is HAVE else "object")


def _verb(clause, honoured):
    """The dictionary form with negation, honour and mode; whether it describes; 공부를 or not."""
    predicate, negative = clause.predicate, clause.negative
    verb, describes = predicate.ko, not isinstance(predicate, Verb)
    if isinstance(predicate, Weather):
        describes = predicate.descriptive
    if predicate in (HAVE, STAY):
        describes = True
    if verb == "주다" and isinstance(clause.to, Person) and clause.to.elder:
        verb = "드리다"
    flags = predicate.flags if isinstance(predicate, Verb) else ()
    split = False

    long = negative == "안" and (
        "long" in flags or (describes and len(verb.split()[-1]) > 3) or clause.mode == "want"
    )
    if negative and predicate.ko == "알다":
        verb, long = "모르다", False
    elif negative and predicate is HAVE:
        verb, long = "없다", False
    elif negative and isinstance(predicate, Adjective) and predicate.denied:
        verb, long = predicate.denied, False
    elif negative and "noun" in flags and not clause.mode:
        verb, split, long = f"{with_particle(verb[:-2], 'object')} {negative} 하다", True, False
    elif negative and not long:
        *head, last = verb.split()
        verb = " ".join([*head, negative, last])

    if honoured and clause.mode != "want":
        verb = _honour(verb, predicate)
    if clause.mode == "want":
        first_person = clause.subject in (SPEAKER, LISTENER, WE)
        verb = join(verb, "고") + (" 싶다" if first_person else " 싶어 하다")
        describes = first_person
        if honoured:
            verb = join(verb, "으시다")
    elif clause.mode == "can":
        verb, describes = join(verb, "을") + " 수 있다", True
    elif clause.mode == "must":
        verb, describes = join(verb, "어야") + " 하다", False
    if long:
        verb = join(verb, "지") + " 않다"
    return verb, describes, split


def _honour(verb, predicate):
    if predicate is HAVE:
        return join(verb, "으시다")  # 계시다 is of where one is
    *head, last = verb.split()
    return " ".join([*head, honorific(last)])


def _ending(clause, level, form, verb, describes, alone):
    tense, question = clause.tense, clause.question
    if tense == "progressive":
        honoured = _honoured(clause.subject, level in ("해요", "합쇼"))
        # An honoured verb would honour twice: 책을 읽고 계세요.
        plain, _, _ = _verb(clause, False)
        verb, describes = join(plain, "고") + (" 계시다" if honoured else " 있다"), not honoured
    if form == "relative":
        if describes:
            return [_adnominal(verb)]
        return [join(verb, {"past": "은", "future": "을"}.get(tense, "는"))]
    if form == "지만" or (form == "고" and not alone):
        return [join(past(verb) if tense == "past" else verb, form)]
    if form:  # the second clause has the tense
        return [join(verb, form)]
    if tense == "future":
        return [future(verb, level, question)]
    if tense == "past":
        return [finite(past(verb), level, question, descriptive=True)]
    return [finite(verb, level, question, describes)]


def _be(clause, level, honoured):
    """To be a noun, so old, so late."""
    predicate, is_past = clause.predicate, clause.tense == "past"
    word = f"{NATIVE[predicate.years]} 살" if isinstance(predicate, Age) else predicate.ko
    if clause.negative:
        denied = not_copula(level, clause.question, is_past, honoured)
        return [with_particle(word, "subject"), denied]
    return [copula(word, level, clause.question, is_past, honoured)]
