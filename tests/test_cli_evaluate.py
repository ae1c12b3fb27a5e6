"""Tests of `evaluate`, `score` and `average` on the command line."""

import json
import shutil

import numpy as np
import pytest
from command_line import (
    arrays_of,
    assert_one_line,
    log_of,
    main,
    path_of,
    pipe,
    status_and_err,
    write,
)

from keras_transformer import data
from keras_transformer.cli import evaluate as evaluate_verb
from keras_transformer.cli import score as score_verb
from keras_transformer.runs import load_translator
from keras_transformer.runs.checkpoints import read_arrays
from keras_transformer.text import Tokenizer

pytestmark = pytest.mark.tensorflow_only


def test_evaluate_prints_one_line_of_json(run, parallel, uncompiled, tmp_path, capsys):
    source, reference = (path_of(parallel, f"valid-{side}") for side in ("source", "target"))
    command = ["evaluate", run, "--source", source, "--reference", reference, "--beam-size", 1]
    output = tmp_path / "hypotheses.txt"
    status, out, _ = main(capsys, *command, "--tokenize", "none", "--lowercase", "--output", output)
    assert status == 0 and out.count("\n") == 1
    scores = json.loads(out)
    assert 0 <= scores["bleu"] <= 100 and 0 <= scores["chrf"] <= 100
    assert "tok:none" in scores["bleu_signature"] and "case:lc" in scores["bleu_signature"]
    assert "chrF" in scores["chrf_signature"] or "nc:6" in scores["chrf_signature"]
    assert (scores["weights"], scores["beam_size"]) == (load_translator(run).weights, 1)
    lines = open(source, encoding="utf-8").read().splitlines()
    expected = load_translator(run).translate(lines, beam_size=1)
    assert output.read_text(encoding="utf-8").splitlines() == expected
    _, out, _ = main(capsys, *command, "--weights", "3")
    assert "tok:13a" in json.loads(out)["bleu_signature"]
    assert json.loads(out)["weights"] == "3"
    status, out, err = main(capsys, *command, "--output", output)
    assert_one_line(status, err, "exists and is not overwritten")
    assert out == ""
    _, out, _ = main(capsys, *command, "--weights", "3,average", "--ensemble", run)
    assert json.loads(out)["weights"] == ["3", "average"]
    assert json.loads(out)["ensemble"] == [str(run)]


def test_average_is_the_mean_of_the_last_checkpoints(run, capsys):
    def averaged():
        return dict(read_arrays(run / "averaged.npz"))

    assert averaged().keys() <= arrays_of(run, 3).keys()
    for last, updates in ((1, [6]), (2, [3, 6])):
        status, out, err = main(capsys, "average", run, "--last", last)
        assert (status, out) == (0, "") and f"updates {', '.join(map(str, updates))} " in err
        for name, array in averaged().items():
            mean = np.mean([arrays_of(run, update)[name] for update in updates], axis=0)
            np.testing.assert_allclose(array, mean, rtol=1e-6, atol=1e-7)


def test_several_systems_are_compared_with_the_first(run, parallel, uncompiled, tmp_path, capsys):
    source, reference = (path_of(parallel, f"valid-{side}") for side in ("source", "target"))
    copy = shutil.copytree(run, tmp_path / "copy")
    options = ["--source", source, "--reference", reference, "--beam-size", 1, "--error-rate"]
    status, out, _ = main(capsys, "evaluate", run, copy, *options, "--hypotheses", reference)
    assert status == 0
    ours, same, perfect = map(json.loads, out.splitlines())
    assert (ours["run"], same["run"], perfect["hypotheses"]) == (str(run), str(copy), reference)
    assert (perfect["system"], perfect["baseline"]) == (reference, str(run))
    assert same["bleu"] == ours["bleu"] and same["bleu_p_value"] == 1
    assert "bleu_p_value" not in ours and "bs:1000|" in ours["bleu_signature"]
    assert perfect["chrf++"] == 100 and perfect["chrf++_p_value"] < 0.05
    assert perfect["token_error_rate"] == 0 < ours["token_error_rate"]
    status, out, _ = main(
        capsys, "evaluate", "--reference", reference, "--hypotheses", reference, source
    )
    assert status == 0
    perfect, theirs = map(json.loads, out.splitlines())
    assert (theirs["hypotheses"], theirs["baseline"]) == (source, reference)
    assert theirs["exact_match"] < perfect["exact_match"] == 1
    assert "run" not in theirs and "token_error_rate" not in theirs
    status, out, _ = main(capsys, "evaluate", "--reference", reference, "--hypotheses", source)
    assert (status, out.count("\n")) == (0, 1)
    assert json.loads(out)["bleu"] == theirs["bleu"] and "system" not in json.loads(out)


