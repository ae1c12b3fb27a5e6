"""Tests of `translate` on the command line: what it reads, passes on and writes."""

import json
import re

import pytest
from command_line import assert_one_line, main, pipe, status_and_err, write

from keras_transformer.cli import translate as translate_verb
from keras_transformer.decoding import Sampling
from keras_transformer.decoding.alignment import pharaoh
from keras_transformer.decoding.tags import take_out
from keras_transformer.decoding.translator import Translator
from keras_transformer.runs import load_translator

pytestmark = pytest.mark.tensorflow_only


def test_translate_keeps_lines_and_their_order(run, uncompiled, monkeypatch, capsys):
    lines = ["ba de", "", "do do do be", "ba de", "   ", "do", "be ba da"]
    pipe(monkeypatch, "\n".join(lines).encode())  # no newline at the end
    status, out, err = main(capsys, "translate", run, "--beam-size", 2, "--batch-size", 3)
    summary = (
        r"7 line\(s\) in .* compilation of 0 shape\(s\)\n\nLook at one:  keras-transformer show "
    )
    assert status == 0 and re.match(summary, err)
    expected = load_translator(run).translate(lines, beam_size=2)
    assert out == "".join(f"{line}\n" for line in expected)
    assert all(not found for line, found in zip(lines, expected, strict=True) if not line.strip())
    pipe(monkeypatch, "\r\n".join(lines).encode() + b"\r\n")
    assert main(capsys, "translate", run, "--beam-size", 2)[:2] == (0, out)
    pipe(monkeypatch, b"")
    assert main(capsys, "translate", run)[:2] == (0, "")


def test_n_best_lists(run, uncompiled, monkeypatch, capsys):
    pipe(monkeypatch, b"ba de\n\ndo\n")
    status, out, _ = main(capsys, "translate", run, "--beam-size", 3, "--n-best", 2)
    assert status == 0
    found = [re.fullmatch(r"(\d) \|\|\| (.*) \|\|\| (-?\d+\.\d{6})", x) for x in out.splitlines()]
    assert [match[1] for match in found] == list("001122")
    assert found[2][0] == found[3][0] == "1 |||  ||| 0.000000"
    for first, second in (found[:2], found[4:]):
        assert first[2] != second[2] and float(first[3]) >= float(second[3])
    best = load_translator(run).n_best(["ba de"], 1, beam_size=3)[0][0]
    assert found[0][2] == best.text
    assert float(found[0][3]) == pytest.approx(best.score, abs=1e-5)


# Fails if: an option of what a translation holds is not passed on, or one without effect passes.
def test_translations_hold_what_is_asked(run, uncompiled, tmp_path, monkeypatch, capsys):
    lines = ["ba de", "", "do do do be"]

    def translated(*options, lines=lines):
        pipe(monkeypatch, "".join(f"{line}\n" for line in lines).encode())
        return main(capsys, "translate", run, "--beam-size", 2, *options)

    translator = load_translator(run)
    options = {"min_length": 3, "max_length": 9, "no_repeat_ngram": 1, "repetition_penalty": 1.5}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    begins = ["do", "be", ""]
    n_best, options_of = Translator.n_best, []

    def watched(*arguments, **options):
        options_of.append(options)
        return n_best(*arguments, **options)

    monkeypatch.setattr(Translator, "n_best", watched)
    for given, asked in (
        (["--prefix=ba d", *flags], {"prefix": "ba d", **options}),
        ([f"--prefixes={write(tmp_path / 'begins', begins)}"], {"prefix": begins}),
        (
            ["--terminology", write(tmp_path / "terms", ["a\td", "", "a"])],
            {"terminology": [["a", "d"], [], ["a"]]},
        ),
        (["--min-length=3", "--suppress", "a", "ab"], {"min_length": 3, "suppress": ["a", "ab"]}),
        (
            ["--sample", "--temperature=1.3", "--top-k=9", "--top-p=0.9", "--seed=5"],
            {"sampling": Sampling(1.3, 9, 0.9, 5)},
        ),
    ):
        expected = translator.translate(lines, beam_size=2, **asked)
        assert translated(*given)[:2] == (0, "".join(f"{line}\n" for line in expected))
        assert options_of[-1].items() >= asked.items()
    # Fails if: what is drawn for a line depends on how many lines arrive together.
    whole = translated("--sample", "--seed=5")[1]
    with monkeypatch.context() as patch:
        patch.setattr("keras_transformer.cli.translate.LINES_AT_ONCE", 2)
        assert translated("--sample", "--seed=5")[1] == whole
    status, out, _ = translated("--sample", "--n-best=3")
    assert status == 0 and 3 < len(out.splitlines()) <= 7
    for given, says in (
        (["--seed=3"], "--seed has an effect only with --sample"),
        (["--prefix=a", "--prefixes=b"], "either --prefix or --prefixes"),
        ([f"--prefixes={tmp_path / 'begins'}"], "has 3 lines, and the input has more"),
        (["--max-length=2", "--min-length=3"], "max_length is an integer and at least 3"),
    ):
        status, _, err = translated(*given, lines=[*lines, "ba"])
        assert_one_line(status, err, says)


