"""A meaning in English."""

from keras_transformer.datasets.korean_english import english as en
from keras_transformer.datasets.korean_english.lexicon import (
    COUNTERS,
    SELF,
    Adjective,
    Person,
    Time,
    Verb,
    Weather,
)
from keras_transformer.datasets.korean_english.meaning import Age, Clause, Pair, Thing

_OBJECTS = {"I": "me", "you": "you", "we": "us", "they": "them", "he": "him", "she": "her"}
_SELVES = {
    "I": "myself",
    "you": "yourself",
    "we": "ourselves",
    "they": "themselves",
    "he": "himself",
    "she": "herself",
}


def english(meaning: Clause | Pair, period: bool = True) -> str:
    """Returns the sentence in English."""
    if isinstance(meaning, Pair):
        text, asks = _english_pair(meaning), meaning.second.question
    elif meaning.question:
        text, asks = _question(meaning), True
    else:
        text, asks = _statement(meaning), False
    return text[0].upper() + text[1:] + ("?" if asks else "." if period else "")


def _english_pair(pair):
    first, link, second = pair
    same = first.subject == second.subject
    if same and link == "고":
        _, group, rest = _parts(second)
        if second.tense == "future":
            group = group[-1:]  # will once
        return f"{_statement(first)} and {' '.join([*group, *rest])}"
    pronoun = first.subject.pronoun if same and isinstance(first.subject, Person) else None
    if same and isinstance(first.subject, Thing):
        several = _agreement(first.subject).am == "are"
        pronoun = "they" if several else "it"
    after = _question(second) if second.question else _statement(second, pronoun)
    if link == "으면":
        return f"if {_statement(first)}, {after}"
    joint = {"고": " and ", "지만": ", but ", "어서": ", so "}[link]
    return f"{_statement(first)}{joint}{after}"


def _statement(clause, pronoun=None):
    subject, group, rest = _parts(clause)
    return " ".join(filter(None, [pronoun or subject, *group, *rest]))


def _parts(clause):
    """Subject, [auxiliary, verb] and what follows, of a statement."""
    subject, agreement = _english_subject(clause)
    verb, rest = _predicate(clause)
    auxiliary, main = en.verb_group(
        verb, agreement, clause.tense, bool(clause.negative), _mode(clause)
    )
    # often stands before the verb, after an auxiliary
    group = [auxiliary, *clause.often[1:], main]
    return subject, [word for word in group if word], rest


def _mode(clause):
    return "can" if clause.negative == "못" else clause.mode


def _question(clause):
    asked = next(
        (
            slot
            for slot in (clause.object, clause.to, clause.at, clause.time)
            if isinstance(slot, str)
        ),
        None,
    )
    if clause.subject == "who":
        return _statement(clause)
    subject, agreement = _english_subject(clause)
    verb, rest = _predicate(clause)
    auxiliary, main = en.with_auxiliary(
        verb, agreement, clause.tense, bool(clause.negative), _mode(clause)
    )
    words = [asked, auxiliary, subject, *clause.often[1:], main, *rest]
    return " ".join(word for word in words if word)


def _english_subject(clause):
    subject = clause.subject
    if subject is None:
        if isinstance(clause.predicate, Weather):
            return clause.predicate.subject, en.SINGULAR
        if isinstance(clause.predicate, Time):
            return "it", en.SINGULAR
        several = clause.object.count > 1 or clause.object.noun.number == "pair"
        return "there", en.PLURAL if several else en.SINGULAR
    if subject == "who":
        return "who", en.SINGULAR
    return (_thing(subject) if isinstance(subject, Thing) else subject.en), _agreement(subject)


def _agreement(subject):
    if isinstance(subject, Thing):
        several = subject.determiner == "all" and subject.noun.number == "count"
        return en.PLURAL if several or subject.noun.number == "pair" else en.SINGULAR
    if subject.pronoun == "I":
        return en.I
    if subject.pronoun in ("you", "we") or subject.en == "my friends":
        return en.PLURAL
    return en.SINGULAR


def _thing(what):
    """A thing's words: a pretty flower, three cups of coffee, the book that I bought."""
    noun, number = what.noun.en, what.noun.number
    adjective = f"{what.adjective.en} " if what.adjective else ""
    if what.relative:
        return f"the {adjective}{noun} that {_statement(what.relative._replace(object=None))}"
    if what.count:
        measure = COUNTERS[what.noun.counter]
        if measure:
            unit = measure if what.count == 1 else en.plural(measure)
            return f"{en.number(what.count)} {unit} of {adjective}{noun}"
        return f"{en.number(what.count)} {adjective}{noun if what.count == 1 else en.plural(noun)}"
    if what.determiner == "all":
        return adjective + (en.plural(noun) if number == "count" else noun)
    if what.determiner:
        word = what.determiner
        if number == "pair":
            word = {"this": "these", "that": "those"}.get(word, word)
        return f"{word} {adjective}{noun}"
    return en.article(adjective + noun) if number == "count" else adjective + noun


def _predicate(clause):
    """The English verb, and what follows it."""
    predicate, rest = clause.predicate, []
    if isinstance(predicate, Verb):
        verb = predicate.en
        if verb == "like" and isinstance(clause.object, Thing):
            verb = "love"
        if verb == "have" and clause.subject is None:
            verb = "be"  # there is
        if isinstance(clause.object, Person):
            rest.append(_english_person(clause.object, clause.subject))
        elif isinstance(clause.object, Thing):
            rest.append(_thing(clause.object))
    elif isinstance(predicate, Adjective):
        verb, rest = "be", [predicate.en]
    elif isinstance(predicate, Weather):
        verb, rest = ("be", [predicate.en]) if predicate.descriptive else (predicate.en, [])
    elif isinstance(predicate, Age):
        verb, rest = "be", [en.number(predicate.years), "years old"]
        if predicate.years == 1:
            rest[1] = "year old"
    elif isinstance(predicate, Time):
        verb, rest = "be", [predicate.en]
    else:
        noun = predicate.en
        verb, rest = "be", [en.article(noun) if predicate.number == "count" else noun]
    if isinstance(clause.to, Person):
        rest += ["to", _english_person(clause.to, clause.subject)]
    elif clause.to is not None and clause.to != "where":
        rest.append(clause.to.to)
    if clause.company:
        rest += ["with", _english_person(clause.company, clause.subject)]
    if clause.at is not None and clause.at != "where":
        rest.append(clause.at.at)
    if isinstance(clause.time, Time):
        at_hour = clause.time.ko.endswith(("시", "분", "반"))
        rest.append(f"at {clause.time.en}" if at_hour else clause.time.en)
    return verb, rest


def _english_person(who, subject):
    if who is SELF:
        return _SELVES[subject.pronoun]
    return _OBJECTS.get(who.en, who.en)
