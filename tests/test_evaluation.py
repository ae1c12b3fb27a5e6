"""Scores are sacreBLEU's own, on NFC text, and what cannot be scored is refused with a reason."""

import json
import math
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_transformer import evaluation

pytestmark = pytest.mark.tensorflow_only

HYPOTHESES = [
    "A man rides a horse, quickly.",
    "Two dogs run along the beach",
    "나는 어제 친구와 함께 영화를 보았다.",
    "",
    "The child's kite - it flew away!",
]
REFERENCES = [
    "A man rides a brown horse, quickly.",
    "Two dogs are running along the Beach.",
    "나는 어제 친구들과 영화를 보았다.",
    "Nobody is here.",
    "The child's kite - it flew away!",
]


@pytest.mark.parametrize("tokenize", ["13a", "char", "none", "intl"])
def test_scores_and_signatures_are_those_of_sacrebleus_command_line(tokenize, tmp_path):
    (tmp_path / "hypotheses").write_text("\n".join(HYPOTHESES) + "\n", encoding="utf-8")
    (tmp_path / "references").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", "hypotheses"]
    command += ["--metrics", "bleu", "chrf", "--tokenize", tokenize, "--width", "4"]
    output = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    expected_bleu, expected_chrf = json.loads(output.stdout)

    scores = evaluation.evaluate(HYPOTHESES, REFERENCES, tokenize=tokenize)

    assert 0 < scores["bleu"] < 100
    assert scores["bleu"] == expected_bleu["score"]
    assert scores["bleu_signature"] == expected_bleu["signature"]
    assert scores["chrf"] == expected_chrf["score"]
    assert scores["chrf_signature"] == expected_chrf["signature"]


def test_bleu_of_a_prefix_is_the_brevity_penalty():
    # every n-gram of a prefix is in the reference, so that only exp(1 - 11 / 7) remains
    words = "one two three four five six seven eight nine ten eleven".split()
    score = evaluation.bleu([" ".join(words[:7])], [" ".join(words)])
    assert score.value == pytest.approx(100 * math.exp(1 - 11 / 7))


def test_lowercase_ignores_case_and_says_so():
    hypotheses, references = ["THE OLD MAN RIDES"], ["the old man rides"]
    assert evaluation.bleu(hypotheses, references).value == 0
    score = evaluation.bleu(hypotheses, references, lowercase=True)
    assert score.value == pytest.approx(100)
    assert "case:lc" in score.signature


def test_word_order_two_is_chrf_plus_plus():
    # the same letters, cut into other words: no difference but for the word n-grams
    hypotheses, references = ["tothe therapist"], ["to the therapist"]
    plain = evaluation.chrf(hypotheses, references)
    plus = evaluation.chrf(hypotheses, references, word_order=2)
    assert plain.value == 100 and "nw:0" in plain.signature
    assert plus.value < 100 and "nw:2" in plus.signature


def test_shares_and_counts_by_hand():
    hypotheses = ["one two three four", " five six ", "seven", "eight nine"]
    references = ["one two three four", "five six", "seven eight", "nine"]
    scores = evaluation.evaluate(hypotheses, references)
    assert scores["exact_match"] == 2 / 4
    assert scores["length_ratio"] == 9 / 9
    assert scores["sentences"] == 4
    assert evaluation.evaluate(["a b c"], ["a b c d e f g"])["length_ratio"] == round(3 / 7, 4)


def test_evaluate_makes_one_line_of_json():
    scores = evaluation.evaluate(HYPOTHESES, REFERENCES)
    line = json.dumps(scores)
    assert "\n" not in line
    assert json.loads(line) == scores


hangul = st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=4, max_size=11)


@given(st.lists(hangul, min_size=1, max_size=5))
def test_decomposed_korean_scores_100_against_composed(sentences):
    decomposed = [unicodedata.normalize("NFD", sentence) for sentence in sentences]
    assert decomposed != sentences
    for hypotheses, references in [(decomposed, sentences), (sentences, decomposed)]:
        scores = evaluation.evaluate(hypotheses, references, tokenize="char")
        assert scores["bleu"] == scores["chrf"] == 100
        assert scores["exact_match"] == scores["length_ratio"] == 1


def test_real_korean_decomposed_scores_100(data_dir):
    lines = (data_dir / "tatoeba_ko_en" / "kor.txt").read_text(encoding="utf-8").splitlines()[:499]
    korean = [line.split("\t")[1] for line in lines]
    decomposed = [unicodedata.normalize("NFD", sentence) for sentence in korean]
    scores = evaluation.evaluate(decomposed, korean, tokenize="char")
    assert (scores["bleu"], scores["chrf"], scores["exact_match"]) == (100, 100, 1)


def moses():
    return pytest.importorskip("sacremoses", reason="the `wmt` extra is not installed")


def test_compound_split_bleu_counts_moses_tokens_and_parts_of_compounds():
    moses()
    hypothesis = "Der rich-text Editor (S&P)"
    tokens = len("Der rich @ text Editor ( S & P )".split())
    reference = hypothesis + " kostet 3,50 €, z. B. heute"
    more = len("kostet 3,50 € , z. B. heute".split())
    score = evaluation.compound_split_bleu([hypothesis], [reference])
    # every n-gram of a prefix is in the reference, so that only the brevity penalty remains
    assert score.value == pytest.approx(100 * math.exp(1 - (tokens + more) / tokens))


