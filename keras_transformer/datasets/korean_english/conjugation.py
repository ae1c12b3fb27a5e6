"""Korean verbs and adjectives: from the dictionary form to every form that the corpus uses.

A form is a stem and an ending. There are three families of endings, and irregular stems change
differently before each:

    consonant endings   stem as it is       먹고   듣고   춥고   모르고   쓰고   짓고   살고
    으 endings          (으)면, (으)ㄹ ...    먹으면 들으면 추우면 모르면   쓰면   지으면 살면
    어 endings          어요, 었다, 어서 ...   먹어요 들어요 추워요 몰라요   써요   지어요 살아요

The four speech levels (`LEVELS`): 해 to friends, 해라 plain writing, 해요 polite, 합쇼 formal.
"""

from keras_transformer.datasets.korean_english.hangul import (
    put_together,
    tail,
    take_apart,
    with_tail,
)

LEVELS = ("해", "해라", "해요", "합쇼")

# A stem in ㄷ, ㅂ, ㅅ or 르 does not show whether it changes, so each one is in one of these lists.
_IRREGULAR = {
    "ㄷ": "듣다 걷다 묻다",
    "ㅂ": "돕다 춥다 덥다 맵다 쉽다 어렵다 귀엽다 무겁다 가볍다 고맙다 아름답다",
    "ㅅ": "짓다 낫다",
    "르": "모르다 부르다 빠르다 마르다 고르다",
}
IRREGULAR = {verb: kind for kind, verbs in _IRREGULAR.items() for verb in verbs.split()}
REGULAR = set("닫다 받다 믿다 얻다 입다 잡다 좁다 씻다 웃다 벗다 따르다".split())


def kind(verb: str) -> str:
    """How a dictionary form conjugates: "ㄷ", "ㅂ", "ㅅ", "르", "으", "ㄹ", "하", "" if regular.

    Raises:
        ValueError: If it is no dictionary form, or if it may be irregular and is in no list.
    """
    if not verb.endswith("다") or len(verb) < 2:
        raise ValueError(f"expected a dictionary form, which ends in 다, got {verb!r}")
    word = verb.split()[-1]
    if word in IRREGULAR:
        return IRREGULAR[word]
    stem = word[:-1]
    if stem.endswith("하"):
        return "하"
    if word in REGULAR:
        return ""
    _, vowel, ending = take_apart(stem[-1])
    if ending in ("ㄷ", "ㅂ", "ㅅ") or stem.endswith("르"):
        raise ValueError(f"{word} may be irregular: put it into IRREGULAR or REGULAR")
    if vowel == "ㅡ" and not ending:
        return "으"
    return "ㄹ" if ending == "ㄹ" else ""


def join(verb: str, ending: str) -> str:
    """Joins a dictionary form and an ending.

    Args:
        verb: A verb such as "듣다". Of several words only the last changes ("배가 고프다").
        ending: The ending in its form after a tail: "고", "지만", "는", "니", "습니다", "는다",
            "으면", "을", "은", "으시다", "어", "어요", "었다". The vowel of 어 adapts to the stem.
    """
    if ending.startswith("었"):
        return with_tail(infinitive(verb), "ㅆ") + ending[1:]
    if ending.startswith("어"):
        return infinitive(verb) + ending[1:]
    stem, how = verb[:-1], kind(verb)
    if ending[0] in "으을은":
        return _join_eu(stem, how, ending)
    open_stem = not tail(stem) or how == "ㄹ"
    if ending.startswith(("습", "는다")) and open_stem:  # 갑니다, 삽니다; 간다, 산다
        return with_tail(stem, {"습": "ㅂ", "는": "ㄴ"}[ending[0]]) + ending[1:]
    if how == "ㄹ" and ending.startswith(("니", "는")):  # 사니, 사는
        stem = with_tail(stem, "")
    return stem + ending


def _join_eu(stem, how, ending):
    if how == "ㄷ":
        stem = with_tail(stem, "ㄹ")  # 들으면
    elif how == "ㅂ":
        stem = with_tail(stem, "") + "우"  # 추우면
    elif how == "ㅅ":
        return with_tail(stem, "") + ending  # 지으면: no contraction
    if how == "ㄹ":
        if ending.startswith("으시"):
            return with_tail(stem, "") + ending[1:]  # 사시다
        if ending[0] != "으":  # 살, 산
            return with_tail(stem, tail(ending[0])) + ending[1:]
        return stem + ending[1:]  # 살면
    if tail(stem):
        return stem + ending
    if ending[0] == "으":
        return stem + ending[1:]
    return with_tail(stem, tail(ending[0])) + ending[1:]  # 갈, 간


