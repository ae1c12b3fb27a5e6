"""Tests of the command line, in this process: what verbs read, write, print and complain about."""

import dataclasses
import hashlib
import inspect
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata

import keras
import numpy as np
import pytest
import tensorflow as tf
from older_runs import forget_checksums
from uncompiled import search_uncompiled

from keras_transformer import cli, data
from keras_transformer.cli import evaluate as evaluate_verb
from keras_transformer.cli import score as score_verb
from keras_transformer.cli import translate as translate_verb
from keras_transformer.data.survey import survey
from keras_transformer.decoding import Sampling
from keras_transformer.decoding.alignment import pharaoh
from keras_transformer.decoding.translator import Hypothesis, Translator
from keras_transformer.runs import TrainSettings, derivation, load_translator, reading, training
from keras_transformer.runs.checkpoints import read_arrays, read_note
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.text import Tokenizer
from keras_transformer.text.seen import SeenText

pytestmark = pytest.mark.tensorflow_only

TINY = (
    "--d-model 16 --num-layers 1 --num-heads 2 --d-ff 32 --vocabulary-type char --warmup-steps 10 "
    "--tokens-per-batch 256 --validate-every 3 --keep-checkpoints 5 --bleu-every 1"
).split()
SIDES = ("source", "target")
OPTIONS_OF_TRAIN = {field.name for field in dataclasses.fields(TrainSettings)}
# The fields of a log record that depend on a clock.
CLOCKS = re.compile("second|time|left|waiting")


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def parallel(tmp_path_factory):
    """Returns options that name a parallel text: two to four words, and their reversals."""
    folder, rng = tmp_path_factory.mktemp("text"), random.Random(7)
    sources = [" ".join(rng.choices("ba be bo da de do".split(), k=2 + i % 3)) for i in range(48)]
    targets = [" ".join(word[::-1] for word in source.split()) for source in sources]
    return [
        f"--{part}-{side}={write(folder / f'{part}.{side}', lines[chosen])}"
        for part, chosen in (("train", slice(44)), ("valid", slice(44, None)))
        for side, lines in (("source", sources), ("target", targets))
    ]


def path_of(parallel, option):
    return next(o.split("=")[1] for o in parallel if o.startswith(f"--{option}="))


@pytest.fixture(scope="module")
def run(tmp_path_factory, parallel):
    """Returns a run of 6 updates that was never stopped."""
    path = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        search_uncompiled(patch)
        assert train(*parallel, "--updates=6", f"--run-dir={path}") == 0
    return path


def train(*options):
    """Trains as in a new process, where the numbers in names of variables start at 0."""
    keras.backend.clear_session()
    return cli.main(["train", *TINY, *options])


def main(capsys, *arguments):
    """Runs a command and returns its status, stdout and stderr."""
    capsys.readouterr()
    status = cli.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def pipe(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def arrays_of(run, update):
    folder = run / "checkpoints" / f"update-{update:08}"
    return {
        name: array
        for file in ("weights", "state")
        for name, array in read_arrays(folder / f"{file}.npz")
    }


def log_of(run):
    """Returns a run's records without the fields of clocks, and with only its last end."""
    *records, end = RunDirectory.open(run).read_log()
    assert end["event"] == "end"
    records = [record for record in records if record["event"] != "end"] + [end]
    return [{k: v for k, v in record.items() if not CLOCKS.search(k)} for record in records]


def assert_same_run(run, other, updates):
    for update in updates:
        expected, found = arrays_of(run, update), arrays_of(other, update)
        assert expected.keys() == found.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert log_of(other) == log_of(run)


# --- train


def test_a_run_holds_all_that_is_needed_to_translate_resume_and_reproduce(run, parallel):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "settings.json",
        "versions.json",
        "resolved.json",
        "model.json",
        "tokenizer.model",
        "seen_ids.npy",
        "seen_words.txt",
        "report.txt",
        "log.jsonl",
        "averaged.npz",
        "ids",
        "samples",
        "checkpoints",
    }
    assert any(name.startswith("events.out.tfevents") for name in names)
    settings = json.loads((run / "settings.json").read_text())
    assert settings["train_source"] == path_of(parallel, "train-source")
    assert (settings["updates"], settings["d_model"], settings["backend"]) == (6, 16, "tensorflow")
    assert [c.update for c in RunDirectory.open(run).checkpoints()] == [3, 6]
    assert [r["update"] for r in log_of(run) if r["event"] == "interval"] == [3, 6]
    assert sorted(p.name for p in (run / "samples").iterdir()) == [
        "update-00000003.txt",
        "update-00000006.txt",
    ]


def test_the_same_command_again_changes_nothing(run, parallel, uncompiled, capsys):
    before = contents(run)
    assert train(*parallel, "--updates=6", f"--run-dir={run}", "--log-every=7") == 0
    assert "trained already, 6 updates: raise updates" in capsys.readouterr().err
    after = contents(run)
    assert before.keys() == after.keys()
    changed = {str(name) for name in before if before[name] != after[name]}
    assert changed <= {"versions.json", "averaged.npz", "lock"}  # a start is recorded


