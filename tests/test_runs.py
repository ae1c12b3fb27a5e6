"""Tests of training with a run directory, for any Keras model, and of the options of `train`."""

import dataclasses
import json
import os
import signal

import keras
import numpy as np
import pytest
from noisy_line import Lines, build

import keras_transformer as kt
from keras_transformer.cli import build_parser
from keras_transformer.runs.checkpoints import read_arrays
from keras_transformer.runs.options import Number
from keras_transformer.runs.settings import OPTIONS, TrainSettings, names_where


def train(path, updates, accumulate=1, **options):
    """Trains a new model in `path`; returns its weights and the state that `fit` returns."""
    model, plan = build(accumulate), Lines(accumulate)
    with kt.RunDirectory.start(path, {"seed": 7, "updates": updates}, ["updates"]) as run:
        options = {"validation": plan.evaluation(), "validate_every": 2, **options}
        state = run.fit(model, plan, updates=updates, log_every=2, **options)
    return model.get_weights(), state


def test_any_model_is_resumed_to_the_bit(tmp_path, capsys):
    # Fails if: the data, the seeds, the optimizer or the log do not continue from the checkpoint.
    whole, state = train(tmp_path / "whole", 6)
    assert state["update"] == 6 and state["seconds"] > 0 and "val_loss" in state["logs"]
    _, first = train(tmp_path / "stopped", 4)
    capsys.readouterr()
    # Records after the last checkpoint are replaced by new ones.
    kt.RunDirectory.open(tmp_path / "stopped").append_log({"event": "interval", "update": 5})
    stopped, second = train(tmp_path / "stopped", 6)
    assert "resuming at update 4" in capsys.readouterr().err
    assert second["update"] == 6 and second["seconds"] > first["seconds"]
    for one, other in zip(whole, stopped, strict=True):
        np.testing.assert_array_equal(one, other)
    updates = [
        [record["update"] for record in kt.RunDirectory.open(tmp_path / name).read_log()]
        for name in ("whole", "stopped")
    ]
    assert updates[0] == updates[1] and updates[0][-1] == 6

    again, state = train(tmp_path / "stopped", 6)
    assert "trained already, 6 updates" in capsys.readouterr().err and state["update"] == 6
    np.testing.assert_array_equal(again[0], whole[0])  # the weights are restored nevertheless


# Fails if: a training that was killed after its last checkpoint stays without an embedding; the one
# of a shorter training stays while a longer one runs.
def test_a_training_killed_at_its_very_end_gets_its_embedding(tmp_path):
    class Embedding(kt.callbacks.Probes):
        draw = draw_once = staticmethod(lambda *_: None)

        def write_embedding(self, log_dir, model):
            config.write_text(str(int(model.optimizer.iterations)))

    config, during = tmp_path / "projector_config.pbtxt", []

    def watched(updates):
        board = kt.callbacks.TensorBoard(str(tmp_path), probes=Embedding([], None))
        look = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_: during.append(config.exists())
        )
        train(tmp_path, updates, callbacks=[board, look])
        return config.read_text()

    assert watched(2) == "2"
    config.unlink()
    assert watched(2) == "2" and watched(4) == "4"
    assert during == [False, False]


