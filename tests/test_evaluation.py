"""Tests that scores equal sacreBLEU's on NFC text, and that unusable input gives a clear error."""

import json
import math
import subprocess
import sys
import unicodedata

import pytest
from accuracy import binomial_interval, mcnemar
from hypothesis import given
from hypothesis import strategies as st
from wmt14_bleu import compound_split_bleu

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


OTHERS = [
    "A man is riding a brown horse.",
    "Two dogs run along the beach.",
    "어제 나는 친구와 영화를 봤다.",
    "No one is here.",
    "A child's kite flew away.",
]


# Fails if: only the first or the last set counts; their order matters.
@pytest.mark.parametrize("tokenize", ["13a", "char"])
def test_scores_against_several_references_are_sacrebleus(tokenize):
    from sacrebleu.metrics import BLEU, CHRF

    sets = [REFERENCES, OTHERS]
    found = evaluation.evaluate(HYPOTHESES, REFERENCES, tokenize, more_references=[OTHERS])
    bleu = BLEU(tokenize=tokenize)
    expected = bleu.corpus_score(HYPOTHESES, sets).score
    assert found["bleu"] == round(expected, 4) and found["references"] == 2
    assert found["bleu_signature"] == str(bleu.get_signature()) and "nrefs:2" in str(
        bleu.get_signature()
    )
    for name, order in (("chrf", 0), ("chrf++", 2)):
        assert found[name] == round(CHRF(word_order=order).corpus_score(HYPOTHESES, sets).score, 4)
    swapped = evaluation.evaluate(HYPOTHESES, OTHERS, tokenize, more_references=[REFERENCES])
    assert swapped["bleu"] == found["bleu"]
    alone = [evaluation.evaluate(HYPOTHESES, each, tokenize) for each in sets]
    assert found["bleu"] > max(each["bleu"] for each in alone) and "references" not in alone[0]
    assert evaluation.evaluate(OTHERS, REFERENCES, more_references=[OTHERS])["exact_match"] == 1
    systems = {"ours": HYPOTHESES, "theirs": OTHERS}
    first, second = evaluation.compare(
        systems, REFERENCES, tokenize, n_samples=9, more_references=[OTHERS]
    )
    assert first["bleu"] == found["bleu"] and second["exact_match"] == 1
    assert "nrefs:2" in first["bleu_signature"]


