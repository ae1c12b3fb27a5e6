"""Tests of the bundled corpus: forms equal tables written by hand, and splits do not leak."""

import random
import unicodedata
from pathlib import Path

import pytest

from keras_transformer.datasets.korean_english import __main__, conjugation, lexicon, splits
from keras_transformer.datasets.korean_english.conjugation import (
    LEVELS,
    finite,
    future,
    honorific,
    join,
    past,
)
from keras_transformer.datasets.korean_english.drawing import draw
from keras_transformer.datasets.korean_english.hangul import put_together, take_apart, with_particle
from keras_transformer.datasets.korean_english.in_english import english as in_english
from keras_transformer.datasets.korean_english.in_korean import korean
from keras_transformer.datasets.korean_english.lexicon import (
    ADJECTIVES,
    MINE,
    NAMES,
    PLACES,
    SPEAKER,
    THINGS,
    VERBS,
)
from keras_transformer.datasets.korean_english.meaning import Clause, Pair, Thing, clock
from keras_transformer.text import train_tokenizer
from keras_transformer.text.seen import Seen

pytestmark = pytest.mark.tensorflow_only  # needs no backend

# Dictionary form | 해 | 해라 | 해요 | 합쇼 | past | future | if | which (now) | question of 해라
VERB_FORMS = """
가다 | 가 | 간다 | 가요 | 갑니다 | 갔어요 | 갈 거예요 | 가면 | 가는 | 가니
오다 | 와 | 온다 | 와요 | 옵니다 | 왔어요 | 올 거예요 | 오면 | 오는 | 오니
먹다 | 먹어 | 먹는다 | 먹어요 | 먹습니다 | 먹었어요 | 먹을 거예요 | 먹으면 | 먹는 | 먹니
마시다 | 마셔 | 마신다 | 마셔요 | 마십니다 | 마셨어요 | 마실 거예요 | 마시면 | 마시는 | 마시니
읽다 | 읽어 | 읽는다 | 읽어요 | 읽습니다 | 읽었어요 | 읽을 거예요 | 읽으면 | 읽는 | 읽니
쓰다 | 써 | 쓴다 | 써요 | 씁니다 | 썼어요 | 쓸 거예요 | 쓰면 | 쓰는 | 쓰니
듣다 | 들어 | 듣는다 | 들어요 | 듣습니다 | 들었어요 | 들을 거예요 | 들으면 | 듣는 | 듣니
걷다 | 걸어 | 걷는다 | 걸어요 | 걷습니다 | 걸었어요 | 걸을 거예요 | 걸으면 | 걷는 | 걷니
닫다 | 닫아 | 닫는다 | 닫아요 | 닫습니다 | 닫았어요 | 닫을 거예요 | 닫으면 | 닫는 | 닫니
돕다 | 도와 | 돕는다 | 도와요 | 돕습니다 | 도왔어요 | 도울 거예요 | 도우면 | 돕는 | 돕니
입다 | 입어 | 입는다 | 입어요 | 입습니다 | 입었어요 | 입을 거예요 | 입으면 | 입는 | 입니
짓다 | 지어 | 짓는다 | 지어요 | 짓습니다 | 지었어요 | 지을 거예요 | 지으면 | 짓는 | 짓니
웃다 | 웃어 | 웃는다 | 웃어요 | 웃습니다 | 웃었어요 | 웃을 거예요 | 웃으면 | 웃는 | 웃니
모르다 | 몰라 | 모른다 | 몰라요 | 모릅니다 | 몰랐어요 | 모를 거예요 | 모르면 | 모르는 | 모르니
부르다 | 불러 | 부른다 | 불러요 | 부릅니다 | 불렀어요 | 부를 거예요 | 부르면 | 부르는 | 부르니
살다 | 살아 | 산다 | 살아요 | 삽니다 | 살았어요 | 살 거예요 | 살면 | 사는 | 사니
만들다 | 만들어 | 만든다 | 만들어요 | 만듭니다 | 만들었어요 | 만들 거예요 | 만들면 | 만드는 | 만드니
알다 | 알아 | 안다 | 알아요 | 압니다 | 알았어요 | 알 거예요 | 알면 | 아는 | 아니
하다 | 해 | 한다 | 해요 | 합니다 | 했어요 | 할 거예요 | 하면 | 하는 | 하니
배우다 | 배워 | 배운다 | 배워요 | 배웁니다 | 배웠어요 | 배울 거예요 | 배우면 | 배우는 | 배우니
보다 | 봐 | 본다 | 봐요 | 봅니다 | 봤어요 | 볼 거예요 | 보면 | 보는 | 보니
쉬다 | 쉬어 | 쉰다 | 쉬어요 | 쉽니다 | 쉬었어요 | 쉴 거예요 | 쉬면 | 쉬는 | 쉬니
보내다 | 보내 | 보낸다 | 보내요 | 보냅니다 | 보냈어요 | 보낼 거예요 | 보내면 | 보내는 | 보내니
주다 | 줘 | 준다 | 줘요 | 줍니다 | 줬어요 | 줄 거예요 | 주면 | 주는 | 주니
"""
# Dictionary form | 해 | 해라 | 해요 | 합쇼 | past | if | before a noun
ADJECTIVE_FORMS = """
춥다 | 추워 | 춥다 | 추워요 | 춥습니다 | 추웠어요 | 추우면 | 추운
어렵다 | 어려워 | 어렵다 | 어려워요 | 어렵습니다 | 어려웠어요 | 어려우면 | 어려운
예쁘다 | 예뻐 | 예쁘다 | 예뻐요 | 예쁩니다 | 예뻤어요 | 예쁘면 | 예쁜
바쁘다 | 바빠 | 바쁘다 | 바빠요 | 바쁩니다 | 바빴어요 | 바쁘면 | 바쁜
크다 | 커 | 크다 | 커요 | 큽니다 | 컸어요 | 크면 | 큰
작다 | 작아 | 작다 | 작아요 | 작습니다 | 작았어요 | 작으면 | 작은
달다 | 달아 | 달다 | 달아요 | 답니다 | 달았어요 | 달면 | 단
비싸다 | 비싸 | 비싸다 | 비싸요 | 비쌉니다 | 비쌌어요 | 비싸면 | 비싼
행복하다 | 행복해 | 행복하다 | 행복해요 | 행복합니다 | 행복했어요 | 행복하면 | 행복한
고프다 | 고파 | 고프다 | 고파요 | 고픕니다 | 고팠어요 | 고프면 | 고픈
마르다 | 말라 | 마르다 | 말라요 | 마릅니다 | 말랐어요 | 마르면 | 마른
"""
# Noun | topic | subject | object | with | toward
PARTICLE_FORMS = """
책 | 책은 | 책이 | 책을 | 책과 | 책으로
커피 | 커피는 | 커피가 | 커피를 | 커피와 | 커피로
서울 | 서울은 | 서울이 | 서울을 | 서울과 | 서울로
부산 | 부산은 | 부산이 | 부산을 | 부산과 | 부산으로
학교 | 학교는 | 학교가 | 학교를 | 학교와 | 학교로
나 | 나는 | 내가 | 나를 | 나와 | 나로
저 | 저는 | 제가 | 저를 | 저와 | 저로
누구 | 누구는 | 누가 | 누구를 | 누구와 | 누구로
"""
# Noun | 해 | 해라 | 해라? | 해요 | 합쇼 | past | not
COPULA_FORMS = """
학생 | 학생이야 | 학생이다 | 학생이니 | 학생이에요 | 학생입니다 | 학생이었어요 | 학생이 아니에요
의사 | 의사야 | 의사다 | 의사니 | 의사예요 | 의사입니다 | 의사였어요 | 의사가 아니에요
"""