# Fails if: an error of the file system is passed on without the folder and without advice.
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("name", ["ENOLCK", "ENOTSUP", "ENOSYS", "EIO", "ESTALE"])
def test_a_file_system_without_locks_is_named(name, tmp_path, monkeypatch):
    import errno
    import fcntl

    def fail(*_):
        raise OSError(getattr(errno, name), "no locks here")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match=f"{tmp_path}/lock cannot be locked .no locks here.*on anoth"):
        kt.RunDirectory.start(tmp_path, {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]  # nothing has begun


def test_updates_are_rounded_up_to_whole_validations(tmp_path):
    assert train(tmp_path, 5)[1]["update"] == 6


def test_checkpoints_are_pruned_and_the_late_ones_averaged(tmp_path, monkeypatch):
    # Fails if: an early checkpoint enters the average; too many are kept.
    averaged, compared = [], []

    def save_average(run, saved, *model_and_validation):
        averaged.append([each.update for each in saved])
        compared.append(len(model_and_validation))

    monkeypatch.setattr(kt.RunDirectory, "save_average", save_average)
    train(tmp_path / "all", 8, average=5)
    train(tmp_path / "some", 8, average=2, keep_checkpoints=3)
    train(tmp_path / "none", 8)
    train(tmp_path / "unvalidated", 8, average=2, validation=None)
    assert averaged == [[4, 6, 8], [6, 8], [6, 8]]
    assert compared == [2, 2, 0]  # nothing is compared without validation
    run = kt.RunDirectory.open(tmp_path / "some")
    assert [each.update for each in run.checkpoints()] == [4, 6, 8]


def test_a_stopped_training_stays_stopped_and_keeps_its_best(tmp_path, capsys):
    # Fails if: early stopping forgets its history on resuming; the best checkpoint is pruned.
    def stop():
        return kt.callbacks.StopEarly("val_loss", "max", patience=2)  # the loss only falls

    _, state = train(tmp_path, 20, callbacks=[stop()], keep_checkpoints=1)
    assert state["best_update"] == 2 and state["update"] < 20
    run = kt.RunDirectory.open(tmp_path)
    assert [each.update for each in run.checkpoints()] == [2, state["update"]]
    capsys.readouterr()
    assert train(tmp_path, 20, callbacks=[stop()])[1]["update"] == state["update"]
    assert "trained already" in capsys.readouterr().err


# Fails if: scores of one kind are taken for those of another.
def test_early_stopping_that_watches_something_else_begins_anew(tmp_path, capsys):
    class Scoring(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_mine"] = 100 - epoch

    stop = kt.callbacks.StopEarly("val_loss", "max", patience=2)
    _, state = train(tmp_path, 20, callbacks=[stop])
    stopped = state["update"]
    assert stopped < 20 and train(tmp_path, 20, callbacks=[stop])[1]["update"] == stopped
    assert "stopped early; to continue, raise patience" in capsys.readouterr().err
    other = kt.callbacks.StopEarly("val_mine", "min", patience=2)
    _, state = train(tmp_path, stopped + 4, callbacks=[Scoring(), other])
    assert "begins anew: until now it watched val_loss" in capsys.readouterr().err
    assert [entry["update"] for entry in state["scores"]] == [stopped + 2, stopped + 4]
    assert state["update"] == state["best_update"] == stopped + 4


def test_own_callbacks_add_to_what_is_shown_and_logged(tmp_path):
    class Scoring(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_mine"] = 0.25 + epoch

    _, state = train(tmp_path, 4, callbacks=[Scoring()])
    assert state["logs"]["val_mine"] == 1.25
    records = kt.RunDirectory.open(tmp_path).read_log()
    assert [r["val_mine"] for r in records if r["event"] == "validation"] == [0.25, 1.25]


def test_a_training_that_diverges_ends(tmp_path):
    class Broken(Lines):
        def batch(self, update):
            x, y = super().batch(update)
            return x, y * np.float32("nan")

    model = build()
    with kt.RunDirectory.start(tmp_path, {}) as run, pytest.raises(FloatingPointError):
        run.fit(model, Broken(), updates=400, validate_every=200, log_every=1)
    assert not run.checkpoints()  # nothing broken was saved


class Signal(keras.callbacks.Callback):
    """Sends this process a signal before the n-th batch of a call of `run.fit`, from 0."""

    def __init__(self, number, batch):
        super().__init__()
        self.number, self.left = number, batch

    def on_train_batch_begin(self, batch, logs=None):
        if not self.left:
            os.kill(os.getpid(), self.number)
        self.left -= 1


@pytest.fixture
def default_signals():
    """The signals as a shell sets them; under nohup SIGHUP is ignored, and stays so."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


# Fails if: the rest of a validation's updates is trained on other data, or again; what was saved
# between counts as a checkpoint; the process ends within an accumulated update.
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_signal_loses_no_update(tmp_path, capsys, accumulate, default_signals):
    options = {"accumulate": accumulate, "validate_every": 4, "average": 3, "validation": None}
    whole, _ = train(tmp_path / "whole", 12, **options)
    path = tmp_path / "stopped"
    for number, updates, saved in ((signal.SIGTERM, 6, 6), (signal.SIGHUP, 1, 7)):
        with pytest.raises(SystemExit) as ended:
            batch = updates * accumulate - (accumulate - 1)  # within an update, if it has several
            train(path, 12, **options, callbacks=[Signal(number, batch)])
        assert ended.value.code == 128 + number
        assert f"{number.name}: saved update {saved}; the same" in capsys.readouterr().err
        run = kt.RunDirectory.open(path)
        assert run.newest().update == saved and run.latest_checkpoint().update == 4
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    weights, state = train(path, 12, **options)
    assert "resuming at update 7" in capsys.readouterr().err and state["update"] == 12
    for one, other in zip(whole, weights, strict=True):
        np.testing.assert_array_equal(one, other)
    runs = tmp_path / "whole", path
    names = [{p.name for p in run.iterdir() if "events" not in p.name} for run in runs]
    assert names[0] == names[1]  # nothing of the interruptions is left
    names = [{p.name for p in (run / "checkpoints").iterdir()} for run in runs]
    assert names[0] == names[1] == {f"update-{update:08}" for update in (4, 8, 12)}
    for name in ("averaged.npz", "checkpoints/update-00000012/state.npz"):
        arrays = (read_arrays(run / name) for run in runs)
        for (_, one), (_, other) in zip(*arrays, strict=True):
            np.testing.assert_array_equal(one, other)


# Fails if: a signal is forgotten that comes when no update is left, in the last validation.
def test_a_signal_after_the_last_update_ends_it_too(tmp_path, capsys, default_signals):
    late = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    options = {"validate_every": 4, "average": 2, "validation": None}
    with pytest.raises(SystemExit) as ended:
        train(tmp_path, 4, **options, callbacks=[late])
    assert ended.value.code == 143 and "saved update 4;" in capsys.readouterr().err
    _, state = train(tmp_path, 4, **options)
    assert state["update"] == 4 and "trained already" in capsys.readouterr().err


def test_signals_do_what_they_did_unless_asked(tmp_path):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        options = {"checkpoint_on_signal": False, "callbacks": [Signal(signal.SIGTERM, 1)]}
        _, state = train(tmp_path / "off", 4, **options)
        assert heard == [signal.SIGTERM] and state["update"] == 4
        # A second signal does not wait for a save.
        with pytest.raises(SystemExit):
            train(tmp_path / "on", 4, callbacks=[Signal(signal.SIGTERM, 1) for _ in range(2)])
        assert heard == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


# --- options


def test_the_command_line_has_every_option_and_its_default():
    # Fails if: the parser lacks an option of the dataclass, or has another default.
    args = vars(build_parser().parse_args(["train", "--run-dir", "here"]))
    settings = TrainSettings(run_dir="here")
    for name in OPTIONS:
        assert args[name] == getattr(settings, name), name


def test_what_would_change_an_update_may_not_change_on_resuming():
    changeable = set(names_where(changeable=True))
    assert {"updates", "run_dir", "train_source", "log_every", "average"} <= changeable
    changing = {"seed", "preset", "d_model", "learning_rate", "warmup_steps", "precision"}
    changing |= {"tokens_per_batch", "accumulate", "label_smoothing", "dropout", "validate_every"}
    assert not changeable & changing
    not_recorded = {"dry_run", "processes", "coordinator", "process"}
    assert set(OPTIONS) - not_recorded == set(TrainSettings(run_dir="r").record())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"updates": 0}, "--updates: expected a whole number above 0, at most 2147483647, got 0"),
        ({"precision": "float8"}, "--precision float8: expected one of float32"),
        ({"subword_sampling": 2}, "--subword-sampling: expected a number above 0, at most 1"),
        ({"stop_early": "chrf"}, "--stop-early chrf: expected one of bleu, loss"),
        ({"d_model": "wide"}, "--d-model: expected a whole number"),
    ],
)
def test_wrong_values_are_errors_in_python_too(options, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(run_dir="here", **options)


NUMBERS = {name: known.parse for name, known in OPTIONS.items() if isinstance(known.parse, Number)}


# Fails if: an option takes `float` or `int` as they come, a limit is on the wrong side, NaN slips
# through a comparison, or Python and the command line differ.
@pytest.mark.parametrize("name", NUMBERS)
def test_an_option_takes_the_numbers_of_its_range(name, capsys):
    number = NUMBERS[name]
    low = number.above if number.least is None else number.least
    high = number.below if number.most is None else number.most
    high = 1e6 if high is None else high
    step = 1 if number.kind is int else 1e-3
    inside = [low + step, high - step]
    inside += [edge for edge in (number.least, number.most) if edge is not None]
    outside = [low - step, *(() if high == 1e6 else (high + step,)), number.above, number.below]
    outside += ["nan", "inf", "-inf", "x", "", True, -(10**400)]
    outside += [low + 0.5] if number.kind is int else []
    flag = f"--{name.replace('_', '-')}"
    for value in inside:
        assert getattr(TrainSettings(run_dir="r", **{name: str(value)}), name) == value
        given = build_parser().parse_args(["train", "--run-dir=r", f"{flag}={value}"])
        assert getattr(given, name) == value
    for value in outside:
        if value is None:
            continue
        with pytest.raises(ValueError, match=f"^{flag}: expected a .*, got "):
            TrainSettings(run_dir="r", **{name: value})
        with pytest.raises(SystemExit):
            build_parser().parse_args(["train", "--run-dir=r", f"{flag}={value}"])
        assert f"argument {flag}: expected a " in capsys.readouterr().err


# Fails if: a new option takes numbers without a range.
def test_no_option_takes_any_number():
    assert set(NUMBERS) >= {"seed", "updates", "learning_rate", "clip_norm", "dropout", "average"}
    assert not [name for name, known in OPTIONS.items() if known.parse in (int, float)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target_column": 2},
            "--target-column has an effect only with --train-tsv or --valid-tsv",
        ),
        ({"patience": 3}, "--patience has an effect only with --stop-early"),
        ({"init_weights": "best"}, "--init-weights has an effect only with --init-from"),
        ({"lora_rank": 2}, "--lora-rank has an effect only with --init-from"),
        ({"lora_targets": "key", "init_from": "r"}, "only with --lora-rank"),
    ],
)
def test_options_without_effect_are_refused_before_anything_is_written(options, message, tmp_path):
    settings = TrainSettings(run_dir=str(tmp_path / "run"), **options)
    with pytest.raises(ValueError, match=message):
        kt.runs.train(settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.tensorflow_only
def test_an_unknown_preset_is_named_before_anything_is_written(tmp_path):
    settings = TrainSettings(run_dir=str(tmp_path / "run"), preset="small")
    with pytest.raises(ValueError, match="--preset small: expected one of tiny, base, big"):
        kt.runs.train(settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.tensorflow_only
def test_python_trains_what_the_command_trains(tmp_path, uncompiled):
    # Fails if: `kt.runs.train` leaves out a step of the command.
    pairs = [(f"{a} {b}", f"{b} {a}") for a in "abcdef" for b in "ghijkl"]
    kt.data.write_parallel(pairs, tmp_path / "source", tmp_path / "target")
    options = {"train_source": str(tmp_path / "source"), "train_target": str(tmp_path / "target")}
    options |= {"hold_out": 4, "vocabulary_type": "char", "num_layers": 1, "d_model": 8}
    options |= {"num_heads": 2, "d_ff": 8, "updates": 2, "warmup_steps": 1, "tokens_per_batch": 64}
    keras.backend.clear_session()
    run = kt.runs.train(TrainSettings(run_dir=str(tmp_path / "python"), **options))
    keras.backend.clear_session()
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    from keras_transformer import cli

    assert cli.main(["train", *flags, f"--run-dir={tmp_path / 'command'}"]) == 0
    runs = [run.path, tmp_path / "command"]
    weights = [read_arrays(path / "checkpoints/update-00000002/weights.npz") for path in runs]
    assert len(weights[0]) > 10
    for (name, one), (_, other) in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    settings = [json.loads((path / "settings.json").read_text()) for path in runs]
    assert settings[0] | {"run_dir": None} == settings[1] | {"run_dir": None}
    left_out = {*names_where(recorded=False), "init_from", "init_weights"}
    assert dataclasses.asdict(TrainSettings(run_dir="r")).keys() - settings[0].keys() == left_out
