"""Laws of the run directory. The main one: stopped and resumed equals never stopped, to the bit."""

import json
import os

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from older_runs import forget_checksums

from keras_transformer.runs import checkpoints as checkpoint_files
from keras_transformer.runs import run_directory
from keras_transformer.runs.run_directory import Checkpoint, RunDirectory, average, load_weights

UPDATES = 12
# On torch, a Dropout without a seed uses torch's global generator. Elsewhere None tests more.
DROPOUT_SEED = 17 if keras.backend.backend() == "torch" else None


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Skips fsync: power cuts cannot be tested, and hundreds of calls can take minutes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def toy(optimizer=None, seed=5, width=11, dtype="float32", compile=True):
    """Builds a model with Dropout (seed states) and BatchNormalization (non-trainable weights)."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((7,))
    x = keras.layers.Dense(width, activation="tanh", dtype=dtype)(inputs)
    x = keras.layers.Dropout(0.3, seed=DROPOUT_SEED)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.2, seed=DROPOUT_SEED)(x)
    model = keras.Model(inputs, keras.layers.Dense(3, dtype=dtype)(x))
    if compile:
        model.compile(optimizer or keras.optimizers.Adam(0.01), loss="mse")
    return model


def batch(update):
    random = np.random.default_rng(update)
    return [random.normal(size=(13, d)).astype("float32") for d in (7, 3)]


def batches(update):
    while True:
        yield tuple(batch(update))
        update += 1


class SaveAt(keras.callbacks.Callback):
    """Saves at the end of a batch, without `self.model`, which would sync JAX's state."""

    def __init__(self, run, model, start, updates):
        super().__init__()
        self.run, self.own, self.update, self.updates = run, model, start, updates

    def on_train_batch_end(self, batch, logs=None):
        self.update += 1
        if self.update in self.updates:
            self.run.save_checkpoint(self.own, self.update, {"update": self.update})


def train(run, model, start, stop, steps_per_epoch):
    model.fit(
        batches(start),
        epochs=(stop - start) // steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        callbacks=[SaveAt(run, model, start, {stop})],
        verbose=0,
    )


def arrays_of(checkpoint):
    return [
        array
        for name in ("weights.npz", "state.npz")
        for _, array in checkpoint_files.read_arrays(checkpoint.path / name)
    ]


def different(left, right):
    """Returns the positions at which two lists of arrays are not equal to the bit."""
    return [
        (index, a.dtype, a.shape, a.ravel()[:3], b.ravel()[:3])
        for index, (a, b) in enumerate(zip(left, right, strict=True))
        if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes())
    ]


def optimizer_with_every_kind_of_variable():
    adam = keras.optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.9, gradient_accumulation_steps=5
    )
    return keras.optimizers.LossScaleOptimizer(adam, initial_scale=8.0, dynamic_growth_steps=5)


# Fails if: a checkpoint lacks the seed states, the optimizer's or the loss scale's variables, or
# weights that are not trained; JAX's state is not synced before saving.
def test_stopped_and_resumed_equals_never_stopped(tmp_path):
    whole = RunDirectory.start(tmp_path / "whole", {})
    train(whole, toy(optimizer_with_every_kind_of_variable()), 0, UPDATES, steps_per_epoch=3)
    reference = arrays_of(whole.latest_checkpoint())

    with RunDirectory.start(tmp_path / "stopped", {}) as run:
        train(run, toy(optimizer_with_every_kind_of_variable()), 0, 6, steps_per_epoch=3)
    with RunDirectory.start(tmp_path / "stopped", {}) as run:
        model = toy(optimizer_with_every_kind_of_variable(), seed=99)
        state = run.restore(model, run.latest_checkpoint())
        assert state == {"update": 6}
        assert float(model.optimizer.dynamic_scale) == 16  # doubled once, after 5 updates
        train(run, model, state["update"], UPDATES, steps_per_epoch=3)
    assert not different(arrays_of(run.latest_checkpoint()), reference)