def test_several_references_that_do_not_fit_are_refused():
    for options, message in (
        ({"more_references": [OTHERS[1:]]}, "5 hypotheses and 4 references"),
        ({"more_references": OTHERS}, "expected a list of lists"),
        ({"more_references": [OTHERS], "error_rates": True}, "one set of references, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation.evaluate(HYPOTHESES, REFERENCES, **options)


# Fails if: hypotheses and references are swapped.
@pytest.mark.parametrize("tokenize", ["13a", "char", "none", "intl"])
def test_scores_and_signatures_are_those_of_sacrebleus_command_line(tokenize, tmp_path):
    (tmp_path / "hypotheses").write_text("\n".join(HYPOTHESES) + "\n", encoding="utf-8")
    (tmp_path / "references").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", "hypotheses"]
    command += ["--tokenize", tokenize, "--width", "4", "--metrics"]

    def expected(*metrics):
        arguments = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True}
        return json.loads(subprocess.run([*command, *metrics], **arguments).stdout)

    expected_bleu, expected_chrf = expected("bleu", "chrf")
    scores = evaluation.evaluate(HYPOTHESES, REFERENCES, tokenize=tokenize)

    assert 0 < scores["bleu"] < 100
    assert scores["bleu"] == expected_bleu["score"]
    assert scores["bleu_signature"] == expected_bleu["signature"]
    assert scores["chrf"] == expected_chrf["score"]
    assert scores["chrf_signature"] == expected_chrf["signature"]
    if tokenize == "13a":  # chrF has no tokenizer
        expected_chrf = expected("chrf", "--chrf-word-order", "2")
        assert scores["chrf++"] == expected_chrf["score"] != scores["chrf"]
        assert scores["chrf++_signature"] == expected_chrf["signature"]


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
    # The letters are the same, but the words are not. Only word n-grams differ.
    hypotheses, references = ["tothe therapist"], ["to the therapist"]
    plain = evaluation.chrf(hypotheses, references)
    plus = evaluation.chrf(hypotheses, references, word_order=2)
    assert plain.value == 100 and "nw:0" in plain.signature
    assert plus.value < 100 and "nw:2" in plus.signature


# Fails if: the length ratio is inverted.
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


# Fails if: scoring does not compose text (NFC).
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


# Fails if: hypotheses and references are swapped.
def test_compound_split_bleu_counts_moses_tokens_and_parts_of_compounds():
    moses()
    hypothesis = "Der rich-text Editor (S&P)"
    tokens = len("Der rich @ text Editor ( S & P )".split())
    reference = hypothesis + " kostet 3,50 €, z. B. heute"
    more = len("kostet 3,50 € , z. B. heute".split())
    score = compound_split_bleu([hypothesis], [reference])
    # every n-gram of a prefix is in the reference, so that only the brevity penalty remains
    assert score.value == pytest.approx(100 * math.exp(1 - (tokens + more) / tokens))


# Fails if: hyphens are split in characters instead of bytes, or not at all.
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
    """Perl applies s/(\\S)-(\\S)/.../g to bytes: the first hyphen consumes the b and half of ü."""
    moses()
    hypothesis = f"x y z {compound}"
    score = compound_split_bleu([hypothesis], [hypothesis + " v w"])
    assert score.value == pytest.approx(100 * math.exp(-2 / (3 + tokens)))


def test_a_right_compound_counts_three_times():
    moses()
    hypotheses = ["ein Text-Editor hilft dem Mann", "wir gehen heute ins Kino"]
    references = ["ein Text-Editor nützt dem Mann", "wir gehen heute nach Hause"]
    plain = evaluation.bleu(hypotheses, references, tokenize="none").value
    assert compound_split_bleu(hypotheses, references).value > plain + 5


def test_the_signature_of_compound_split_bleu_says_what_it_is():
    moses()
    signature = compound_split_bleu(["a b"], ["a b"], language="fr").signature
    assert "tok:moses-fr-sacremoses-" in signature and "-compounds|" in signature
    assert "tok:none" not in signature and "version:" in signature


# Fails if: Moses always gets English.
def test_the_language_reaches_moses_and_an_unknown_one_is_refused():
    moses()
    # French keeps the apostrophe with the article. German separates it.
    hypothesis, reference = "l'homme est ici", "l'homme est ici et dort"
    for language, tokens in (("fr", "l' homme est ici"), ("de", "l ' homme est ici")):
        score = compound_split_bleu([hypothesis], [reference], language)
        assert score.value == pytest.approx(100 * math.exp(-2 / len(tokens.split())))
    with pytest.raises(ValueError, match="'german': expected one of .*de, .*fr, "):
        compound_split_bleu(["a"], ["a"], language="german")


def test_without_sacremoses_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ValueError, match=r"pip install keras-transformer-kit\[wmt\]"):
        compound_split_bleu(["a"], ["a"])