def test_raised_updates_go_on_as_if_never_stopped(run, parallel, uncompiled, tmp_path, capsys):
    other = tmp_path / "other"
    assert train(*parallel, "--updates=3", f"--run-dir={other}") == 0
    assert [c.update for c in RunDirectory.open(other).checkpoints()] == [3]
    assert "resuming" not in capsys.readouterr().err
    assert train(*parallel, "--updates=6", f"--run-dir={other}") == 0
    assert "resuming at update 3" in capsys.readouterr().err
    assert_same_run(run, other, [3, 6])
    name = "embedding/token/embeddings"
    assert (arrays_of(run, 3)[name] != arrays_of(run, 6)[name]).any()


def test_the_average_leaves_out_the_first_half_and_is_the_default_unless_worse(
    run, parallel, uncompiled, tmp_path, monkeypatch, capsys
):
    other, worse = tmp_path / "other", "is worse than the last weights"
    shutil.copytree(run, other)
    assert train(*parallel, "--updates=9", f"--run-dir={other}") == 0
    assert [c.update for c in RunDirectory.open(other).checkpoints()] == [3, 6, 9]
    assert read_note(other / "averaged.npz", "updates") == [6, 9]
    err = capsys.readouterr().err
    last = [record for record in log_of(other) if record["event"] == "validation"][-1]
    assert f"against {last['val_nats_per_token']:.4f} nats" in err and worse in err
    assert "validation BLEU (weights: last)" in err
    average = float(re.search(r"([\d.]+) against", err)[1])
    pairs = [f"--{side}={path_of(parallel, f'valid-{side}')}" for side in ("source", "target")]
    for weights, nats in (("average", average), ("last", last["val_nats_per_token"])):
        _, _, err = main(capsys, "score", other, *pairs, "--weights", weights)
        assert float(re.search(r"([\d.]+) nats per token", err)[1]) == pytest.approx(nats, abs=1e-4)
        assert f"(weights: {weights})" in err

    # Every verb takes the better of the two: here the last.
    assert load_translator(other).weights == "last"
    _, out, err = main(capsys, "score", other, *pairs)
    assert "(weights: last)" in err
    assert out == main(capsys, "score", other, *pairs, "--weights", "last")[1]
    pipe(monkeypatch, b"ba\n")
    assert "(weights: last)" in main(capsys, "translate", other, "--beam-size", 1)[2]

    # `average` compares on the ids that the run keeps. An average of one checkpoint is equal to it.
    _, _, err = main(capsys, "average", other)
    assert worse in err and load_translator(other).weights == "last"
    _, _, err = main(capsys, "average", other, "--last", 1)
    assert worse not in err and load_translator(other).weights == "average"
    (other / "ids" / "valid.npz").unlink()
    _, _, err = main(capsys, "average", other)
    assert "was not compared" in err and load_translator(other).weights == "average"