# Fails if: scores or links are those of another hypothesis; a field is in another place.
def test_alignments_and_scores_come_with_translations(run, uncompiled, monkeypatch, capsys):
    lines = ["ba de", "", "do do do be"]

    def translated(*options):
        pipe(monkeypatch, "".join(f"{line}\n" for line in lines).encode())
        status, out, err = main(capsys, "translate", run, "--beam-size", 2, *options)
        assert status == 0, err
        return out.splitlines()

    translator = load_translator(run)
    n_best = translator.n_best(lines, 2, beam_size=2)
    pairs = [(line, each.ids) for line, some in zip(lines, n_best, strict=True) for each in some]
    links = [pharaoh(each) for each in translator.align(pairs, layer=0, heads=[0])]
    sums = translator.score(pairs)
    chosen = "--alignments", "--alignment-layer=0", "--alignment-heads=0", "--token-scores"
    found = [line.split(" ||| ") for line in translated("--n-best=2", *chosen)]
    hypotheses = [each for some in n_best for each in some]
    assert [line[1] for line in found] == [each.text for each in hypotheses]
    assert [line[3] for line in found] == links
    for line, (expected, tokens) in zip(found, sums, strict=True):
        scores = [float(part.rpartition(":")[2]) for part in line[4].split()]
        assert len(scores) == tokens and sum(scores) == pytest.approx(expected, abs=1e-3)
    assert [line.split(" ||| ")[0] for line in translated("--alignments")] == [
        some[0].text for some in n_best
    ]
    objects = list(map(json.loads, translated("--json", "--n-best=2", *chosen[1:3])))
    assert [each["number"] for each in objects] == [0, 1, 2]
    assert [each["source"] for each in objects] == lines
    flat = [each for one in objects for each in one["n_best"]]
    assert [each["text"] for each in flat] == [each.text for each in hypotheses]
    assert [pharaoh(each["alignments"]) for each in flat] == links
    for each, (expected, _) in zip(flat, sums, strict=True):
        assert sum(each["token_scores"]) == pytest.approx(expected, abs=1e-4)
        assert len(each["tokens"]) == len(each["token_scores"])
    assert all(one["n_best"][0].items() <= one.items() for one in objects)
    status, err = status_and_err(capsys, "translate", run, "--alignment-layer", 0)
    assert_one_line(status, err, "--alignment-layer has an effect only with --alignments, ")


# Fails if: an option is not passed on or not refused; links are written only beside --tags.
def test_documents_and_tags_are_translated(run, uncompiled, tmp_path, monkeypatch, capsys):
    pytest.importorskip("sentencex", reason="sentencex is not installed")
    split = "--split=sentences", "--source-language=en"
    lines = ["Ba de.  Do <b>be</b> do.", "", "<br/>do {n} be"]
    pipe(monkeypatch, "".join(f"{line}\n" for line in lines).encode())
    flags = "--beam-size=2", "--min-length=3", "--no-repeat-ngram=1"
    command = "translate", run, *flags
    status, out, err = main(capsys, *command, *split, "--tags", "--alignments")
    assert status == 0, err
    found = [line.split(" ||| ") for line in out.split("\n")]
    translator = load_translator(run)
    sentences = ["Ba de.", "Do be do.", "do be"]
    options = {"beam_size": 2, "min_length": 3, "no_repeat_ngram": 1}
    first, second, third = translator.translate(sentences, **options)
    assert first and second and third
    assert [take_out(line).text for line, *_ in found] == [f"{first} {second}", "", third, ""]
    for item in ("<b>", "</b>"):
        assert found[0][0].count(item) == 1
    assert found[2][0].count("<br/>") == found[2][0].count("{n}") == 1
    links = translator.align([(sentences[1], second)])[0]
    words = len(first.split())
    assert found[0][1].endswith(pharaoh([(2 + a, words + b) for a, b in links]))
    assert found[1] == ["", ""]
    source = write(tmp_path / "source", lines)
    assert main(capsys, *command, "--input", source, *split, "--tags", "--alignments")[1] == out
    pipe(monkeypatch, b"Ba de.  Do be do.\n\n")
    expected = f"{first}  {second} ||| {found[0][1]}\n ||| \n"
    assert main(capsys, *command, *split, "--alignments")[1] == expected
    for options, says in (
        (["--split=sentences"], "--split sentences needs --source-language CODE"),
        (["--source-language=en"], "--source-language has an effect only with --split sentences"),
        ([*split, "--prefix=a"], "--prefix does not go with --split"),
        ([*split, "--n-best=2"], "--n-best does not go with --split"),
        (["--tags", "--json"], "--json does not go with --tags"),
        (["--tags", "--engine=ctranslate2"], "which ctranslate2 does not give"),
    ):
        assert_one_line(*status_and_err(capsys, *command, *options), says)


# Fails if: the file is read or written otherwise than a pipe; a failure leaves a file behind.
def test_files_are_translated_whole_or_not_at_all(run, uncompiled, tmp_path, monkeypatch, capsys):
    lines = ["ba de", "", "do do do be"]
    pipe(monkeypatch, "".join(f"{line}\n" for line in lines).encode())
    _, expected, _ = main(capsys, "translate", run, "--beam-size", 1)
    source, target = write(tmp_path / "source", lines), tmp_path / "target"
    command = ["translate", run, "--beam-size", 1, "--input", source]
    assert main(capsys, *command)[:2] == (0, expected)
    command += ["--output", target, "--tokens-per-batch", 16]
    assert main(capsys, *command)[:2] == (0, "")
    assert target.read_text(encoding="utf-8") == expected
    assert_one_line(*status_and_err(capsys, *command), "exists and is not overwritten")
    command[command.index(target)] = other = tmp_path / "other"
    monkeypatch.setattr(translate_verb, "LINES_AT_ONCE", 2)
    found = Translator.n_best

    def fail_at_the_end(self, lines, *arguments, **options):
        assert options["tokens_per_batch"] == 16
        if len(lines) < 2:
            raise ValueError("no more")
        return found(self, lines, *arguments, **options)

    monkeypatch.setattr(Translator, "n_best", fail_at_the_end)
    assert_one_line(*status_and_err(capsys, *command), "no more")
    assert not other.exists() and not list(tmp_path.glob("*.tmp"))