@pytest.mark.parametrize(
    "score",
    [
        evaluation.bleu,
        evaluation.chrf,
        evaluation.evaluate,
        compound_split_bleu,
        evaluation.line_error_rate,
        evaluation.token_error_rate,
    ],
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
    # sacreBLEU's modules hold None if the package is not installed.
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


# --- several systems


def worse(lines):
    """Removes the last word of every third line."""
    return [line.rpartition(" ")[0] if i % 3 == 0 else line for i, line in enumerate(lines)]


# Fails if: an interval is twice as wide; every system gets the samples of the baseline; chrF is
# reported as chrF++.
def test_a_comparison_is_that_of_sacrebleus_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    references = [f"{a} dogs {b} on the beach" for a in ("two", "three") for b in ("run", "sleep")]
    systems = {"first": references[:3] + ["dogs asleep on a beach"], "second": worse(references)}
    for name, lines in {**systems, "references": references}.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", *systems, "--paired-bs"]
    command += "--paired-bs-n 53 --metrics bleu chrf --chrf-word-order 2 --width 4".split()
    command += ["--format", "text"]  # sacreBLEU's JSON output fails for a comparison
    table = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    first, second = evaluation.compare(systems, references, n_samples=53)

    for key in ("bleu", "chrf++"):
        for result in (first, second):
            mean, (low, high) = result[f"{key}_mean"], result[f"{key}_interval"]
            assert low < mean < high and mean - low == pytest.approx(high - mean, abs=2e-4)
            half = table.partition(f" {result[key]:.4f} ({mean:.4f} ± ")[2].partition(")")[0]
            assert float(half) == pytest.approx((high - low) / 2, abs=1e-4)
            assert result[f"{key}_signature"] in table
            assert "|bs:53|" in result[f"{key}_signature"]
            assert "|seed:7|" in result[f"{key}_signature"]
        assert f"(p = {second[f'{key}_p_value']:.4f})" in table
        assert f"{key}_p_value" not in first
    assert (first["system"], second["system"], second["baseline"]) == ("first", "second", "first")
    assert "baseline" not in first
    lines = [json.dumps(result) for result in (first, second)]
    assert list(map(json.loads, lines)) == [first, second]


# Fails if: equal hypotheses get sacreBLEU's own p-value, 0.001.
def test_a_comparison_tells_a_difference_from_luck():
    words = "one two three four five six seven eight nine".split()
    references = [" ".join(words[i:] + words[:i]) for i in range(9)] * 4
    systems = {"all": references, "worse": worse(references), "the same": list(references)}
    best, worst, same = evaluation.compare(systems, references, "none", error_rates=True)
    assert "bs:1000|seed:12345" in best["bleu_signature"] and "tok:none" in best["bleu_signature"]
    for key in ("bleu", "chrf", "chrf++"):
        assert worst[key] < best[key] == same[key]
        assert worst[f"{key}_p_value"] < 0.01 and same[f"{key}_p_value"] == 1
    assert worst["line_error_rate"] == pytest.approx(100 / 3, abs=1e-4)
    for name, result in zip(systems, (best, worst, same), strict=True):
        alone = evaluation.evaluate(systems[name], references, "none", error_rates=True)
        assert {k: v for k, v in result.items() if k in alone and "signature" not in k} == {
            k: v for k, v in alone.items() if "signature" not in k
        }


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="1 system.*expected the baseline and at least one other"):
        evaluation.compare({"only": ["a"]}, ["a"])
    with pytest.raises(ValueError, match="second: Got 2 hypotheses and 1 references"):
        evaluation.compare({"first": ["a"], "second": ["a", "b"]}, ["a"])
    with pytest.raises(ValueError, match="n_samples=0"):
        evaluation.compare({"first": ["a"], "second": ["a"]}, ["a"], n_samples=0)


# --- spaces in Korean


# Fails if: chrF is reported as chrF++.
def test_wrong_spaces_are_seen_by_chrf_plus_plus_and_exact_match_alone():
    pytest.importorskip("mecab_ko", reason="the `ko` extra is not installed")
    references = ["나는 어제 친구와 함께 영화를 보았다.", "오늘은 날씨가 참 좋네요."]
    hypotheses = ["나는 어제 친구와함께 영화를 보았다.", "오늘은날씨가 참 좋네요."]
    scores = evaluation.evaluate(hypotheses, references, tokenize="ko-mecab")
    assert scores["bleu"] > 99 and scores["chrf"] == 100
    assert scores["chrf++"] < 95 and scores["exact_match"] == 0
    # For 13a a wrong space makes wrong words.
    assert evaluation.bleu(hypotheses, references).value < 60


# --- error rates