def test_every_run_translates_by_itself_and_output_is_the_runs(tmp_path, monkeypatch, capsys):
    class Translating:
        weights = "last"

        def __init__(self, run, args):
            self.run = run

        def translate(self, sources, *search):
            return [f"{source} {self.run}" for source in sources]

    monkeypatch.setattr(evaluate_verb, "translator_of", Translating)
    source = write(tmp_path / "source", ["a b", "c"])
    one, two = (write(tmp_path / run, [f"a b {run}", f"c {run}"]) for run in ("one", "two"))
    for reference, right in ((one, [1, 0]), (two, [0, 1])):
        _, out, _ = main(
            capsys, "evaluate", "one", "two", "--source", source, "--reference", reference
        )
        assert [json.loads(line)["exact_match"] for line in out.splitlines()] == right
    both = "one", "two", "--source", source, "--reference", one, two
    _, out, _ = main(capsys, "evaluate", *both)
    found = [json.loads(line) for line in out.splitlines()]
    assert [(each["exact_match"], each["references"]) for each in found] == [(1, 2), (1, 2)]
    output, others = tmp_path / "output", ["--hypotheses", two, "--output", tmp_path / "output"]
    main(capsys, "evaluate", "one", "--source", source, "--reference", one, *others)
    assert output.read_text(encoding="utf-8") == "a b one\nc one\n"


# Fails if: a hypothesis is scored with another source; lists or ranks are mixed up.
def test_n_best_lists_are_ranked_by_another_score(run, uncompiled, tmp_path, monkeypatch, capsys):
    source = write(tmp_path / "source", ["ba de", "", "do do"])
    lines = ["2 ||| do be ||| 5 ||| 0-1", "0 ||| ba ||| 2", "2 ||| do ||| 7", "0 ||| de de ||| 1.5"]
    translator = load_translator(run, "last")
    texts = [("do do", "do be"), ("ba de", "ba"), ("do do", "do"), ("ba de", "de de")]
    for mean in ([], ["--mean"]):
        scored = translator.score(texts)
        scores = [total / count if mean else total for total, count in scored]
        [a, b, c, d] = (f"{score:.6f}" for score in scores)
        lists = [
            [(b, f"0 ||| ba ||| {b}"), (d, f"0 ||| de de ||| {d}")],
            [(a, f"2 ||| do be ||| {a} ||| 0-1"), (c, f"2 ||| do ||| {c}")],
        ]
        expected = [
            line for some in lists for _, line in sorted(some, key=lambda each: -float(each[0]))
        ]
        command = ["score", run, "--source", source, "--weights", "last", *mean, "--n-best"]
        status, out, err = main(capsys, *command, write(tmp_path / f"list{len(mean)}", lines))
        assert status == 0, err
        assert out.splitlines() == expected
        pipe(monkeypatch, "".join(f"{line}\n" for line in lines).encode())
        assert main(capsys, *command, "-")[:2] == (0, out)
    pipe(monkeypatch, b"0 ||| a ||| 1\n3 ||| a ||| 1\n")
    status, err = status_and_err(capsys, *command, "-")
    assert_one_line(status, err, "standard input, line 2: a list of source 3, and --source has 3")


