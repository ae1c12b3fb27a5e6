"""English verb forms, articles, plurals and numbers, as far as the corpus needs them."""

from typing import NamedTuple

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
TENS = {30: "thirty", 40: "forty", 50: "fifty", 60: "sixty", 70: "seventy"}

# Past and progressive of the verbs that do not follow the rules below.
IRREGULAR = {
    "be": ("was", "being"),
    "borrow": ("borrowed", "borrowing"),
    "build": ("built", "building"),
    "buy": ("bought", "buying"),
    "come": ("came", "coming"),
    "draw": ("drew", "drawing"),
    "drink": ("drank", "drinking"),
    "eat": ("ate", "eating"),
    "get": ("got", "getting"),
    "give": ("gave", "giving"),
    "go": ("went", "going"),
    "have": ("had", "having"),
    "know": ("knew", "knowing"),
    "lose": ("lost", "losing"),
    "make": ("made", "making"),
    "meet": ("met", "meeting"),
    "read": ("read", "reading"),
    "ride": ("rode", "riding"),
    "sell": ("sold", "selling"),
    "send": ("sent", "sending"),
    "shop": ("shopped", "shopping"),
    "sing": ("sang", "singing"),
    "sleep": ("slept", "sleeping"),
    "swim": ("swam", "swimming"),
    "take": ("took", "taking"),
    "teach": ("taught", "teaching"),
    "wear": ("wore", "wearing"),
    "write": ("wrote", "writing"),
}


def number(n: int) -> str:
    """21 -> "twenty-one"."""
    if n <= 20:
        return NUMBERS[n]
    ten = TENS.get(n - n % 10, "twenty")
    return ten if n % 10 == 0 else f"{ten}-{NUMBERS[n % 10]}"


def article(phrase: str) -> str:
    """ "old cat" -> "an old cat"."""
    return ("an " if phrase[0] in "aeiou" and not phrase.startswith("uni") else "a ") + phrase


def plural(noun: str) -> str:
    """ "baby" -> "babies"."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh", "to")) else "s")


def third_person(verb: str) -> str:
    """ "watch" -> "watches", "wait for" -> "waits for"."""
    first, *rest = verb.split()
    return " ".join([{"have": "has", "do": "does", "go": "goes"}.get(first, plural(first)), *rest])


def past(verb: str) -> str:
    """ "study" -> "studied", "listen to" -> "listened to"."""
    if verb in IRREGULAR:
        return IRREGULAR[verb][0]
    first, *rest = verb.split()
    if first.endswith("e"):
        form = first + "d"
    elif first.endswith("y") and first[-2] not in "aeiou":
        form = first[:-1] + "ied"
    else:
        form = first + "ed"
    return " ".join([IRREGULAR.get(first, (form,))[0], *rest])


def progressive(verb: str) -> str:
    """ "make" -> "making", "look for" -> "looking for"."""
    if verb in IRREGULAR:
        return IRREGULAR[verb][1]
    first, *rest = verb.split()
    form = (first[:-1] if first.endswith("e") else first) + "ing"
    return " ".join([IRREGULAR.get(first, ("", form))[1], *rest])


class Agreement(NamedTuple):
    """What a verb depends on in its subject."""

    am: str  # am, are or is
    third: bool  # whether a verb takes -s


I = Agreement("am", False)  # noqa: E741
PLURAL = Agreement("are", False)  # you, we, they
SINGULAR = Agreement("is", True)


def verb_group(
    verb: str,
    agreement: Agreement,
    tense: str = "present",
    negative: bool = False,
    mode: str | None = None,
) -> tuple[str, str]:
    """Returns the auxiliary or "", and the rest: ("don't", "want to go"), ("", "goes").

    Args:
        verb: The infinitive, which may be "be".
        agreement: That of the subject.
        tense: "present", "past", "progressive" or "future".
        negative: Whether it is negated.
        mode: None, "want" (to), "can" or "must" (have to).
    """
    if mode == "want":
        verb = f"want to {verb}"
    elif mode == "must":
        verb = f"have to {verb}"
    if mode == "can":
        stem = "could" if tense == "past" else "can"
        return (f"{stem}n't".replace("cann't", "can't") if negative else stem), verb
    if tense == "future":
        return ("won't" if negative else "will"), verb
    be = {"past": "was" if agreement.am != "are" else "were"}.get(tense, agreement.am)
    if verb == "be" or tense == "progressive":
        rest = progressive(verb) if tense == "progressive" else ""
        if not negative:
            return be, rest
        return ("am not" if be == "am" else f"{be}n't"), rest
    if negative:
        do = "didn't" if tense == "past" else ("doesn't" if agreement.third else "don't")
        return do, verb
    if tense == "past":
        return "", past(verb)
    return "", third_person(verb) if agreement.third else verb


def with_auxiliary(
    verb: str,
    agreement: Agreement,
    tense: str = "present",
    negative: bool = False,
    mode: str | None = None,
) -> tuple[str, str]:
    """As `verb_group`, but always with an auxiliary, as in questions: ("does", "go")."""
    auxiliary, rest = verb_group(verb, agreement, tense, negative, mode)
    if auxiliary:
        return auxiliary, rest
    auxiliary, rest = verb_group(verb, agreement, tense, True, mode)
    return auxiliary.removesuffix("n't"), rest