def infinitive(verb: str) -> str:
    """The form in 아 or 어, which is also the present of the level 해: 가, 먹어, 마셔, 해."""
    stem, how = verb[:-1], kind(verb)
    head, last = stem[:-1], stem[-1]
    lead, vowel, ending = take_apart(last)
    if how == "하":
        return head + "해"
    if how == "르":  # 몰라, 불러
        return with_tail(head, "ㄹ") + ("라" if _bright(head) else "러")
    if how == "으":  # 바빠, 예뻐, 써
        bright = head and not head.endswith(" ") and _bright(head)
        return head + put_together(lead, "ㅏ" if bright else "ㅓ")
    if how == "ㅂ":  # 도와, 추워
        return with_tail(stem, "") + ("와" if last == "돕" else "워")
    if how == "ㅅ":
        return with_tail(stem, "") + ("아" if _bright(stem) else "어")
    if how == "ㄷ":
        return with_tail(stem, "ㄹ") + ("아" if _bright(stem) else "어")
    if ending:
        # The tail of a past stem takes 어 whatever comes before it: 갔어.
        return stem + ("아" if _bright(stem) and ending != "ㅆ" else "어")
    if vowel in _CONTRACTED:
        return head + put_together(lead, _CONTRACTED[vowel])
    return stem + "어"  # 쉬어


_CONTRACTED = {
    **{vowel: vowel for vowel in "ㅏㅓㅐㅔㅕ"},  # 가, 서, 보내, 세, 켜
    **{"ㅗ": "ㅘ", "ㅜ": "ㅝ", "ㅣ": "ㅕ", "ㅚ": "ㅙ"},  # 봐, 배워, 마셔, 돼
}


def _bright(text):
    return take_apart(text[-1])[1] in "ㅏㅑㅗ"


def past(verb: str) -> str:
    """The dictionary form of the past, which conjugates further: 가다 -> 갔다."""
    return join(verb, "었다")


# Stems whose honorific form is a word of its own.
HONORIFIC = {
    "먹다": "드시다",
    "마시다": "드시다",
    "자다": "주무시다",
    "있다": "계시다",
    "주다": "주시다",
    "아프다": "편찮으시다",
}


def honorific(verb: str) -> str:
    """The dictionary form that honours the subject: 가다 -> 가시다, 먹다 -> 드시다."""
    return HONORIFIC.get(verb) or join(verb, "으시다")


def finite(verb: str, level: str, question: bool = False, descriptive: bool = False) -> str:
    """The present at a speech level: 가다 -> 가, 간다, 가요, 갑니다.

    Args:
        verb: The dictionary form. For the past pass `past(verb)`.
        level: One of `LEVELS`.
        question: Whether it asks.
        descriptive: True for adjectives, 있다, 없다 and past forms. With them 해라 takes 다 instead
            of ㄴ다.
    """
    if level == "해":
        return infinitive(verb)
    if level == "해요":
        if verb.endswith("시다") and verb not in ("마시다",):  # honorific 가시다 -> 가세요
            return verb[:-2] + "세요"
        return infinitive(verb) + "요"
    if level == "합쇼":
        return join(verb, "습니까" if question else "습니다")
    if question:
        return join(verb, "니")
    return verb if descriptive else join(verb, "는다")


def future(verb: str, level: str, question: bool = False) -> str:
    """The future at a speech level: 갈 거야, 갈 것이다, 갈 거예요, 갈 겁니다."""
    ending = {
        "해": "거야",
        "해라": "거니" if question else "것이다",
        "해요": "거예요",
        "합쇼": "겁니까" if question else "겁니다",
    }[level]
    return f"{join(verb, '을')} {ending}"


def copula(
    noun: str, level: str, question: bool = False, past: bool = False, honoured: bool = False
) -> str:
    """A noun and 이다 (be): 학생이야, 학생이다, 학생이에요, 학생입니다; 의사야, 의사예요."""
    closed = bool(tail(noun))
    if honoured:
        stem = noun + ("이시" if closed else "시")
        return finite(stem + "다" if not past else join(stem + "다", "었다"), level, question, True)
    if past:
        stem = noun + ("이었다" if closed else "였다")
        return finite(stem, level, question, True)
    endings = {
        "해": ("이야", "야"),
        "해라": ("이니", "니") if question else ("이다", "다"),
        "해요": ("이에요", "예요"),
    }
    if level == "합쇼":
        return noun + ("입니까" if question else "입니다")
    return noun + endings[level][0 if closed else 1]


def not_copula(
    level: str, question: bool = False, past: bool = False, honoured: bool = False
) -> str:
    """아니다 (be not), which follows noun + 이/가: 아니야, 아니다, 아니에요, 아닙니다."""
    if past:
        return finite("아니셨다" if honoured else "아니었다", level, question, True)
    if honoured:
        return finite("아니시다", level, question, True)
    return {
        "해": "아니야",
        "해라": "아니니" if question else "아니다",
        "해요": "아니에요",
        "합쇼": "아닙니까" if question else "아닙니다",
    }[level]