# Fails if: errors are divided by the tokens of the hypotheses.
def test_error_rates_by_hand():
    references = ["k æ t", "d ɔ g", "b ɜː d z", "f ɪ ʃ", "ʌ p"]
    hypotheses = ["k  æ t ", "d ɒ g s", "b d z", "f ɪ ʃ", "ʌ p"]
    assert evaluation.line_error_rate(hypotheses, references) == 40
    assert evaluation.token_error_rate(hypotheses, references) == 20  # 3 of 15
    scores = evaluation.evaluate(hypotheses, references, error_rates=True)
    assert (scores["line_error_rate"], scores["token_error_rate"]) == (40, 20)
    assert evaluation.token_error_rate(["a b c d e"], ["a"]) == 400
    assert evaluation.token_error_rate(["", "a"], ["b b", ""]) == 150
    assert "line_error_rate" not in evaluation.evaluate(hypotheses, references)


def test_error_rates_ignore_how_letters_are_composed():
    composed, decomposed = ["가 나"], [unicodedata.normalize("NFD", "가 나")]
    assert evaluation.line_error_rate(decomposed, composed) == 0
    assert evaluation.token_error_rate(composed, decomposed) == 0


def distance_by_definition(hypothesis, reference):
    """Returns the cost of the cheapest way to edit the last tokens, by recursion."""
    if not hypothesis or not reference:
        return len(hypothesis) + len(reference)
    return min(
        distance_by_definition(hypothesis[:-1], reference) + 1,
        distance_by_definition(hypothesis, reference[:-1]) + 1,
        distance_by_definition(hypothesis[:-1], reference[:-1]) + (hypothesis[-1] != reference[-1]),
    )


tokens = st.lists(st.sampled_from("abc"), max_size=5)


# Fails if: a replacement costs 2.
@given(st.lists(st.tuples(tokens, tokens), max_size=3), tokens.filter(len))
def test_token_errors_are_the_fewest_edits(pairs, last):
    pairs = [*pairs, (["a"], last)]
    hypotheses, references = (
        [" ".join(side) for side in both] for both in zip(*pairs, strict=True)
    )
    edits = sum(distance_by_definition(*pair) for pair in pairs)
    total = sum(len(reference) for _, reference in pairs)
    found = evaluation.token_error_rate(hypotheses, references)
    assert found == pytest.approx(100 * edits / total)


# --- shares of right answers


# Fails if: the interval is centred on the plain share.
@given(st.integers(1, 5000), st.floats(0, 1))
def test_an_interval_ends_where_the_share_is_196_deviations_away(count, share):
    right = round(share * count)
    low, high = binomial_interval(right, count)
    assert 0 <= low <= right / count <= high <= 1
    for end in (low, high):  # both ends solve Wilson's equation
        distance, deviation = right / count - end, math.sqrt(end * (1 - end) / count)
        assert math.isclose(abs(distance), 1.959964 * deviation, rel_tol=1e-4, abs_tol=1e-6)


@given(st.integers(0, 13), st.integers(0, 13), st.integers(0, 3))
def test_mcnemar_counts_the_throws_of_a_coin(first, second, both):
    mine = [True] * first + [False] * second + [True] * both + [False]
    other = [False] * first + [True] * second + [True] * both + [False]
    together = first + second
    throws = [math.comb(together, k) for k in range(together + 1)]
    far = [n for k, n in enumerate(throws) if abs(2 * k - together) >= abs(first - second)]
    alone, others, p = mcnemar(mine, other)
    assert (alone, others) == (first, second)
    assert math.isclose(p, sum(far) / 2**together)


# Fails if: McNemar's sum is computed in floats, which overflow.
def test_impossible_shares_are_refused():
    for right, count in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="right answers"):
            binomial_interval(right, count)
    with pytest.raises(ValueError, match="same examples"):
        mcnemar([True], [True, False])
    right = [True] * 4000 + [False] * 3000  # the exact sum of integers does not overflow
    assert mcnemar(right, [not each for each in right])[2] < 1e-30