@pytest.mark.parametrize(
    ("compound", "tokens"),
    [
        ("de-fg", 3),
        ("de - fg", 3),
        ("-de", 1),
        ("ab-cd-ef", 5),
        ("a-b-c", 3),
        ("a-ü-c", 5),
    ],
)
def test_hyphens_split_as_in_the_papers_script(compound, tokens):
    """Perl's s/(\\S)-(\\S)/.../g in bytes: the first hyphen uses up the b, and half of the ü."""
    moses()
    hypothesis = f"x y z {compound}"
    score = evaluation.compound_split_bleu([hypothesis], [hypothesis + " v w"])
    assert score.value == pytest.approx(100 * math.exp(-2 / (3 + tokens)))


def test_a_right_compound_counts_three_times():
    moses()
    hypotheses = ["ein Text-Editor hilft dem Mann", "wir gehen heute ins Kino"]
    references = ["ein Text-Editor nützt dem Mann", "wir gehen heute nach Hause"]
    plain = evaluation.bleu(hypotheses, references, tokenize="none").value
    assert evaluation.compound_split_bleu(hypotheses, references).value > plain + 5


def test_the_signature_of_compound_split_bleu_says_what_it_is():
    moses()
    signature = evaluation.compound_split_bleu(["a b"], ["a b"], language="fr").signature
    assert "tok:moses-fr-sacremoses-" in signature and "-compounds|" in signature
    assert "tok:none" not in signature and "version:" in signature


def test_the_language_reaches_moses_and_an_unknown_one_is_refused():
    moses()
    # French keeps the apostrophe with the article, German sets it apart
    hypothesis, reference = "l'homme est ici", "l'homme est ici et dort"
    for language, tokens in (("fr", "l' homme est ici"), ("de", "l ' homme est ici")):
        score = evaluation.compound_split_bleu([hypothesis], [reference], language)
        assert score.value == pytest.approx(100 * math.exp(-2 / len(tokens.split())))
    with pytest.raises(ValueError, match="'german': expected one of .*de, .*fr, "):
        evaluation.compound_split_bleu(["a"], ["a"], language="german")


def test_without_sacremoses_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ValueError, match=r"pip install keras-transformer-kit\[wmt\]"):
        evaluation.compound_split_bleu(["a"], ["a"])


@pytest.mark.parametrize(
    "score",
    [evaluation.bleu, evaluation.chrf, evaluation.evaluate, evaluation.compound_split_bleu],
)
@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a", "b", "c"], ["a", "b"], "Got 3 hypotheses and 2 references"),
        ([], [], "Got 0 references without any text"),
        (["a", "b"], ["", " "], "Got 2 references without any text"),
        ("a man", ["a man"], "`hypotheses` is one string"),
        (["a man"], "a man", "`references` is one string"),
        (["a", None], ["a", "b"], "`hypotheses` holds NoneType at position 1"),
        (["a"], [["a"]], "`references` holds list at position 0"),
    ],
)
def test_what_cannot_be_scored_is_refused(score, hypotheses, references, message):
    with pytest.raises(ValueError, match=message) as error:
        score(hypotheses, references)
    assert "expected" in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_tokenizer_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'mecab'.* 13a, char, .*ko-mecab"):
        evaluation.bleu(["a"], ["a"], tokenize="mecab")


@pytest.mark.parametrize(
    ("tokenize", "module", "install"),
    [
        ("ko-mecab", "tokenizer_ko_mecab", r"pip install keras-transformer-kit\[ko\]"),
        ("ja-mecab", "tokenizer_ja_mecab", r"pip install sacrebleu\[ja\]"),
    ],
)
def test_a_missing_tokenizer_names_what_to_install(tokenize, module, install, monkeypatch):
    # what sacreBLEU's modules hold where the package is not installed
    monkeypatch.setattr(f"sacrebleu.tokenizers.{module}.MeCab", None)
    with pytest.raises(ValueError, match=install) as error:
        evaluation.evaluate(["a"], ["a"], tokenize=tokenize)
    assert "\n" not in str(error.value)


def test_a_model_that_cannot_be_downloaded_is_named(monkeypatch, tmp_path):
    def no_network(url):
        raise OSError("no network")

    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(ValueError, match="'flores200' .*no network"):
        evaluation.bleu(["a"], ["a"], tokenize="flores200")


def test_morphemes_score_korean_where_mecab_is_installed():
    pytest.importorskip("mecab_ko", reason="the `ko` extra is not installed")
    score = evaluation.bleu(REFERENCES[2:3], REFERENCES[2:3], tokenize="ko-mecab")
    assert score.value == pytest.approx(100)
    assert "tok:ko-mecab" in score.signature


def test_scoring_prints_nothing_on_stdout_and_warns_of_tokenized_text_only_unasked(capfd, caplog):
    tokenized = ["A man rides a horse ."] * 101
    evaluation.evaluate(tokenized, tokenized, tokenize="none")
    assert not caplog.records
    evaluation.evaluate(tokenized, tokenized, tokenize="13a")
    assert "tokenized period" in caplog.text
    assert capfd.readouterr().out == ""