def rows(table):
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def test_the_tables_have_200_forms():
    tables = (VERB_FORMS, ADJECTIVE_FORMS, PARTICLE_FORMS, COPULA_FORMS)
    assert sum(len(row) - 1 for table in tables for row in rows(table)) >= 200


# Fails if: 갔 is followed by 아; 살다 becomes 살니 instead of 사니.
@pytest.mark.parametrize("row", rows(VERB_FORMS), ids=lambda row: row[0])
def test_verbs(row):
    verb, *forms = row
    made = [finite(verb, level) for level in LEVELS]
    made += [finite(past(verb), "해요"), future(verb, "해요")]
    made += [join(verb, "으면"), join(verb, "는"), finite(verb, "해라", question=True)]
    assert made == forms


@pytest.mark.parametrize("row", rows(ADJECTIVE_FORMS), ids=lambda row: row[0])
def test_adjectives(row):
    adjective, *forms = row
    made = [finite(adjective, level, descriptive=True) for level in LEVELS]
    made += [finite(past(adjective), "해요"), join(adjective, "으면"), join(adjective, "은")]
    assert made == forms


# Fails if: ㄹ does not count as open before 로.
@pytest.mark.parametrize("row", rows(PARTICLE_FORMS), ids=lambda row: row[0])
def test_particles(row):
    noun, *forms = row
    kinds = ("topic", "subject", "object", "with", "toward")
    assert [with_particle(noun, kind) for kind in kinds] == forms


