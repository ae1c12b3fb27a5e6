"""Hangul syllables taken apart, and the particles that depend on a word's last sound.

A syllable is a lead, a vowel and perhaps a tail (받침): 한 = ㅎ + ㅏ + ㄴ. Unicode orders the
syllables so that arithmetic finds the parts. Most variation in written Korean depends on one
question: does the word end in a tail?
"""

import unicodedata

LEADS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
TAILS = ("", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ")
FIRST, LAST = ord("가"), ord("힣")

# After a tail, without one.
PARTICLES = {
    "topic": ("은", "는"),
    "subject": ("이", "가"),
    "object": ("을", "를"),
    "with": ("과", "와"),
    "toward": ("으로", "로"),  # ㄹ counts as no tail: 서울로
}


def take_apart(syllable: str) -> tuple[str, str, str]:
    """ "한" -> ("ㅎ", "ㅏ", "ㄴ"); the tail of "하" is "".

    Raises:
        ValueError: For anything but one composed Hangul syllable.
    """
    if len(syllable) != 1 or not FIRST <= ord(syllable) <= LAST:
        raise ValueError(
            f"expected one composed Hangul syllable (NFC), got {syllable!r}"
            + (": compose it by unicodedata.normalize('NFC', ...)" if _decomposed(syllable) else "")
        )
    lead, rest = divmod(ord(syllable) - FIRST, len(VOWELS) * len(TAILS))
    vowel, tail = divmod(rest, len(TAILS))
    return LEADS[lead], VOWELS[vowel], TAILS[tail]


def _decomposed(text):
    return unicodedata.normalize("NFC", text) != text


def put_together(lead: str, vowel: str, tail: str = "") -> str:
    """("ㅎ", "ㅏ", "ㄴ") -> "한"."""
    index = (LEADS.index(lead) * len(VOWELS) + VOWELS.index(vowel)) * len(TAILS)
    return chr(FIRST + index + TAILS.index(tail))


def tail(word: str) -> str:
    """The tail of a word's last syllable, or "": "책" -> "ㄱ"."""
    return take_apart(word[-1:])[2]


def with_tail(word: str, new: str) -> str:
    """The word with another last tail, or none: ("가", "ㄴ") -> "간", ("살", "") -> "사"."""
    lead, vowel, _ = take_apart(word[-1:])
    return word[:-1] + put_together(lead, vowel, new)


def with_particle(word: str, kind: str) -> str:
    """The word and its particle: ("책", "object") -> "책을", ("서울", "toward") -> "서울로".

    Args:
        word: A word that ends in a composed Hangul syllable.
        kind: A key of `PARTICLES`: topic, subject, object, with, toward.

    Raises:
        ValueError: If the word does not end in Hangul. "TV" may be read with a tail or without.
    """
    if word in IRREGULAR_SUBJECTS and kind == "subject":
        return IRREGULAR_SUBJECTS[word]
    ending = tail(word)
    closed = ending != "" and not (kind == "toward" and ending == "ㄹ")
    return word + PARTICLES[kind][0 if closed else 1]


# The pronouns that change before the subject's 가.
IRREGULAR_SUBJECTS = {"나": "내가", "저": "제가", "너": "네가", "누구": "누가"}