def test_scores_are_one_line_a_pair(run, parallel, uncompiled, tmp_path, capsys):
    files = [path_of(parallel, f"valid-{side}") for side in ("source", "target")]
    pairs = data.read_parallel(*files)
    command = ["score", run, "--source", files[0], "--target", files[1], "--weights", "last"]
    status, out, err = main(capsys, *command)
    assert status == 0
    scores = load_translator(run, "last").score(pairs)
    assert out == "".join(f"{score:.6f}\t{tokens}\n" for score, tokens in scores)
    # The mean is exactly the nats_per_token that training logged for this text.
    nats = [record for record in log_of(run) if record["event"] == "validation"][-1][
        "val_nats_per_token"
    ]
    total, tokens = map(sum, zip(*scores, strict=True))
    assert -total / tokens == pytest.approx(nats, rel=1e-5)
    assert f"{len(pairs)} pairs, {tokens} target tokens, {-total / tokens:.6f} nats" in err
    perplexity = float(err.split("perplexity ")[1].split()[0])
    assert perplexity == pytest.approx(np.exp(nats), rel=1e-4)

    _, out, _ = main(capsys, *command, "--mean", "--tokens")
    tokenizer = Tokenizer.load(run / "tokenizer.model")
    for line, (_, target), (total, tokens) in zip(out.splitlines(), pairs, scores, strict=True):
        mean, count, each = line.split("\t")
        assert (float(mean), int(count)) == (pytest.approx(total / tokens, abs=1e-6), tokens)
        pieces, values = zip(*(part.rsplit(":", 1) for part in each.split(" ")), strict=True)
        assert list(pieces) == [*tokenizer.pieces(target), "</s>"]
        assert sum(map(float, values)) == pytest.approx(total, abs=1e-3)


# Fails if: a side or the sources of lists are not read from stdin; two files may be stdin; an empty
# stdin is no error; an error names it as "-".
def test_pairs_are_read_from_a_pipe(run, parallel, uncompiled, monkeypatch, tmp_path, capsys):
    source, target = (path_of(parallel, f"valid-{side}") for side in ("source", "target"))
    read = [open(path, "rb").read() for path in (source, target)]
    rows = zip(*(text.splitlines() for text in read), strict=True)
    command = "score", run, "--weights", "last"
    _, expected, _ = main(capsys, *command, "--source", source, "--target", target)
    for text, options in (
        (read[0], ["--source", "-", "--target", target]),
        (read[1], ["--source", source, "--target", "-"]),
        (b"".join(b"%s\t%s\n" % row for row in rows), ["--tsv", "-"]),
    ):
        pipe(monkeypatch, text)
        assert main(capsys, *command, *options)[:2] == (0, expected)
    entries = [f"{number} ||| a ||| 0" for number in range(4)]
    options = "--n-best", write(tmp_path / "lists", entries), "--source"
    _, expected, _ = main(capsys, *command, *options, source)
    pipe(monkeypatch, read[0])
    assert main(capsys, *command, *options, "-")[:2] == (0, expected)
    for text, options, says in (
        (b"a", ["--source", "-", "--target", "-"], "Only one file can be -"),
        (b"a", ["--source", "-", "--n-best", "-"], "Only one file can be -"),
        (b"", ["--tsv", "-"], "standard input is empty"),
        (b"a\tb\nc\n", ["--tsv", "-"], "standard input, line 2: found 1 tab-separated column"),
        (b"a\n", ["--source", "-", "--target", target], "but standard input has 1 and"),
    ):
        pipe(monkeypatch, text)
        assert_one_line(*status_and_err(capsys, *command, *options), says)


def test_pairs_with_an_empty_side_are_scored_but_not_counted(
    run, uncompiled, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(score_verb, "PAIRS_AT_ONCE", 2)
    pairs = [("ba", "ab"), ("", "ab"), ("do de", ""), (" ", ""), ("do de", "od ed")]
    tsv = write(tmp_path / "pairs.tsv", (f"{target}\t{source}" for source, target in pairs))
    columns = ["--source-column", 1, "--target-column", 0]
    status, out, err = main(capsys, "score", run, "--tsv", tsv, *columns)
    assert status == 0
    expected = load_translator(run).score(pairs)
    found = [line.split("\t") for line in out.splitlines()]
    assert [int(tokens) for _, tokens in found] == [tokens for _, tokens in expected]
    np.testing.assert_allclose([float(x) for x, _ in found], [x for x, _ in expected], rtol=1e-5)
    assert found[2][1] == found[3][1] == "1"
    nats = -(expected[0][0] + expected[4][0]) / (expected[0][1] + expected[4][1])
    _, said = err.split(f"2 pairs, {expected[0][1] + expected[4][1]} target tokens, ")
    assert float(said.split()[0]) == pytest.approx(nats, rel=1e-5)
    assert "left out: 3 with an empty side" in err
    empty = write(tmp_path / "empty.tsv", ["\tab"])
    status, out, err = main(capsys, "score", run, "--tsv", empty)
    assert (status, out.count("\n")) == (0, 1) and "0 pairs, 0 target tokens; left" in err