@pytest.mark.parametrize("row", rows(COPULA_FORMS), ids=lambda row: row[0])
def test_to_be_a_noun(row):
    noun, *forms = row
    made = [conjugation.copula(noun, level) for level in LEVELS]
    made.insert(2, conjugation.copula(noun, "해라", question=True))
    made.append(conjugation.copula(noun, "해요", past=True))
    made.append(f"{with_particle(noun, 'subject')} {conjugation.not_copula('해요')}")
    assert made == forms


@pytest.mark.parametrize(
    ("verb", "polite", "formal", "before"),
    [
        ("가다", "가세요", "가십니다", "가셨어요"),
        ("읽다", "읽으세요", "읽으십니다", "읽으셨어요"),
        ("먹다", "드세요", "드십니다", "드셨어요"),
        ("자다", "주무세요", "주무십니다", "주무셨어요"),
        ("있다", "계세요", "계십니다", "계셨어요"),
        ("살다", "사세요", "사십니다", "사셨어요"),
        ("듣다", "들으세요", "들으십니다", "들으셨어요"),
        ("돕다", "도우세요", "도우십니다", "도우셨어요"),
    ],
)
def test_honorifics(verb, polite, formal, before):
    honoured = honorific(verb)
    made = (finite(honoured, "해요"), finite(honoured, "합쇼"), finite(past(honoured), "해요"))
    assert made == (polite, formal, before)


def test_every_syllable_comes_apart_and_together():
    for code in range(ord("가"), ord("힣") + 1):
        assert put_together(*take_apart(chr(code))) == chr(code)
        lead, vowel, tail = take_apart(chr(code))
        conjoining = unicodedata.normalize("NFD", chr(code))
        assert len(conjoining) == (3 if tail else 2)


@pytest.mark.parametrize("word", ["TV", "커피3", "ㄱ", "", unicodedata.normalize("NFD", "책")])
def test_what_is_not_hangul_is_refused(word):
    with pytest.raises(ValueError, match="one composed Hangul syllable"):
        with_particle(word, "object")


@pytest.mark.parametrize("verb", ["굽다", "묻히르다", "싣다", "붓다"])
def test_what_may_be_irregular_is_refused(verb):
    with pytest.raises(ValueError, match="IRREGULAR or REGULAR"):
        finite(verb, "해")


def test_what_is_no_dictionary_form_is_refused():
    with pytest.raises(ValueError, match="dictionary form"):
        finite("먹어", "해")


# --- sentences ---

DRINK, STUDY = VERBS["마시다", "drink"], VERBS["공부하다", "study"]
GRANDMA = next(who for who in MINE if who.ko == "할머니")
MOTHER = next(who for who in MINE if who.ko == "엄마")
SUJIN = next(who for who in NAMES if who.en == "Sujin")
COFFEE = THINGS["커피"]