def test_a_run_is_resumed_where_its_text_has_moved(run, parallel, tmp_path, monkeypatch, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    moved = []
    for option in parallel:
        name, path = option.split("=")
        shutil.copy(path, tmp_path / name)
        moved.append(f"{name}={name}")
    monkeypatch.chdir(tmp_path)
    assert train(*moved, "--updates=6", "--run-dir=other") == 0
    assert "trained already" in capsys.readouterr().err
    pairs = data.read_parallel(
        *(path_of(parallel, f"train-{side}") for side in ("source", "target"))
    )
    write(tmp_path / "train.tsv", ("\t".join(pair) for pair in pairs))
    options = ["--train-tsv=train.tsv", *moved[2:], "--updates=6"]
    assert train(*options, f"--run-dir={other}") == 0

    # Another text is refused, even under the path of the first start.
    write(tmp_path / "train.tsv", ("\t".join(pair) for pair in [*pairs[:-1], ("ba", "ba")]))
    before = contents(other)
    command = ("train", *options, *TINY, "--run-dir", other)
    assert_one_line(*status_and_err(capsys, *command), "that of the text itself")
    assert contents(other) == before


def test_a_start_that_failed_does_not_block_its_correction(parallel, tmp_path, monkeypatch, capsys):
    path, options = tmp_path / "run", [*parallel, "--updates=6", "--vocabulary-type=bpe"]
    status, _, err = main(
        capsys, "train", *TINY, *options, "--run-dir", path, "--vocabulary-size", 100_000
    )
    assert_one_line(status, err.splitlines(keepends=True)[-1], "at most")

    def fit(settings, ready, run, log_start):
        raise ValueError("out of luck")

    monkeypatch.setattr(training, "fit", fit)

    def failed(*more):
        """Returns the size and time of the vocabulary of a start that fails afterwards."""
        assert train(*options, f"--run-dir={path}", *more) == 1
        assert "out of luck" in capsys.readouterr().err
        found = path / "tokenizer.model"
        return Tokenizer.load(found).vocabulary_size, found.stat().st_mtime_ns

    size, made = failed("--vocabulary-size=275")
    assert size == 275
    assert failed("--vocabulary-size=275", "--d-ff=64", "--tokens-per-batch=128") == (275, made)
    assert failed("--vocabulary-size=276")[0] == 276
    settings = json.loads((path / "settings.json").read_text())
    assert (settings["vocabulary_size"], settings["d_ff"]) == (276, 32)
    assert failed()[0] < 500  # the derived size, limited by the text


def test_what_the_validation_loss_leaves_out_is_not_translated_either(
    parallel, uncompiled, tmp_path, capsys
):
    # Fails if: a line longer than the learned positions ends training at the first validation.
    valid = [tuple(open(path_of(parallel, f"valid-{s}")).read().splitlines()) for s in SIDES]
    pairs = [("ba " * 40, "ab"), *zip(*valid, strict=True), ("ba", " "), ("ba", "ab " * 40)]
    tsv = write(tmp_path / "valid.tsv", ("\t".join(pair) for pair in pairs))
    path = tmp_path / "run"
    options = [*parallel[:2], f"--valid-tsv={tsv}", f"--run-dir={path}", "--updates=3"]
    options += ["--preset=E-learned-positions", "--max-length=32"]
    assert train(*options) == 0
    err = capsys.readouterr().err
    assert err.count("validation leaves out 3 of 7 pairs: 1 with an empty side, 2 longer") == 1
    (samples,) = (path / "samples").iterdir()
    sources = [line for line in samples.read_text().splitlines() if line.startswith("source: ")]
    assert sources == [f"source: {source}" for source in valid[0]]
    with pytest.raises(ValueError, match="Text 2 of 2 has 121 tokens.*32 positions.*begins 'ba ba"):
        load_translator(path).translate(["ba", "ba " * 40])


def test_what_is_left_out_is_derived_from_the_text_and_printed(
    parallel, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(training, "fit", lambda *arguments, **_: None)
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    options = [*parallel, "--d-model=16", "--num-layers=1", "--num-heads=2", "--d-ff=32"]

    def started(name, *more):
        keras.backend.clear_session()
        path = tmp_path / name
        assert cli.main(["train", *options, f"--run-dir={path}", *more]) == 0
        return json.loads((path / "settings.json").read_text()), capsys.readouterr().err

    settings, err = started("run")
    assert (
        "derived from 44 pairs: --vocabulary-size 400, --updates 300, --warmup-steps 60, "
        "--learning-rate 0.00395"
    ) in err
    assert "the text allows" in err and "300 updates, 300.0 epochs (passes over" in err
    assert settings["warmup_steps"] == 60 and settings["bleu_every"] is None
    given = ["--vocabulary-size=275", "--updates=7", "--warmup-steps=3"]
    settings, err = started("given", *given)
    assert "derived" not in err and settings["learning_rate"] is None  # the paper's, for 3 steps
    settings, err = started("updates", "--updates=50")
    assert (settings["updates"], settings["warmup_steps"]) == (50, 10)


def text_of(pairs):
    corpus = data.open_corpus(pairs)
    return reading.Text(corpus, [], survey(pairs), SeenText(), "", None)


def test_derived_values_follow_from_the_size_of_the_text_within_bounds(monkeypatch):
    monkeypatch.setattr(derivation, "SAMPLE", 2)  # counts the characters of few pairs
    # 260 special ids and bytes, 2 characters, and twice the root of 200 or 20,000 characters.
    assert derivation.vocabulary_size(text_of([("a" * 50, "b" * 50)] * 2), "bpe") == 300
    assert derivation.vocabulary_size(text_of([("a" * 50, "b" * 50)] * 200), "bpe") == 600
    assert derivation.vocabulary_size(text_of([("a" * 10**5, "b" * 10**5)] * 2000), "bpe") == 32_000
    assert derivation.vocabulary_size(text_of([("a", "b")]), "word") == 10_000
    # 100 passes of 8 updates, and the two bounds.
    assert [derivation.updates_for(n) for n in (8, 0.01, 500)] == [800, 300, 10_000]
    pairs = text_of([("a b c", "d" * 29), ("a", "d")])
    counted = [derivation.tokens_of_longer_side(pairs, kind) for kind in ("bpe", "word", "char")]
    assert counted == [12, 6, 32]
    # Two tokens are as frequent as the end, so the entropy is ln 3.
    encoded = data.EncodedPairs(*[np.arange(3)] * 2, np.array([5, 9, 5, 9]), *[3] * 7)
    assert derivation.loss_worth_translating(encoded) == pytest.approx(2 / 3 * np.log(3))


def test_a_run_that_began_with_other_defaults_is_resumed_without_options(
    run, parallel, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    other = shutil.copytree(run, tmp_path / "other")
    settings = json.loads((other / "settings.json").read_text())
    settings |= {"updates": 6, "warmup_steps": 10, "bleu_every": 1, "vocabulary_size": 10_000}
    (other / "settings.json").write_text(json.dumps(settings))
    forget_checksums(other)
    text = " ".join(TINY).replace("--warmup-steps 10 ", "").replace(" --bleu-every 1", "")
    keras.backend.clear_session()
    assert cli.main(["train", *parallel, *text.split(), f"--run-dir={other}"]) == 0
    err = capsys.readouterr().err
    assert "trained already, 6 updates" in err and "derived" not in err
    changed = json.loads((other / "versions.json").read_text())[-1]["changed_settings"]
    assert changed.keys() <= {"run_dir"}


def test_other_settings_are_refused(run, parallel, capsys):
    before = contents(run)
    for option in ("--d-ff=64", "--seed=2", "--dropout=0.2"):
        command = ("train", *parallel, *TINY, "--updates", 6, "--run-dir", run, option)
        status, _, err = main(capsys, *command)
        assert_one_line(status, err, "holds a run with other settings")
    other = [option.replace("train.target", "valid.target") for option in parallel]
    status, _, err = main(capsys, "train", *other, *TINY, "--updates", 6, "--run-dir", run)
    assert_one_line(status, err, "need the same number of lines")
    assert contents(run) == before


def test_a_dry_run_reports_and_writes_nothing(parallel, tmp_path, capsys):
    path = tmp_path / "run"
    status, out, _ = main(
        capsys, "train", *parallel, *TINY, "--updates", 6, "--run-dir", path, "--dry-run"
    )
    assert status == 0 and not path.exists()
    for part in ("44", "parameters", "shapes (rows, source, target)", "memory: about", "6 updates"):
        assert part in out


def test_what_is_held_out_is_not_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "fit", lambda *arguments, **_: None)
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    # Every source has two translations, so a split by pairs would share sources.
    sources = [a + b for a in "abcd" for b in "efgh"]
    pairs = [(source, source[::-1] + end) for source in sources for end in "xy"]
    random.Random(3).shuffle(pairs)
    tsv = write(tmp_path / "pairs.tsv", (f"note\t{target}\t{source}" for source, target in pairs))
    path = tmp_path / "run"
    status, _, _ = main(
        capsys,
        *("train", "--train-tsv", tsv, "--source-column", 2, "--target-column", 1),
        *("--hold-out", 5, "--run-dir", path, *TINY),
    )
    assert status == 0
    held_out = data.read_parallel(path / "held_out.source.txt", path / "held_out.target.txt")
    tokenizer = Tokenizer.load(path / "tokenizer.model")
    settings = json.loads((path / "settings.json").read_text())
    options = {name: settings[name] for name in settings.keys() & OPTIONS_OF_TRAIN}
    read = reading.read_text(TrainSettings(**options))
    train = list(read.train)
    assert held_out == read.valid and len(held_out) == 10
    assert len({source for source, _ in held_out}) == 5
    assert sorted(train + read.valid) == sorted(pairs)
    assert not {source for source, _ in train} & {source for source, _ in held_out}
    with np.load(path / "ids" / "train.npz", allow_pickle=False) as ids:
        encoded = tokenizer.decode(np.split(ids["source_ids"], ids["source_offsets"][1:-1]))
    assert sorted(encoded) == sorted(source for source, _ in train)


def test_held_out_text_is_whole_and_in_no_other_form_in_training(tmp_path, monkeypatch, capsys):
    """Fails if: decomposed Korean, or spaces at the ends, count as another source; tabs split."""
    monkeypatch.setattr(training, "fit", lambda *arguments, **_: None)
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    sources = [f"{a}{b}\t{a}" for a in "가나다라" for b in "마바사"]
    forms = [*sources, *(unicodedata.normalize("NFD", source) for source in sources)]
    forms += [f"{source} \u3000" for source in sources]
    options = [f"--train-{side}={write(tmp_path / side, forms)}" for side in ("source", "target")]
    path = tmp_path / "run"
    status, _, err = main(capsys, "train", *options, "--hold-out", 5, "--run-dir", path, *TINY)
    assert status == 0 and "15 pairs, also in training: 0 pairs, 0 sources" in err
    held_out = data.read_parallel(path / "held_out.source.txt", path / "held_out.target.txt")
    assert held_out == [(form, form) for form in forms if (form, form) in held_out]
    assert len(held_out) == 15


def test_out_of_memory_names_the_batch_and_what_to_try(parallel, tmp_path, monkeypatch, capsys):
    def fit(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(keras.Model, "fit", fit)
    command = ("train", *parallel, *TINY, "--updates", 6, "--run-dir", tmp_path / "run")
    status, _, err = main(capsys, *command, "--accumulate", 3)
    assert status == 1
    shapes = re.search(r"shapes \(rows, source, target\): (.*)", err)[1]
    shapes = [tuple(map(int, shape)) for shape in re.findall(r"\((\d+), (\d+), (\d+)\)", shapes)]
    rows, source, target = max(shapes, key=np.prod)
    assert f"{rows} rows x {source} source x {target} target" in err
    assert "--tokens-per-batch 256" in err  # the option that was given
    assert "--tokens-per-batch 128 --accumulate 6" in err  # makes the same update


# --- translate, evaluate, average


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
    assert_one_line(status, err, "--alignment-layer has an effect only with --alignments or --json")


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


# --- fine-tuning


@pytest.fixture(scope="module")
def earlier(tmp_path_factory, parallel):
    """Returns a run whose vocabulary spells unseen characters in bytes."""
    path = tmp_path_factory.mktemp("runs") / "earlier"
    with pytest.MonkeyPatch.context() as patch:
        search_uncompiled(patch)
        options = ("--vocabulary-type=bpe", "--vocabulary-size=275", "--updates=6")
        assert train(*parallel, *options, f"--run-dir={path}") == 0
    return path


@pytest.fixture
def from_earlier(earlier, parallel, tmp_path):
    """Returns options that continue from a copy of that run, with a text that has new words."""
    copy = shutil.copytree(earlier, tmp_path / "earlier")
    rng = random.Random(9)
    sources = [" ".join(rng.choices("ba bo ku 나비".split(), k=3)) for _ in range(40)]
    options = [f"--init-from={copy}", "--init-weights=last", "--dropout=0.2", "--updates=6"]
    options += ["--vocabulary-type=bpe", "--warmup-steps=20"]  # the same; another
    for side, lines in (("source", sources), ("target", [line[::-1] for line in sources])):
        options.append(f"--train-{side}={write(tmp_path / side, lines)}")
    return [option for option in parallel if option.startswith("--valid")] + options


def test_a_fine_tuned_run_begins_where_the_earlier_one_ended(
    earlier, from_earlier, uncompiled, tmp_path, monkeypatch, capsys
):
    copy, new, stopped = tmp_path / "earlier", tmp_path / "new", tmp_path / "stopped"
    assert train(*from_earlier, f"--run-dir={new}") == 0
    assert contents(copy) == contents(earlier)

    # The score before the first update equals that after the earlier run's last update.
    last = [record for record in log_of(earlier) if record["event"] == "validation"][-1]
    start = log_of(new)[0]
    assert (start["event"], start["update"]) == ("start", 0)
    for name in ("val_nats_per_token", "val_token_accuracy"):
        assert start[name] == pytest.approx(last[name], rel=1e-6)
    assert f"before the first update: {start['val_nats_per_token']:.4f}" in capsys.readouterr().err

    # Vocabulary, sizes and weights are the earlier run's; optimizer, updates and dropout are not.
    weights = (copy / "checkpoints" / "update-00000006" / "weights.npz").read_bytes()
    settings = json.loads((new / "settings.json").read_text())
    assert settings["init_from"] == str(copy)
    assert settings["init_sha256"] == hashlib.sha256(weights).hexdigest()
    assert (settings["vocabulary_size"], settings["separate_vocabularies"]) == (275, False)
    tokenizers = [(path / "tokenizer.model").read_bytes() for path in (copy, new)]
    assert tokenizers[0] == tokenizers[1]
    configs = [json.loads((path / "model.json").read_text())["config"] for path in (copy, new)]
    assert configs[1] == configs[0] | {"dropout": 0.2} and configs[0]["dropout"] == 0.3
    assert [c.update for c in RunDirectory.open(new).checkpoints()] == [3, 6]
    (iterations,) = (v for k, v in arrays_of(new, 3).items() if k.endswith("iteration"))
    assert iterations == 3

    # The seen words are those of both texts. A character new to the old text is spelled in bytes.
    words = (new / "seen_words.txt").read_text(encoding="utf-8").split()
    assert set(words) == {"ba", "be", "bo", "da", "de", "do", "ku", "나비"}
    tokenizer = Tokenizer.load(new / "tokenizer.model")
    seen = [np.load(path / "seen_ids.npy", allow_pickle=False) for path in (copy, new)]
    with np.load(new / "ids" / "train.npz", allow_pickle=False) as ids:
        assert tokenizer.unknown_id not in ids["source_ids"]
        assert "나비" in tokenizer.decode(ids["source_ids"])
        np.testing.assert_array_equal(seen[1], seen[0] | tokenizer.seen_ids([ids["source_ids"]]))

    # Stopped and resumed equals never stopped, also if the earlier run was moved or deleted.
    assert train(*from_earlier, "--updates=3", f"--run-dir={stopped}") == 0
    shutil.move(copy, tmp_path / "moved")
    moved = [f"--init-from={tmp_path / 'moved'}", f"--run-dir={stopped}", "--updates=3"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "finish", lambda *arguments: None)
        assert train(*from_earlier, *moved) == 0
    assert train(*from_earlier, *moved, "--init-weights=3") == 1
    assert "has another SHA-256 than those of --init-from" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "moved")
    assert train(*from_earlier, f"--run-dir={stopped}") == 0
    assert "resuming at update 3" in capsys.readouterr().err
    assert_same_run(new, stopped, [3, 6])


def test_fine_tuning_killed_before_its_first_checkpoint_needs_no_earlier_run(
    from_earlier, tmp_path, monkeypatch
):
    ready = []
    monkeypatch.setattr(training, "fit", lambda *arguments, **_: ready.append(arguments[1]))
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    new = tmp_path / "new"
    assert train(*from_earlier, f"--run-dir={new}") == 0
    shutil.rmtree(tmp_path / "earlier")
    assert train(*from_earlier, f"--run-dir={new}") == 0
    first, second = (each.model.get_weights() for each in ready)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    # The run may hold the only copy of these weights, so a start from others must not delete them.
    other = [option for option in from_earlier if not option.startswith("--init")]
    assert train(*other, f"--run-dir={new}") == 1
    # The stored weights must be unchanged since the first start.
    with open(new / "initial" / "weights.npz", "ab") as file:
        file.write(b"damage")
    assert train(*from_earlier, f"--run-dir={new}") == 1


def test_a_dry_run_of_fine_tuning_writes_nothing(earlier, from_earlier, tmp_path, capsys):
    new = tmp_path / "new"
    status, out, _ = main(
        capsys,
        "train",
        *TINY,
        *from_earlier,
        "--vocabulary-type=bpe",
        f"--run-dir={new}",
        "--dry-run",
    )
    assert status == 0 and "vocabulary 275" in out
    assert not new.exists() and contents(tmp_path / "earlier") == contents(earlier)


@pytest.mark.parametrize(
    "options, part",
    [
        ("--vocabulary-type bpe", "--vocabulary-type bpe contradicts the vocabulary kept from"),
        ("--vocabulary-size 9", "(vocabulary_size there: 10000): leave it out"),
        ("--normalization nfkc", "(normalization there: identity)"),
        ("--separate-vocabularies", "(separate_vocabularies there: False)"),
        ("--d-model 32", "--d-model 32 contradicts the architecture kept from"),
        ("--num-layers 2", "(num_layers there: 1)"),
        ("--norm pre", "(norm there: post)"),
        ("--preset base", "--preset base contradicts the architecture"),
        (
            "--preset B-key-dim-16 --d-model 16 --num-layers 1 --num-heads 2 --d-ff 32",
            "key_dim there",
        ),
        ("--init-weights worst", "or one of the updates [3, 6]"),
        ("--init-weights 4", "no weights 4"),
        ("--init-from {absent}", "there is no such folder"),
        ("--init-from {folder}", "is not a run"),
    ],
)
def test_fine_tuning_says_what_it_cannot_take(run, parallel, tmp_path, capsys, options, part):
    before, new = contents(run), tmp_path / "new"
    options = options.format(absent=tmp_path / "absent", folder=tmp_path).split()
    command = ["train", *parallel, "--run-dir", new, "--init-from", run, *options]
    assert_one_line(*status_and_err(capsys, *command), part)
    assert not new.exists() and contents(run) == before


def test_fine_tuning_has_the_positions_that_were_learned(run, parallel, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    record = json.loads((copy / "model.json").read_text())
    record["config"] |= {"positions": "learned", "max_length": 99}
    (copy / "model.json").write_text(json.dumps(record))
    forget_checksums(copy)
    command = ["train", *parallel, "--run-dir", tmp_path / "new", "--init-from", copy]
    assert_one_line(*status_and_err(capsys, *command), "give --max-length 99")


def test_init_weights_are_those_of_init_from(parallel, tmp_path, capsys):
    command = ["train", *parallel, "--run-dir", tmp_path / "new", "--init-weights", "last"]
    assert_one_line(*status_and_err(capsys, *command), "give that too")


# --- errors


def status_and_err(capsys, *arguments):
    status, out, err = main(capsys, *arguments)
    assert out == ""
    return status, err


def assert_one_line(status, err, part):
    assert status == 1
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert re.match("keras-transformer [a-z]+: error: ", err) and part in err, err


@pytest.mark.parametrize(
    "options, part",
    [
        ("--train-source {absent}", "no such file: {absent}"),
        ("--train-source {short}", "need the same number of lines"),
        ("--train-source {empty}", "{empty} is empty"),
        ("--train-source {latin}", "{latin}, line 1: byte 0xfc is not UTF-8"),
        ("--train-source {folder}", "is a directory"),
        ("--train-tsv {short}", "Give either --train-tsv, or --train-source"),
        ("--hold-out 2", "Give either validation files or --hold-out"),
        ("--tokenize nope", "Unknown tokenizer 'nope'"),
        ("--run-dir {folder}", "not a run (no settings.json), so nothing was written"),
        ("--run-dir {short}", "is a file, expected a folder"),
    ],
)
def test_train_says_in_one_line_what_is_wrong(parallel, tmp_path, capsys, options, part):
    paths = {name: tmp_path / name for name in ("absent", "short", "empty", "latin", "folder")}
    write(paths["short"], ["one", "two"])
    paths["empty"].touch()
    paths["latin"].write_bytes("für\n".encode("latin-1") * 44)
    paths["folder"].mkdir()
    (paths["folder"] / "mine.txt").touch()
    new = tmp_path / "run"
    arguments = ["train", *parallel, "--run-dir", new, *options.format(**paths).split()]
    assert_one_line(*status_and_err(capsys, *arguments), part.format(**paths))
    assert not new.exists() and len(list(paths["folder"].iterdir())) == 1


@pytest.mark.parametrize(
    "options, part",
    [
        ([], "Nothing to train on"),
        (["--train-source={here}"], "--train-source and --train-target go together"),
        (["--train-source={here}", "--train-target={here}"], "Nothing to validate with"),
        (["--train-tsv={here}", "--hold-out=1"], "line 1: found 1 tab-separated column(s)"),
        (
            ["--train-source={here}", "--train-target={here}", "--hold-out=2"],
            "--hold-out 2 leaves nothing to train on: there are 2",
        ),
    ],
)
def test_train_says_which_text_is_missing(tmp_path, capsys, options, part):
    here = write(tmp_path / "here", ["one", "two"])
    options = [option.format(here=here) for option in options]
    status, err = status_and_err(capsys, "train", *options, "--run-dir", tmp_path / "run")
    assert_one_line(status, err, part)
    assert not (tmp_path / "run").exists()


def test_reading_a_run_says_in_one_line_what_is_wrong(run, parallel, tmp_path, monkeypatch, capsys):
    pipe(monkeypatch, b"ba\n")
    source, reference = (path_of(parallel, f"valid-{side}") for side in ("source", "target"))
    longer = path_of(parallel, "train-target")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "settings.json").write_text('{"seed": ')
    (tmp_path / "untrained").mkdir()
    (tmp_path / "untrained" / "settings.json").write_text("{}")
    (tmp_path / "other").mkdir()
    for verb in (
        ("translate",),
        ("evaluate", "--source", source, "--reference", reference),
        ("score", "--source", source, "--target", reference),
        ("average",),
    ):
        for name, part in (
            ("absent", "there is no such folder"),
            ("other", "is not a run"),
            ("broken", "settings.json"),
            ("untrained", "train it first"),
        ):
            arguments = (verb[0], tmp_path / name, *verb[1:])
            assert_one_line(*status_and_err(capsys, *arguments), part)
    evaluate = ("evaluate", run, "--source", source, "--reference", reference)
    only_reference = ("evaluate", "--reference", reference)
    score = ("score", run, "--source", source)
    for arguments, part in (
        (("translate", run, "--n-best", 5), "--n-best 5 is more than --beam-size 4"),
        (("translate", run, "--weights", "worst"), "no weights 'worst'"),
        (("translate", run, "--weights", "best"), "'best'"),
        (("translate", run, "--weights", "4"), "4"),
        ((*evaluate, "--tokenize", "nope"), "Unknown tokenizer 'nope'"),
        ((*evaluate, "--reference", longer), "need the same number of lines"),
        ((*evaluate, "--reference", reference, longer), "need the same number of lines"),
        ((*evaluate, "--reference", reference, reference, "--error-rate"), "one --reference"),
        ((*evaluate, "--hypotheses", longer), "need the same number of lines"),
        ((*evaluate, "--hypotheses", source, source), "is given twice"),
        (("evaluate", run, *evaluate[1:]), "is given twice"),
        (
            ("evaluate", tmp_path, *evaluate[1:], "--output", tmp_path / "o"),
            "goes with one RUN, got 2",
        ),
        (only_reference, "Nothing to evaluate"),
        ((*only_reference, "--source", source, "--hypotheses", source), "leave it out"),
        (("evaluate", run, "--reference", reference), "give --source FILE"),
        (score, "Nothing to score"),
        ((*score, "--tsv", source), "Give either --tsv, or"),
        ((*score, "--n-best", source), "line 1: expected number ||| hypothesis ||| score"),
        ((*score, "--n-best", source, "--tokens"), "neither --target nor --tokens"),
        ((*score, "--target", longer), "need the same number of lines"),
        ((*evaluate, "--reference", tmp_path / "absent"), "no such file"),
        (("average", run, "--last", 3), "has 2 checkpoints"),
        ((*only_reference, "--hypotheses", source, "--weights", "last"), "--weights has an effect"),
        ((*only_reference, "--hypotheses", source, "--beam-size", 8), "--beam-size has an effect"),
        ((*score, "--target", source, "--target-column", 2), "--target-column has an effect"),
        (("show", run, "ba", "--target", "do", "--beam-size", 2), "--beam-size has an effect"),
    ):
        assert_one_line(*status_and_err(capsys, *arguments), part)


class Echo:
    """A translator that returns its input."""

    compiled_shapes, weights = 0, "last"

    def n_best(self, texts, *search, **options):
        return [[Hypothesis(text, [], 0.0)] for text in texts]

    def translate(self, texts, *search):
        return list(texts)


@pytest.fixture
def echo(monkeypatch):
    for verb in (translate_verb, evaluate_verb):
        monkeypatch.setattr(verb, "translator_of", lambda run, args: Echo())


def test_lines_before_one_that_is_not_utf8_are_translated(echo, monkeypatch, capsys):
    pipe(monkeypatch, b"ba\n\xef\xbb\xbfdo\nf\xfcr\nde\n")
    status, out, err = main(capsys, "translate", "run")
    assert_one_line(status, err, "standard input, line 3: byte 0xfc is not UTF-8")
    assert out == "ba\ndo\n"  # without the byte order mark


def test_output_that_cannot_be_written_is_said_before_translating(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(evaluate_verb, "translator_of", lambda run, args: 1 / 0)
    source, blank = (write(tmp_path / name, [line]) for name, line in (("source", "a"), ("b", " ")))
    command = ["evaluate", "run", "--source", source, "--reference", source]
    output = tmp_path / "absent" / "x.txt"
    assert_one_line(*status_and_err(capsys, *command, "--output", output), "make it first")
    no_text = (*command[:-1], blank)
    assert_one_line(*status_and_err(capsys, *no_text), "references without any text")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    output = tmp_path / "x.txt"
    assert_one_line(*status_and_err(capsys, *command, "--output", output), "cannot be written to")


def test_what_was_translated_is_kept_where_its_file_cannot_be_written(
    echo, monkeypatch, tmp_path, capsys
):
    source, folder = write(tmp_path / "source", ["ba", "나는"]), tmp_path / "folder"
    folder.mkdir()

    def translate_and_lose(self, texts, *search):
        folder.rmdir()  # the folder disappears during the translation
        return list(texts)

    monkeypatch.setattr(Echo, "translate", translate_and_lose)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = ["evaluate", "run", "--source", source, "--reference", source]
    status, err = status_and_err(capsys, *command, "--output", folder / "x.txt")
    assert_one_line(status, err, "The text is in ")
    kept = re.search(r"The text is in (.*)\.$", err.strip())[1]
    assert open(kept, encoding="utf-8").read() == "ba\n나는\n"


def test_output_is_utf8_whatever_the_locale(echo, monkeypatch, tmp_path):
    source = write(tmp_path / "source", ["ba"])
    for command, expected in (
        (["translate", "run"], "한글\n"),
        (["evaluate", "런", "--source", source, "--reference", source], '"run": "런"'),
    ):
        pipe(monkeypatch, "한글\n".encode())
        streams = {name: io.TextIOWrapper(io.BytesIO(), "ascii") for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            assert cli.main(command) == 0
        assert expected in streams["stdout"].buffer.getvalue().decode("utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "fly run",
        "translate",
        "translate run --beam-size 0",
        "translate run --length-penalty -1",
        "translate run --n-best x",
        "evaluate run --source a",
        "train",
        "train --run-dir run --updates 0",
        "train --run-dir run --precision float8",
        "score",
        "score run --batch-size 0",
        "average run --last x",
        "average run --last 0",
        "score run --source-column -1",
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments.split())
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: keras-transformer")


OPTIONS = {
    "train": "train-source train-target train-tsv valid-source valid-target valid-tsv hold-out "
    "source-column target-column max-length vocabulary-size vocabulary-sample vocabulary-type "
    "normalization "
    "separate-vocabularies subword-sampling preset num-layers d-model num-heads d-ff dropout "
    "attention-dropout norm init-from init-weights lora-rank lora-targets run-dir updates devices "
    "processes coordinator process tokens-per-batch accumulate shapes warmup-steps learning-rate "
    "label-smoothing clip-norm seed precision jit deterministic dry-run validate-every tokenize "
    "keep-checkpoints average stop-early patience checkpoint-on-signal log-every",
    "translate": "beam-size length-penalty batch-size engine quantization weights ensemble n-best "
    "prefix prefixes terminology min-length max-length no-repeat-ngram repetition-penalty suppress "
    "sample temperature top-k top-p seed input output tokens-per-batch alignments alignment-layer "
    "alignment-heads token-scores json",
    "evaluate": "source reference hypotheses tokenize lowercase error-rate output beam-size "
    "length-penalty batch-size engine quantization weights ensemble",
    "score": "n-best source target tsv source-column target-column mean tokens batch-size weights "
    "ensemble",
    "average": "last",
    "quantize": "to run-dir weights",
    "import": "run-dir positions",
    "export": "format output quantization beam-size length-penalty weights ensemble",
    "serve": "host port beam-size length-penalty batch-size weights ensemble max-queue "
    "max-seconds max-bytes max-sentences max-tokens max-searches warm-up no-warm-up engine "
    "quantization",
}


@pytest.mark.parametrize("verb", OPTIONS)
def test_help_names_every_option(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    named = set(re.findall(r"--([a-z][a-z-]*)", capsys.readouterr().out))
    assert set(OPTIONS[verb].split()) <= named
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert verb in capsys.readouterr().out


# --- fresh processes


@pytest.mark.slow
def test_killed_and_started_again_equals_never_stopped(parallel, tmp_path):
    def command(run):
        options = ["--updates=12", "--deterministic", f"--run-dir={run}"]
        return [sys.executable, "-m", "keras_transformer", "train", *parallel, *TINY, *options]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True)
    process = subprocess.Popen(command(killed), stderr=subprocess.DEVNULL)
    while process.poll() is None and not (killed / "checkpoints" / "update-00000003").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run had ended before it was killed"
    assert not (killed / "checkpoints" / "update-00000012").exists()
    ended = subprocess.run(command(killed), check=True, capture_output=True, text=True)
    assert "resuming at update" in ended.stderr
    assert_same_run(whole, killed, [3, 6, 9, 12])
    again = subprocess.run(command(killed), check=True, capture_output=True, text=True)
    assert "trained already" in again.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(run):
    command = [sys.executable, "-m", "keras_transformer", "translate", str(run), "--beam-size", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    process.stdout.close()
    process.stdin.write(b"ba\n" * 5000)
    process.stdin.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 141 and "Error" not in err


def test_ctrl_c_while_stdin_is_open_ends_with_130():
    """Fails if: a thread that reads stdin holds its lock when Python ends (SIGABRT, status 134)."""
    code = (
        # A parent that ignores Ctrl-C (a script in the background) passes this on to its children.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from keras_transformer import cli; from keras_transformer.cli import translate\n"
        "with cli.without_notices():\n"
        "    from keras_transformer.decoding import Hypothesis\n"
        f"{inspect.getsource(Echo)}\n"
        "translate.translator_of = lambda run, args: Echo()\n"
        'sys.exit(cli.main(["translate", "run"]))'
    )
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdin.write("나는\n".encode())
        process.stdin.flush()
        assert process.stdout.readline().decode() == "나는\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b"keras-transformer translate: interrupted\n"


def test_an_error_while_stdin_is_open_leaves_no_thread(echo, monkeypatch, capsys):
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as stdin, open(writing, "wb", buffering=0) as typed:
        monkeypatch.setattr(sys, "stdin", stdin)
        typed.write(b"ba\n\xff\nde\n")
        before = threading.enumerate()
        status, out, err = main(capsys, "translate", "run")
        assert_one_line(status, err, "line 2: byte 0xff is not UTF-8")
        assert out == "ba\n" and threading.enumerate() == before
