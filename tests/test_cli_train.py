"""Tests of `train` on the command line: runs that start, stop, resume, fine-tune and complain."""

import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import (
    TINY,
    arrays_of,
    assert_one_line,
    assert_same_run,
    contents,
    log_of,
    main,
    path_of,
    pipe,
    status_and_err,
    train,
    write,
)
from older_runs import forget_checksums
from uncompiled import search_uncompiled, train_uncompiled

from keras_transformer import callbacks, cli, data
from keras_transformer.data.survey import survey
from keras_transformer.runs import (
    TrainSettings,
    derivation,
    fine_tune,
    load_translator,
    reading,
    training,
)
from keras_transformer.runs.checkpoints import read_note
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.text import Tokenizer
from keras_transformer.text.seen import SeenText

pytestmark = pytest.mark.tensorflow_only

SIDES = ("source", "target")
OPTIONS_OF_TRAIN = {field.name for field in dataclasses.fields(TrainSettings)}


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


def test_raised_updates_go_on_as_if_never_stopped(parallel, tmp_path, monkeypatch, capsys):
    search_uncompiled(monkeypatch)  # and trains in compiled steps
    run, other = tmp_path / "run", tmp_path / "other"
    assert train(*parallel, "--updates=6", f"--run-dir={run}") == 0
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


# Fails if: the option does not reach the model; the estimate of memory forgets the second pass.
def test_r_drop_trains_with_two_passes(parallel, uncompiled, tmp_path, capsys):
    reports, losses = [], []
    for number, options in enumerate(((), ("--r-drop", 5))):
        more = (*parallel, *TINY, "--dropout", 0.3, "--updates", 1, *options, "--run-dir")
        _, out, _ = main(capsys, "train", *more, tmp_path / "dry", "--dry-run")
        reports.append(int(re.search(r"memory: about ([\d,]+) MiB", out)[1].replace(",", "")))
        assert main(capsys, "train", *more, tmp_path / str(number))[0] == 0
        [end] = [each for each in log_of(tmp_path / str(number)) if each["event"] == "validation"]
        losses.append((end["loss"], end["nats_per_token"]))
    assert reports[1] > reports[0]
    (plain, nats), (both, first) = losses
    assert first == pytest.approx(nats, rel=1e-5)  # the first pass is that of a plain training
    assert both > plain + 0.01


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


# --- fine-tuning


@pytest.fixture(scope="module")
def earlier(tmp_path_factory, parallel):
    """Returns a run whose vocabulary spells unseen characters in bytes."""
    path = tmp_path_factory.mktemp("runs") / "earlier"
    with pytest.MonkeyPatch.context() as patch:
        search_uncompiled(patch)
        train_uncompiled(patch)
        options = ("--vocabulary-type=bpe", "--vocabulary-size=275", "--updates=6")
        assert train(*parallel, *options, f"--run-dir={path}") == 0
    return path


# Fails if: text that a start kept from training stays beside a run that trains on it.
def test_an_abandoned_start_leaves_no_held_out_text(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "fit", lambda *arguments, **_: None)
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    tsv = write(tmp_path / "pairs.tsv", (f"{a}{b}\t{b}{a}" for a in "abcd" for b in "efgh"))
    valid = write(tmp_path / "valid.tsv", ["i\tj"])
    path = tmp_path / "run"
    for other in (("--hold-out", 5), ("--valid-tsv", valid)):
        options = ("train", "--train-tsv", tsv, *other, "--run-dir", path, *TINY)
        assert main(capsys, *options)[0] == 0
        assert bool(list(path.glob("held_out*"))) == (other[0] == "--hold-out")


# Fails if: the records before the first validation are thrown away, although it continues there.
def test_a_fine_tuning_that_is_stopped_early_keeps_its_log(
    from_earlier, uncompiled, tmp_path, monkeypatch
):
    new, board = tmp_path / "new", callbacks.TensorBoard
    on_train_batch_end = board.on_train_batch_end

    def stop(self, batch, logs=None):
        on_train_batch_end(self, batch, logs)
        if batch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    options = [*from_earlier, f"--run-dir={new}", "--validate-every=6", "--log-every=1"]
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(board, "on_train_batch_end", stop)
            assert train(*options) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    first = RunDirectory.open(new).read_log()
    assert train(*options) == 0
    assert len(first) > 2 and RunDirectory.open(new).read_log()[: len(first)] == first


# Fails if: the bytes of a name that are no UTF-8 end the training when its settings are written.
def test_the_name_of_a_file_may_be_any_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "fit", lambda *arguments, **_: None)
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    tsv = tmp_path / os.fsdecode("가.tsv".encode("cp949"))
    write(tsv, (f"{a}{b}\t{b}{a}" for a in "abcd" for b in "efgh"))
    options = ("train", "--train-tsv", tsv, "--hold-out", 5, "--run-dir", tmp_path / "run", *TINY)
    assert main(capsys, *options)[0] == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text("utf-8"))
    assert settings["train_tsv"] == str(tsv)


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
    as_path = TrainSettings(init_from=copy, init_weights="last", train_tsv="t", run_dir=stopped)
    assert fine_tune.start_from(as_path)[0].folder == stopped / "initial"
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