def test_stopped_in_the_middle_of_an_epoch_is_no_different(tmp_path):
    run = RunDirectory.start(tmp_path, {})
    model = toy()
    saves = SaveAt(run, model, 0, {4, 6})
    model.fit(batches(0), epochs=2, steps_per_epoch=3, callbacks=[saves], verbose=0)
    middle, end = run.checkpoints()
    assert (middle.update, end.update) == (4, 6)
    assert different(arrays_of(middle), arrays_of(end))
    resumed = toy(seed=99)
    run.restore(resumed, middle)
    assert int(keras.ops.convert_to_numpy(resumed.optimizer.iterations)) == 4
    expected = arrays_of(end)
    train(run, resumed, 4, 6, steps_per_epoch=2)
    assert not different(arrays_of(run.latest_checkpoint()), expected)


# --- checkpoints: whole or absent ---


def small_run(path, updates=(1, 2), **state):
    """Makes a run whose checkpoint at update u holds u in every weight."""
    run = RunDirectory.start(path, {"seed": 3})
    model = toy()
    for update in updates:
        model.set_weights([np.full(w.shape, update, w.dtype) for w in model.weights])
        run.save_checkpoint(model, update, {"update": update} | state)
    return run, model


def damage_by_truncating(folder):
    os.truncate(folder / "state.npz", (folder / "state.npz").stat().st_size - 1)