@pytest.mark.parametrize(
    ("meaning", "level", "ko", "en"),
    [
        (
            Clause(SPEAKER, VERBS["좋아하다", "like"], Thing(COFFEE, "all")),
            "해",
            "나는 커피를 좋아해.",
            "I love coffee.",
        ),
        (
            Clause(SPEAKER, VERBS["좋아하다", "like"], SUJIN),
            "해요",
            "저는 수진 씨를 좋아해요.",
            "I like Sujin.",
        ),
        (
            Clause(SPEAKER, STUDY, Thing(THINGS["수학"]), negative="안"),
            "해요",
            "저는 수학 공부를 안 해요.",
            "I don't study math.",
        ),
        (
            Clause(SPEAKER, VERBS["주문하다", "order"], Thing(COFFEE), negative="안"),
            "해라",
            "나는 커피를 주문하지 않는다.",
            "I don't order coffee.",
        ),
        (
            Clause(GRANDMA, DRINK, Thing(COFFEE), tense="past"),
            "합쇼",
            "우리 할머니께서는 커피를 드셨습니다.",
            "My grandma drank coffee.",
        ),
        (
            Clause(SUJIN, DRINK, Thing(COFFEE, count=3), mode="want"),
            "해",
            "수진이는 커피 세 잔을 마시고 싶어 해.",
            "Sujin wants to drink three cups of coffee.",
        ),
        (
            Clause(
                SUJIN,
                VERBS["주다", "give"],
                Thing(THINGS["책"]),
                to=GRANDMA,
                tense="past",
                question=True,
            ),
            "해라",
            "수진은 우리 할머니께 책을 드렸니?",
            "Did Sujin give a book to my grandma?",
        ),
        (
            Clause(SPEAKER, VERBS["물을 주다", "water"], Thing(THINGS["꽃"]), at=PLACES["공원"]),
            "해요",
            "저는 공원에서 꽃에 물을 줘요.",
            "I water a flower in the park.",
        ),
        (
            Clause(lexicon.LISTENER, VERBS["만나다", "meet"], "who", tense="past", question=True),
            "해요",
            "누구를 만나셨어요?",
            "Who did you meet?",
        ),
        (
            Clause("who", DRINK, Thing(COFFEE), tense="past", question=True),
            "해",
            "누가 커피를 마셨어?",
            "Who drank coffee?",
        ),
        (
            Clause(
                Thing(THINGS["빵"], relative=Clause(MOTHER, VERBS["만들다", "make"], tense="past")),
                ADJECTIVES["맛있다"],
            ),
            "해요",
            "우리 엄마가 만든 빵은 맛있어요.",
            "The bread that my mom made is delicious.",
        ),
        (
            Pair(
                Clause(SPEAKER, ADJECTIVES["배가 고프다"], tense="past"),
                "어서",
                Clause(SPEAKER, VERBS["먹다", "eat"], Thing(THINGS["밥"]), tense="past"),
            ),
            "해요",
            "저는 배가 고파서 밥을 먹었어요.",
            "I was hungry, so I ate rice.",
        ),
        (
            Clause(SPEAKER, VERBS["만나다", "meet"], SUJIN, time=clock(3, 15), mode="must"),
            "합쇼",
            "저는 세 시 십오 분에 수진 씨를 만나야 합니다.",
            "I have to meet Sujin at three fifteen.",
        ),
        (
            Clause(SPEAKER, VERBS["알다", "know"], SUJIN, negative="안"),
            "해라",
            "나는 수진을 모른다.",
            "I don't know Sujin.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith((".", "?")) else "",
)
def test_sentences(meaning, level, ko, en):
    assert (korean(meaning, level), in_english(meaning)) == (ko, en)
    assert (korean(meaning, level, False), in_english(meaning, False)) == (
        ko.rstrip("."),
        en.rstrip("."),
    )


def meanings(count, seed=5):
    rng = random.Random(seed)
    return [draw(rng) for _ in range(count)]


# Fails if: polite levels honour everybody, including the speaker.
def test_nobody_honours_oneself_and_pronouns_fit_the_level():
    for meaning in meanings(3000):
        clauses = [meaning.first, meaning.second] if isinstance(meaning, Pair) else [meaning]
        for level in LEVELS:
            words = korean(meaning, level).rstrip(".?").split()
            polite = level in ("해요", "합쇼")
            wrong = (
                {"나는", "내가", "내", "너는", "나를"} if polite else {"저는", "제가", "제", "저를"}
            )
            assert not wrong & set(words), words
            if all(clause.subject is SPEAKER for clause in clauses):
                verb = words[-1]
                assert not any(
                    part in verb for part in ("세요", "십니", "셨", "시다", "신다")
                ) or any(part in verb for part in ("마셨", "마신", "마십")), words


def parts(meaning):
    """Yields a meaning and all its parts."""
    yield meaning
    if isinstance(meaning, tuple):
        for part in meaning:
            yield from parts(part)


def test_every_word_is_used():
    used = {part for meaning in meanings(30_000) for part in parts(meaning) if part is not None}
    used = {getattr(part, "ko", part) for part in used}
    assert len(splits.words()) > 200
    assert [ko for ko, _ in splits.words() if ko not in used] == []


# --- the splits ---


@pytest.fixture(scope="module")
def corpus():
    return splits.generate()  # takes seconds, so tests share it


def test_the_corpus_is_a_function_of_its_seed():
    first, again, other = (splits.generate(seed, size=300, test_size=20) for seed in (1, 1, 2))
    assert first == again and first["train"] != other["train"]


def test_no_sentence_and_no_meaning_is_on_two_sides(corpus):
    sides = {}
    for name, pairs in corpus.items():
        for ko, en in pairs:
            for text in (ko.rstrip("."), en.rstrip(".?") + ("?" if en.endswith("?") else "")):
                assert sides.setdefault(text, name) == name, text


def test_a_korean_sentence_has_one_english_one(corpus):
    translations = {}
    for pairs in corpus.values():
        for ko, en in pairs:
            assert translations.setdefault(ko.rstrip("."), en.rstrip(".")) == en.rstrip(".")
            assert ko.endswith("?") == en.endswith("?") and ko.endswith(".") == en.endswith(".")
            assert unicodedata.is_normalized("NFC", ko)


def test_about_half_end_in_a_period(corpus):
    statements = [ko for ko, _ in corpus["train"] if not ko.endswith("?")]
    assert 0.45 < sum(ko.endswith(".") for ko in statements) / len(statements) < 0.55


def test_english_to_korean_has_one_korean_sentence_each():
    translations = {}
    for pairs in splits.generate(1, 4000, test_size=30, to_korean=True).values():
        for ko, en in pairs:
            assert translations.setdefault(en.rstrip("."), ko.rstrip(".")) == ko.rstrip(".")


def test_training_has_none_of_the_combinations_of_the_tests(corpus):
    """Checks the text for combinations that a word reveals."""
    text = "\n".join(ko for ko, _ in corpus["train"] + corpus["valid"] + corpus["random"])
    for forbidden in (
        "치즈를",
        "피자를",
        "맥주를",
        "세 잔",
        "세 명",
        "두 대",
        "우산을 샀",
        "코트를 입",
    ):
        assert forbidden not in text
    for name, part in (("topics", "맥주를"), ("counts", "다섯 마리"), ("objects", "편지를 쓰")):
        assert any(part in ko for ko, _ in corpus[name]), part
    for part in ("치즈는", "세 개", "우산", "코트"):
        assert part in text


def test_probes_are_in_no_split(corpus):
    known = {en.rstrip(".") for pairs in corpus.values() for _, en in pairs}
    probes = splits.PROBES + splits.POLITE_PROBES
    assert not {en.rstrip(".") for _, en in probes} & known


def test_training_has_every_word_and_piece_of_probes_and_tests(corpus):
    train = corpus["train"]
    tokenizer = train_tokenizer(train, 2000, character_coverage=1.0)
    seen = Seen.of([ko for ko, _ in train], tokenizer)
    assert [seen.unseen(ko, tokenizer) for ko, _ in splits.PROBES] == [[]] * len(splits.PROBES)
    for ko, en in [pair for name in corpus.keys() - {"train"} for pair in corpus[name]]:
        pieces = tokenizer.pieces(ko) + tokenizer.pieces(en)
        assert not any(piece.startswith("<0x") for piece in pieces), (ko, en)


def test_the_page_of_samples_is_what_the_corpus_prints(corpus, capsys, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "corpus_sample.tsv").read_text(encoding="utf-8")
    made = {(1, splits.SIZE): corpus}  # by seed and size
    monkeypatch.setattr(__main__.corpus, "generate", lambda *arguments: made[arguments])
    monkeypatch.setattr("sys.argv", ["corpus", "--sample", "200"])
    __main__.main()
    assert capsys.readouterr().out == page and page.count("\n") == 200


def test_the_words_are_printed_with_their_english(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["corpus", "--words"])
    __main__.main()
    lines = capsys.readouterr().out.splitlines()
    assert {"커피\tcoffee", "마시다\tdrink", "맛있다\tdelicious", "나\tI"} <= set(lines)
    assert len(lines) == len(set(lines)) > 200