def damage_by_flipping_a_bit(folder):
    content = bytearray((folder / "weights.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "weights.npz").write_bytes(content)


def damage_by_removing(name):
    return lambda folder: (folder / name).unlink()


def damage_by_halving_state(folder):
    os.truncate(folder / "state.json", (folder / "state.json").stat().st_size // 2)


# Fails if: sizes and hashes are not checked.
@pytest.mark.parametrize(
    "damage",
    [
        damage_by_truncating,
        damage_by_flipping_a_bit,
        damage_by_removing("state.json"),
        damage_by_removing("weights.npz"),
        damage_by_halving_state,
    ],
)
def test_damaged_checkpoint_is_never_loaded(tmp_path, capsys, damage):
    run, model = small_run(tmp_path)
    damage(run.latest_checkpoint().path)
    assert run.latest_checkpoint().update == 1
    assert [c.update for c in run.checkpoints()] == [1]
    assert "update-00000002" in capsys.readouterr().err
    assert (run.load_model().get_weights()[0] == 1).all()
    run.save_checkpoint(model, 2, {})  # the resumed run saves the same update again
    assert [c.update for c in run.checkpoints()] == [1, 2]


# Fails if: a checkpoint is written directly to its final path.
@pytest.mark.parametrize("step", ["write_arrays", "to_json", "flush_folder"])
def test_killed_while_saving_leaves_the_previous_checkpoint(tmp_path, monkeypatch, step):
    run, model = small_run(tmp_path)
    real, calls = getattr(checkpoint_files, step), []

    def killed(*args, **kwargs):
        calls.append(step)
        if len(calls) == 2 or step != "write_arrays":
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint_files, step, killed)
        run.save_checkpoint(model, 3, {})
    assert [c.update for c in run.checkpoints()] == [1, 2]
    run.save_checkpoint(model, 4, {})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [
        f"update-0000000{update}" for update in (1, 2, 4)
    ]


def test_prune_keeps_the_last_the_best_and_the_named(tmp_path):
    run, _ = small_run(tmp_path, updates=range(1, 8), best_update=2)
    run.prune(keep_last=2, keep=[4])
    assert [c.update for c in run.checkpoints()] == [2, 4, 6, 7]
    with pytest.raises(ValueError, match="keep_last"):
        run.prune(keep_last=0)


def test_a_model_of_mixed_precision_computes_in_float32_where_there_is_no_accelerator(
    tmp_path, monkeypatch
):
    from keras_transformer.models import Transformer

    model = Transformer(
        11, num_layers=1, d_model=8, num_heads=2, d_ff=8, dtype="mixed_bfloat16", name="mixed"
    )
    model.compile("adam")
    with RunDirectory.start(tmp_path / "run", {}) as run:
        run.save_checkpoint(model, 1, {})
    for processor, dtype, expected in (
        (True, None, "float32"),
        (True, "mixed_bfloat16", "bfloat16"),
        (False, None, "bfloat16"),
    ):
        monkeypatch.setattr(
            run_directory, "runs_on_processor", lambda processor=processor: processor
        )
        loaded = run.load_model("last", dtype)
        assert loaded.encoder.compute_dtype == expected
        for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_dtype_that_a_model_does_not_take_is_refused(tmp_path):
    run, _ = small_run(tmp_path)  # a functional model, whose layers have their own dtypes
    with pytest.raises(ValueError, match="has no dtype of its own to replace by 'float32'"):
        run.load_model(dtype="float32")


# Fails if: bfloat16 is stored as numbers instead of bits.
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_survives_to_the_bit(tmp_path, dtype):
    run, model = RunDirectory.start(tmp_path, {}), toy(dtype=dtype)
    checkpoint = run.save_checkpoint(model, 1, {})
    expected = [keras.ops.convert_to_numpy(w) for w in model.weights]
    assert dtype in {w.dtype.name for w in expected}
    other = toy(seed=99, dtype=dtype)
    run.restore(other, checkpoint)
    assert not different([keras.ops.convert_to_numpy(w) for w in other.weights], expected)


def test_state_comes_back_as_it_was(tmp_path):
    run, model = small_run(tmp_path, best=0.1 + 0.2, worst=np.float32(0.1), file=tmp_path)
    state = run.restore(model, run.latest_checkpoint())
    assert state == {
        "update": 2, "best": 0.1 + 0.2, "worst": float(np.float32(0.1)), "file": str(tmp_path)
    }  # fmt: skip


@pytest.mark.parametrize(
    "other, message",
    [
        (lambda: toy(width=13), r"\(7, 11\).*\(7, 13\)"),
        (lambda: toy(dtype="bfloat16"), "float32.*bfloat16"),
        (lambda: toy(keras.optimizers.SGD(0.1)), "variables"),
        (lambda: toy(keras.optimizers.AdamW(0.1)), "adam_.*adam_w"),
        (lambda: toy(compile=False), "compile"),
    ],
)
def test_restoring_into_another_model_fails_and_changes_nothing(tmp_path, other, message):
    run, _ = small_run(tmp_path)
    model = other()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        run.restore(model, run.latest_checkpoint())
    assert not different(model.get_weights(), before)


def test_restoring_on_another_backend_names_it(tmp_path):
    run, model = small_run(tmp_path)
    path = run.latest_checkpoint().path / "state.json"
    forget_checksums(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backend": "abacus"}))
    with pytest.raises(ValueError, match="KERAS_BACKEND=abacus"):
        run.restore(model, run.latest_checkpoint())


# --- averages and weights for translation ---


def stored(folder, arrays):
    folder.mkdir()
    with open(folder / "weights.npz", "wb") as file:
        checkpoint_files.write_arrays(file, [(f"layer/{i}", a) for i, a in enumerate(arrays)])
    return Checkpoint(folder, 1, {})


# Fails if: integers are averaged; the sum is divided by k - 1.
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 5), seed=st.integers(0, 999))
def test_average_is_the_mean_and_integers_are_the_last(tmp_path_factory, count, seed):
    folder, random = tmp_path_factory.mktemp("average"), np.random.default_rng(seed)
    floats = random.normal(size=(count, 5, 7)).astype("float32")
    halves = random.normal(size=(count, 3)).astype(ml_dtypes.bfloat16)
    integers = random.integers(-9, 9, size=(count, 2))
    checkpoints = [
        stored(folder / str(i), [floats[i], halves[i], integers[i]]) for i in range(count)
    ]
    expected = [
        floats.astype("float64").mean(0).astype("float32"),
        halves.astype("float64").mean(0).astype(ml_dtypes.bfloat16),
        integers[-1],
    ]
    for value, want in zip(average(checkpoints), expected, strict=True):
        assert (value.dtype, value.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(value.astype("float64"), want.astype("float64"), rtol=1e-2)
        if value.dtype == "float32":
            np.testing.assert_allclose(value, want, rtol=1e-6)
    assert not different(average(checkpoints[:1]), [floats[0], halves[0], integers[0]])


def test_average_of_nothing_and_of_strangers(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint"):
        average([])
    strangers = [stored(tmp_path / str(n), [np.zeros(n)]) for n in (2, 3)]
    with pytest.raises(ValueError, match="shapes"):
        average(strangers)


def test_model_comes_back_with_the_weights_asked_for(tmp_path, capsys):
    run, model = small_run(tmp_path, updates=(1, 2, 4), best_update=2)
    run.close()
    reader = RunDirectory.open(tmp_path)

    def first(weights=None):
        return float(reader.load_model(weights).get_weights()[0].ravel()[0])

    assert (first(), first("last"), first("best"), first(1)) == (4, 4, 2, 1)
    reader.save_average(reader.checkpoints()[:2])
    assert (first(), first("average"), first("last")) == (1.5, 1.5, 4)
    assert "averages updates [1, 2], the run is at 4" in capsys.readouterr().err
    reader.save_average(reader.checkpoints())
    assert first() == pytest.approx(7 / 3)
    assert not capsys.readouterr().err

    x = batch(0)[0]
    loaded = reader.load_model("last")
    expected, actual = (keras.ops.convert_to_numpy(m(x)) for m in (model, loaded))
    np.testing.assert_array_equal(actual, expected)
    assert not loaded.compiled and "compile_config" not in (tmp_path / "model.json").read_text()
    fresh = toy(seed=8, compile=False)
    load_weights(fresh, reader.latest_checkpoint())
    assert not different(fresh.get_weights(), model.get_weights())
    for nonsense in ("worst", 3):
        with pytest.raises(ValueError, match=r"'best', 'last' or one of the updates \[1, 2, 4\]"):
            reader.load_model(nonsense)


def line_run(path, updates=(1, 3)):
    """Makes a run of the model y = w x with w = u at update u; returns the run and the model."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    # The comparison of weights only needs the distance from the target.
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanSquaredError(name="nats_per_token")])
    run = RunDirectory.start(path, {})
    for update in updates:
        model.set_weights([np.full((1, 1), update, "float32")])
        run.save_checkpoint(model, update, {})
    return run, model


class Pairs(keras.utils.PyDataset):
    """A dataset for `evaluate`: one batch of x = 1 and the target."""

    def __init__(self, target):
        super().__init__()
        self.target = target

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.ones((5, 1), "float32"), np.full((5, 1), self.target, "float32")


@pytest.mark.parametrize("target, better, weight", [(3, "last", 3), (2, "average", 2)])
def test_the_default_weights_are_those_that_are_better_in_validation(
    tmp_path, capsys, target, better, weight
):
    run, model = line_run(tmp_path)
    validation = Pairs(target)
    model.set_weights([np.full((1, 1), 7.0)])
    run.save_average(run.checkpoints(), model, validation)
    assert model.get_weights()[0] == 7  # the caller's model is unchanged
    said = capsys.readouterr().err
    assert ("worse" in said) == (better == "last")
    assert f"{(2 - target) ** 2:.4f} against {(3 - target) ** 2:.4f} nats per token" in said

    reader = RunDirectory.open(tmp_path)
    assert reader.default_weights() == better
    assert reader.load_model().get_weights()[0] == weight
    assert reader.load_model("average").get_weights()[0] == 2  # the argument overrides it
    assert reader.load_model("last").get_weights()[0] == 3
    run.save_average(run.checkpoints()[:1])  # not compared, as in runs of earlier versions
    assert reader.default_weights() == "average"


def test_an_average_that_is_not_a_number_is_not_the_default(tmp_path):
    run, model = line_run(tmp_path, (3,))
    model.set_weights([np.full((1, 1), np.nan)])
    diverged = run.save_checkpoint(model, 2, {})
    run.save_average([diverged], model, Pairs(1))
    assert run.default_weights() == "last"
    for checkpoint in run.checkpoints():  # without checkpoints only the average is left
        checkpoint_files.discard(checkpoint.path)
    assert run.default_weights() == "average"


def test_an_average_is_compared_by_nats_per_token_alone(tmp_path):
    run, _ = line_run(tmp_path)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="NatsPerToken"):
        run.save_average(run.checkpoints(), model, Pairs(1))


def test_nothing_to_load_is_said_in_one_line(tmp_path):
    run = RunDirectory.start(tmp_path, {})
    assert run.latest_checkpoint() is None and run.checkpoints() == []
    for weights, message in [(None, "no complete checkpoint"), ("average", "no averaged.npz")]:
        with pytest.raises(ValueError, match=message):
            run.load_model(weights)


# Fails if: pickles are allowed; Keras' safe mode is off.
def test_a_strangers_files_run_no_code(tmp_path):
    run, model = small_run(tmp_path)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with open(tmp_path / "averaged.npz", "wb") as file:
        np.savez(file, **{"00000/dense/kernel:object": np.array([Evil()], dtype=object)})
    with pytest.raises(ValueError, match="averaged.npz"):
        run.load_model("average")
    assert not (tmp_path / "ran").exists()

    inputs = keras.Input((7,))
    unsafe = keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs))
    config = keras.saving.serialize_keras_object(unsafe)
    (tmp_path / "averaged.npz").unlink()
    forget_checksums(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="[Ll]ambda"):
        run.load_model("last")


# --- settings, lock, log ---

SETTINGS = {"d_model": 7, "source": "a.ko", "updates": 100, "rates": (0.1, 0.2)}


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_start_then_resume_with_equal_settings(tmp_path):
    path = tmp_path / "new" / "parents" / "run"
    with RunDirectory.start(path, SETTINGS) as run:
        assert run.settings == SETTINGS | {"rates": [0.1, 0.2]}
    first = (path / "settings.json").read_bytes()
    with RunDirectory.start(path, SETTINGS | {"updates": 200}, changeable=["updates"]) as run:
        assert run.settings["updates"] == 200
    assert (path / "settings.json").read_bytes() == first
    assert RunDirectory.open(path).settings["updates"] == 100
    starts = json.loads((path / "versions.json").read_text())
    assert [start["changed_settings"] for start in starts] == [{}, {"updates": ["100", "200"]}]
    assert starts[0]["keras"] == keras.__version__
    assert starts[0]["backend"] == keras.backend.backend()


def test_a_run_older_than_an_option_goes_on_without_it(tmp_path):
    small_run(tmp_path / "run", seed=1)[0].close()
    with RunDirectory.start(tmp_path / "run", {"seed": 3, "sampling": None}):
        pass
    with pytest.raises(ValueError, match=r"sampling: \(absent\) there, 0.1 here"):
        RunDirectory.start(tmp_path / "run", {"seed": 3, "sampling": 0.1})


# Fails if: settings are not compared.
def test_other_settings_are_refused_by_name(tmp_path):
    RunDirectory.start(tmp_path, SETTINGS).close()
    (tmp_path / "checkpoints" / "update-00000001").mkdir(parents=True)  # damaged, but trained
    before = snapshot(tmp_path)
    other = SETTINGS | {"d_model": 11, "updates": 200, "beam": 4}
    other.pop("source")
    with pytest.raises(ValueError, match="--run-dir") as error:
        RunDirectory.start(tmp_path, other, changeable=["updates"])
    for part in ("d_model: 7 there, 11 here", "beam: (absent) there", 'source: "a.ko" there'):
        assert part in str(error.value)
    assert "updates" not in str(error.value) and "\n" not in str(error.value)
    assert snapshot(tmp_path) == before


def prepared(path, settings):
    """Makes a run that failed before its first checkpoint. A file of the user lies in it."""
    RunDirectory.start(path, settings).close()
    for name in ("tokenizer.model", "seen_ids.npy", "mine.txt"):
        (path / name).write_text("made from the old settings")


@pytest.mark.parametrize("vocabulary_from, kept", [(None, False), (["source"], True)])
def test_where_nothing_was_trained_a_run_starts_with_other_settings(
    tmp_path, capsys, vocabulary_from, kept
):
    prepared(tmp_path, SETTINGS)
    new = SETTINGS | {"d_model": 11, "rates": [0.1, 0.2]}
    with RunDirectory.start(tmp_path, new, (), vocabulary_from) as run:
        assert run.settings == new
    assert RunDirectory.open(tmp_path).settings == new
    assert "nothing was trained" in capsys.readouterr().err
    # Fails if: a vocabulary of other settings is used; the same vocabulary is made twice.
    assert {(tmp_path / name).exists() for name in ("tokenizer.model", "seen_ids.npy")} == {kept}
    assert (tmp_path / "mine.txt").exists()
    with RunDirectory.start(tmp_path, new | {"source": "b.ko"}, (), vocabulary_from):
        assert not (tmp_path / "tokenizer.model").exists()


TRAINED = {
    "a checkpoint": "checkpoints/update-00000001/weights.npz",
    "a run within it": "row/seed-1/checkpoints/update-00000001/weights.npz",
    "an average": "averaged.npz",
    "a log of removed checkpoints": "log.jsonl",
}


@pytest.mark.parametrize("what", TRAINED)
def test_what_was_trained_is_never_started_with_other_settings(tmp_path, what):
    prepared(tmp_path, SETTINGS)
    path = tmp_path / TRAINED[what]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"event": "validation", "val_loss": 1}\n' * 2)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="holds a run with other settings"):
        RunDirectory.start(tmp_path, SETTINGS | {"d_model": 11})
    assert snapshot(tmp_path) == before


def test_a_model_of_a_failed_start_is_not_that_of_the_next(tmp_path):
    # Fails if: the run takes over the architecture of a start that died while saving.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    (tmp_path / "run" / "model.json").write_text('{"of": "another start"}')
    run, model = line_run(tmp_path / "run")
    assert run.load_model("last").count_params() == model.count_params()


def test_a_text_is_known_by_its_sha256_and_not_by_its_path(tmp_path):
    small_run(tmp_path)[0].close()
    record = json.loads((tmp_path / "settings.json").read_text())
    paths = {"seed": 3, "data": "a"}
    with RunDirectory.start(tmp_path, paths | {"text_sha256": "x"}, ["data"]):
        pass  # the run is older than the record of its text
    (tmp_path / "settings.json").write_text(json.dumps(record | {"text_sha256": "x"}))
    with RunDirectory.start(tmp_path, {"seed": 3, "data": "b", "text_sha256": "x"}, ["data"]):
        pass
    with pytest.raises(ValueError, match="that of the text itself"):
        RunDirectory.start(tmp_path, paths | {"text_sha256": "y"}, ["data"])


# Fails if: a foreign folder is accepted.
def test_a_folder_of_somebody_else_is_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="not a run"):
        RunDirectory.start(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="is a file"):
        RunDirectory.start(tmp_path / "thesis.tex", SETTINGS)
    with pytest.raises(ValueError, match="not a run"):
        RunDirectory.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        RunDirectory.open(tmp_path / "nowhere")
    assert snapshot(tmp_path) == before


def test_a_start_that_was_killed_can_start_again(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "settings.json.tmp").write_text('{"d_mo')
    RunDirectory.start(tmp_path, SETTINGS).close()
    (tmp_path / "settings.json").write_text('{"d_model": ')
    for attempt in (RunDirectory.open, lambda path: RunDirectory.start(path, SETTINGS)):
        with pytest.raises(ValueError, match="broken or half-written"):
            attempt(tmp_path)


def test_two_trainers_do_not_share_a_run(tmp_path):
    first = RunDirectory.start(tmp_path, SETTINGS)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"process {os.getpid()}"):
        RunDirectory.start(tmp_path, SETTINGS)
    assert snapshot(tmp_path) == before
    RunDirectory.open(tmp_path)
    first.close()
    RunDirectory.start(tmp_path, SETTINGS).close()


def test_old_logs_are_read_with_the_names_of_today(tmp_path):
    old = [{"event": "interval", "epoch": 1}, {"event": "epoch", "epoch": 1, "val_bleu": 2.0}]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in old))
    records = RunDirectory(tmp_path, {}).read_log()
    assert records[1] == {"event": "validation", "validation": 1, "val_bleu": 2.0}


def test_log_has_each_update_once_wherever_it_was_cut(tmp_path):
    run = RunDirectory.start(tmp_path, {})
    records = [{"update": u, "loss": np.float32(1 / u), "text": "안녕\u2028"} for u in (1, 2, 3)]
    for record in records:
        run.append_log(record)
    whole = (tmp_path / "log.jsonl").read_bytes()
    written = run.read_log()
    assert [r["update"] for r in written] == [1, 2, 3] and written[0]["text"] == "안녕\u2028"
    for size in range(len(whole) + 1):
        (tmp_path / "log.jsonl").write_bytes(whole[:size])
        survivors = run.read_log()
        assert survivors == written[: len(survivors)]
        assert len(survivors) >= whole[:size].count(b"\n")
        run.truncate_log(2)
        run.append_log({"update": 3})
        assert run.read_log() == [r for r in survivors if r["update"] <= 2] + [{"update": 3}]
    (tmp_path / "log.jsonl").write_bytes(b"nonsense\n" + whole)
    with pytest.raises(ValueError, match="line 1"):
        run.read_log()
