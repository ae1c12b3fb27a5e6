"""Laws of the callbacks, tested with small stand-ins for model, optimizer and metrics."""

import io
import json
import math
import os
import sys
from types import ModuleType, SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer.callbacks import (
    Checkpoints,
    IntervalMeter,
    Progress,
    StopEarly,
    StopOnNonFinite,
    TensorBoard,
    TranslationScore,
)

VOCABULARY = 11
LENGTH = 7


class TokenMean(keras.metrics.Metric):
    def __init__(self, name, value):
        super().__init__(name=name)
        self.value = value
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        real = ops.cast(ops.not_equal(y_true, 0), "float32")
        self.total.assign_add(ops.sum(self.value(y_true, y_pred) * real))
        self.count.assign_add(ops.sum(real))

    def result(self):
        return self.total / self.count


def nats(y_true, y_pred):
    return ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def correct(y_true, y_pred):
    return ops.cast(ops.equal(ops.argmax(y_pred, -1), ops.cast(y_true, "int32")), "float32")


class CountingSGD(keras.optimizers.SGD):
    """Counts what `PaperAdam` counts. Weights never change, so every figure can be recomputed."""

    def build(self, var_list):
        super().build(var_list)
        self.gradient_norm = self.add_variable((), name="gradient_norm")
        self.skipped_updates = self.add_variable((), dtype="int32", name="skipped_updates")
        self.skipped_in_a_row = self.add_variable((), dtype="int32", name="skipped_in_a_row")

    @property
    def updates(self):
        return self.iterations

    def update_step(self, gradient, variable, learning_rate):
        bad = ops.cast(ops.logical_not(ops.all(ops.isfinite(gradient))), "int32")
        self.gradient_norm.assign(ops.cast(self.updates, "float32") + 0.5)
        self.skipped_updates.assign_add(bad)
        self.skipped_in_a_row.assign((self.skipped_in_a_row + bad) * bad)


class Ramp(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.001 * (ops.cast(step, "float32") + 1.0)


def make_model(optimizer=None):
    ids = keras.Input((LENGTH,), dtype="int32")
    logits = keras.layers.Embedding(VOCABULARY, VOCABULARY)(ids)
    model = keras.Model(ids, logits)
    model.set_weights([np.random.default_rng(5).normal(size=(VOCABULARY, VOCABULARY))])
    model.compile(
        optimizer or CountingSGD(Ramp()),
        loss=lambda y, p: ops.mean(nats(y, p)),
        weighted_metrics=[TokenMean("nats_per_token", nats), TokenMean("token_accuracy", correct)],
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


@pytest.fixture(scope="module")
def compiled():
    return make_model()


@pytest.fixture
def model(compiled):
    """Returns the same compiled model for many tests, with its counters at 0."""
    for variable in compiled.optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    return compiled


def make_batches(number, seed=3):
    """Returns batches with different numbers of target tokens, so means of means are wrong."""
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(number):
        x = rng.integers(1, VOCABULARY, size=(3, LENGTH)).astype("int32")
        y = rng.integers(1, VOCABULARY, size=x.shape).astype("int32")
        y[np.arange(LENGTH) >= rng.integers(1, LENGTH, size=(len(x), 1))] = 0
        batches.append((x, y))
    return batches


def expected(model, batches):
    """Returns target tokens, nats per token and accuracy of these batches, computed in NumPy."""
    table = np.asarray(model.get_weights()[0], "float64")
    logs = table - np.log(np.exp(table).sum(-1, keepdims=True))
    x = np.concatenate([x.ravel() for x, _ in batches])
    y = np.concatenate([y.ravel() for _, y in batches])
    x, y = x[y > 0], y[y > 0]
    return len(y), -logs[x, y].mean(), (table[x].argmax(-1) == y).mean()


def feed(batches):
    def generator():
        yield from batches

    return generator()


def fit(model, batches, callbacks, epochs=1, initial_epoch=0, validation=None):
    steps = len(batches) // (epochs - initial_epoch)
    return model.fit(
        feed(batches),
        epochs=epochs,
        initial_epoch=initial_epoch,
        steps_per_epoch=steps,
        validation_data=validation,
        callbacks=callbacks,
        verbose=0,
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def intervals(records):
    return [r for r in records if r["event"] == "interval"]


# Fails if: micro-batches count as updates; sums are kept across validations.
@pytest.mark.parametrize("accumulation", [None, 3])
def test_interval_figures_are_exact(accumulation):
    k = accumulation or 1
    model = make_model(CountingSGD(Ramp(), gradient_accumulation_steps=accumulation))
    records = []
    batches = make_batches(2 * 5 * k)  # two epochs of 5 updates, intervals of 2, validation between
    fit(
        model,
        batches,
        [Progress(every=2, stream=io.StringIO(), log=records.append)],
        epochs=2,
        validation=make_batches(1)[0],
    )
    rows = intervals(records)
    assert [r["update"] for r in rows] == [2, 4, 5, 6, 8, 10]
    start = 0
    for row in rows:
        end = row["update"] * k
        tokens, nats_per_token, accuracy = expected(model, batches[start:end])
        assert row["target_tokens"] == tokens
        np.testing.assert_allclose(row["nats_per_token"], nats_per_token, rtol=1e-5)
        np.testing.assert_allclose(row["token_accuracy"], accuracy, rtol=1e-5)
        np.testing.assert_allclose(row["perplexity"], math.exp(nats_per_token), rtol=1e-5)
        # The norm is that of the interval's last update.
        np.testing.assert_allclose(row["gradient_norm"], row["update"] - 1 + 0.5)
        assert row["skipped_updates"] == 0
        assert row["target_tokens_per_second"] > 0
        start = end
    if not accumulation:  # with accumulation, this stand-in counts micro-batches in its rate
        rates = [r["learning_rate"] for r in rows]
        np.testing.assert_allclose(rates, [0.001 * (r["update"] + 1) for r in rows], rtol=1e-5)


def test_epoch_record_has_validation_and_is_json(model):
    records = []
    validation = make_batches(1, seed=7)[0]
    fit(
        model,
        make_batches(3),
        [Progress(stream=io.StringIO(), log=records.append)],
        1,
        0,
        validation,
    )
    record = json.loads(json.dumps(records[-1]))
    tokens, nats_per_token, accuracy = expected(model, [validation])
    assert (record["event"], record["validation"], record["update"]) == ("validation", 1, 3)
    np.testing.assert_allclose(record["val_nats_per_token"], nats_per_token, rtol=1e-5)
    np.testing.assert_allclose(record["val_perplexity"], math.exp(nats_per_token), rtol=1e-5)
    np.testing.assert_allclose(record["val_token_accuracy"], accuracy, rtol=1e-5)


def test_plain_stream_has_whole_lines_and_a_terminal_is_rewritten(model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "79")
    plain, terminal = io.StringIO(), Terminal()
    callbacks = [Progress(every=2, stream=plain), Progress(every=2, stream=terminal)]
    fit(model, make_batches(8), callbacks, epochs=2, validation=make_batches(1)[0])
    lines = plain.getvalue().splitlines()
    assert "\r" not in plain.getvalue() and "\x1b" not in plain.getvalue()
    assert len(lines) == 8  # two for the first update; two intervals and a line per validation
    assert lines[0] == "update 0/8  compiling the first update"
    assert lines[1].startswith("update 1/8  the first update took ")
    assert lines[2].startswith("update 2/8  left 0:00:")
    assert lines[6].startswith("update 8/8  left 0:00:00  loss ")
    for part in (" nats/token ", " ppl ", " acc ", " lr ", " grad ", " tokens/s"):
        assert part in lines[2]
    for part in ("update 8/8  validation 2/2:", " ppl ", " acc ", " in 0:00:"):
        assert part in lines[7]
    # Fails if: the time between two validations is called an epoch, which means a pass over data.
    assert "epoch" not in plain.getvalue()
    assert "skipped" not in plain.getvalue()
    rows = terminal.getvalue().split("\r")[1:]
    assert len(rows) == 8
    assert [row.endswith("\x1b[K\n") for row in rows] == [False] * 4 + [True, False, False, True]
    for row in rows:
        assert row.endswith("\n") or (row.endswith("\x1b[K") and len(row) - 3 < 79)


# Fails if: a resumed run counts its intervals from the update at which it resumes.
def test_resumed_run_goes_on_with_epochs_updates_and_total(model):
    records, stream = [], io.StringIO()
    fit(model, make_batches(5), [], epochs=1)
    progress = Progress(every=3, stream=stream, log=records.append)
    fit(model, make_batches(10), [progress], epochs=3, initial_epoch=1)
    assert [r["update"] for r in intervals(records)] == [6, 9, 10, 12, 15]
    assert [r["validation"] for r in records if r["event"] == "validation"] == [2, 3]
    lines = stream.getvalue().splitlines()
    assert lines[0] == "update 5/15  compiling the first update"
    assert lines[1].startswith("update 6/15  the first update took ")
    assert lines[2].startswith("update 6/15  loss ")


def test_plain_optimizer_leaves_its_columns_out():
    records = []
    progress = Progress(stream=io.StringIO(), log=records.append)
    fit(make_model(keras.optimizers.SGD(0.25)), make_batches(2), [progress])
    assert "gradient_norm" not in records[0] and "skipped_updates" not in records[0]
    assert records[0]["learning_rate"] == 0.25 and records[0]["update"] == 2


def test_loss_scaled_optimizer_is_seen_through():
    records = []
    model = make_model(keras.optimizers.LossScaleOptimizer(CountingSGD(Ramp())))
    fit(model, make_batches(4), [Progress(stream=io.StringIO(), log=records.append)])
    assert records[0]["gradient_norm"] == 3.5 and records[0]["update"] == 4


def test_interval_must_be_a_positive_number():
    for every in (0, -1, "epoch", 2.0):
        with pytest.raises(ValueError, match="positive whole number of updates"):
            IntervalMeter(every)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="always synchronous there")
def test_no_callback_makes_the_steps_wait(tmp_path):
    ours = [
        Progress(), TensorBoard(tmp_path), StopOnNonFinite(), StopEarly(), Checkpoints(print),
        TranslationScore(str, [], [], str),
    ]  # fmt: skip
    assert keras.callbacks.CallbackList(ours)._async_train
    assert not keras.callbacks.CallbackList([keras.callbacks.TensorBoard(tmp_path)])._async_train


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="Keras imports it there")
def test_tensorboard_uses_no_tensorflow(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))  # empty
    monkeypatch.setitem(sys.modules, "tensorflow.summary", None)
    fit(model, make_batches(2), [TensorBoard(tmp_path)])
    assert any("tfevents" in name for name in os.listdir(tmp_path))


def read_events(log_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(log_dir))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


class AddBleu(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_bleu"] = 10.0 + epoch


def test_tensorboard_curves_over_updates_and_a_resumed_run_continues_them(model, tmp_path):
    records = []
    validation = make_batches(1)[0]

    def run(number, epochs, initial_epoch=0):
        callbacks = [
            AddBleu(),
            TensorBoard(tmp_path, update_freq=2),
            Progress(every=2, stream=io.StringIO(), log=records.append),
        ]
        fit(model, make_batches(number), callbacks, epochs, initial_epoch, validation)

    run(10, epochs=2)
    # An interrupted session leaves points after the checkpoint. New points replace them.
    model.optimizer.iterations.assign(5)
    del records[4:]  # the intervals 2, 4, 5 and the validation's record stay
    run(10, epochs=3, initial_epoch=1)
    curves = read_events(tmp_path)
    rows = intervals(records)
    assert [r["update"] for r in rows] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    names = (
        "loss", "nats_per_token", "perplexity", "token_accuracy", "learning_rate",
        "gradient_norm", "skipped_updates",
    )  # fmt: skip
    for name in names:
        want = [(r["update"], pytest.approx(r[name], rel=1e-6)) for r in rows]
        assert curves[f"train/{name}"] == want, name
    assert all(value > 0 for _, value in curves["train/target_tokens_per_second"])
    assert curves["validation/bleu"] == [(5, 10), (10, 11), (15, 12)]
    nats_per_token = expected(model, [validation])[1]
    for tag, value in (
        ("nats_per_token", nats_per_token),
        ("perplexity", math.exp(nats_per_token)),
    ):
        want = [(update, pytest.approx(value, rel=1e-5)) for update in (5, 10, 15)]
        assert curves[f"validation/{tag}"] == want
    assert isinstance(TensorBoard(tmp_path), keras.callbacks.TensorBoard)
    assert not any(path.is_dir() for path in tmp_path.iterdir())  # nothing from Keras itself


def break_batches(batches, which):
    """Makes the gradients of these batches NaN, by weights that are NaN."""
    return [
        (x, y, np.full(len(x), np.nan if i in which else 1.0)) for i, (x, y) in enumerate(batches)
    ]


def test_stop_on_non_finite(model):
    callback = StopOnNonFinite(patience=3, every=2)
    batches = make_batches(20)
    fit(model, break_batches(batches, {3, 4, 6, 7}), [callback])  # never three in a row
    with pytest.raises(FloatingPointError) as error:
        fit(model, break_batches(batches, range(7, 20)), [callback])
    text = str(error.value)
    assert "3 updates in a row" in text and "at update 30" in text  # seen at 2, 4, ..., 30
    assert "learning rate 0.031" in text and "gradient norm 29.5" in text
    for advice in ("lower learning rate", "warm-up", "clip_norm", "bfloat16"):
        assert advice in text
    assert "\n" not in text


def test_stop_on_non_finite_at_the_end_of_a_short_epoch(model):
    with pytest.raises(FloatingPointError, match="5 updates in a row"):
        fit(model, break_batches(make_batches(5), range(5)), [StopOnNonFinite(patience=4)])


def test_stop_on_non_finite_needs_a_counting_optimizer():
    with pytest.raises(ValueError, match="PaperAdam"):
        fit(make_model(keras.optimizers.SGD()), make_batches(2), [StopOnNonFinite()])


def test_skipped_updates_are_shown(model):
    stream = io.StringIO()
    batches = break_batches(make_batches(4), {1, 2})
    fit(model, batches, [Progress(every=2, stream=stream)])
    assert "skipped 1 " in stream.getvalue().splitlines()[2]
    assert "skipped 2 " in stream.getvalue().splitlines()[3]


def test_translation_score_reaches_later_callbacks_and_the_history(model, tmp_path):
    records, samples, saved = [], [], []
    callbacks = [
        TranslationScore(
            lambda sources: [s.upper() for s in sources],
            ["a", "b"],
            ["A", "C"],
            score=lambda h, r: 100 * np.mean([x == y for x, y in zip(h, r, strict=True)]),
            every=2,
            samples=lambda update, triples: samples.append((update, triples)),
        ),
        TensorBoard(tmp_path),
        Progress(stream=io.StringIO(), log=records.append),
        StopEarly(patience=9),
        Checkpoints(lambda update, logs: saved.append((update, dict(logs)))),
    ]
    history = fit(model, make_batches(12), callbacks, epochs=4)
    assert history.history["val_bleu"] == [50.0, 50.0]
    assert [r.get("val_bleu") for r in records if r["event"] == "validation"] == [
        None,
        50,
        None,
        50,
    ]
    assert all(r["val_bleu_seconds"] >= 0 for r in records if "val_bleu" in r)
    assert read_events(tmp_path)["validation/bleu"] == [(6, 50.0), (12, 50.0)]
    assert [(e["epoch"], e["update"]) for e in callbacks[3].state] == [(2, 6), (4, 12)]
    assert samples == [(u, [("a", "A", "A"), ("b", "C", "B")]) for u in (6, 12)]
    assert [update for update, _ in saved] == [3, 6, 9, 12]
    assert saved[1][1]["val_bleu"] == 50.0 and "loss" in saved[1][1]


def test_nothing_is_translated_until_the_loss_is_worth_it(capsys):
    translated = []
    score = TranslationScore(translated.extend, ["a"], ["A"], lambda *_: 1.0, below=2.5)
    score.set_model(SimpleNamespace(optimizer=None))
    for nats, worth in ((math.nan, False), (2.6, False), (2.5, True), (3.0, False)):
        logs = {"val_nats_per_token": nats}
        score.on_epoch_end(0, logs)
        assert ("val_bleu" in logs) == worth
    assert translated == ["a"]


class Slow(keras.callbacks.Callback):
    """A clock that advances by a second per update, and by a minute for the first, compiled one."""

    now = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self.now += 1 if self.now else 60


def test_the_first_updates_say_how_long_training_takes(model, monkeypatch):
    stream, slow = io.StringIO(), Slow()
    monkeypatch.setattr("keras_transformer.callbacks.progress.time.perf_counter", lambda: slow.now)
    fit(model, make_batches(40), [Progress(every=30, stream=stream), slow])
    first, second, third, *_ = stream.getvalue().splitlines()
    assert first == "update 0/40  compiling the first update"
    assert second == "update 1/40  the first update took 60.0 s with its compilation"
    # 29 updates are left and take a second each. Fails if: compilation counts for every update.
    assert third == "update 11/40  left 0:00:29"


def test_translation_score_wants_as_many_references_as_sources():
    with pytest.raises(ValueError, match="2 sources, 1 references"):
        TranslationScore(list, ["a", "b"], ["A"], score=max)


def run_epochs(stop, scores, first, last):
    """Imitates `fit` for `StopEarly`: two updates per epoch, then a score (None: no score)."""
    model = SimpleNamespace(optimizer=SimpleNamespace(), stop_training=False)
    stop.set_model(model)
    for epoch in range(first, last):
        model.optimizer.iterations = 2 * (epoch + 1)
        stop.on_epoch_end(epoch, {} if scores[epoch] is None else {"val_bleu": scores[epoch]})
        if model.stop_training:
            break
    return model.stop_training


# Fails if: the history of earlier scores is ignored.
@pytest.mark.parametrize("mode", ["max", "min"])
def test_stop_early_resumed_is_stop_early_never_stopped(mode, capsys):
    sign = 1 if mode == "max" else -1
    scores = [sign * s for s in (1, 3, 2, math.nan, 5, 5)] + [None] + [sign * s for s in (4, 4, 9)]
    never = StopEarly(mode=mode, patience=3)
    assert run_epochs(never, scores, 0, 10) and never.finished
    # The second 5, 4 and 4 are not better than the first 5. Epoch 7 has no score.
    assert [entry["epoch"] for entry in never.state] == [1, 2, 3, 4, 5, 6, 8, 9]
    assert never.best == {"epoch": 5, "update": 10, "score": sign * 5.0}
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "early at update 18" in printed and "update 10" in printed
    for cut in range(9):
        first = StopEarly(mode=mode, patience=3)
        assert not run_epochs(first, scores, 0, cut) and not first.finished
        history = json.loads(json.dumps(first.state))
        second = StopEarly(mode=mode, patience=3, history=history)
        assert run_epochs(second, scores, cut, 10)
        assert repr(second.state) == repr(never.state)  # repr: nan is not equal to itself
        assert second.best == never.best


def test_stop_early_with_nothing_but_nan_stops():
    stop = StopEarly(patience=2)
    assert run_epochs(stop, [math.nan] * 4, 0, 4)
    assert len(stop.state) == 2 and stop.best is None


def test_stop_early_ends_fit(model):
    stop = StopEarly("loss", "max", patience=2)  # weights never change, so the loss does not
    same = make_batches(1) * 10
    assert len(fit(model, same, [stop], epochs=5).epoch) == 3
    assert [entry["update"] for entry in stop.state] == [2, 4, 6]


def test_stop_early_says_when_the_score_never_came(model):
    with pytest.warns(UserWarning, match="val_blue"):
        fit(model, make_batches(2), [StopEarly("val_blue")])
    with pytest.raises(ValueError, match="'max'.*'min'.*'up'"):
        StopEarly(mode="up")


def test_checkpoints_count_the_data_not_the_applied_updates():
    saved = []
    optimizer = keras.optimizers.LossScaleOptimizer(CountingSGD(Ramp()))
    batches = break_batches(make_batches(6), {1})  # Keras' loss scaling swallows that update
    callback = Checkpoints(lambda update, logs: saved.append(update), first_update=100)
    model = make_model(optimizer)
    fit(model, batches, [callback], epochs=2)
    assert saved == [103, 106]
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 5
    fit(
        make_model(CountingSGD(Ramp(), gradient_accumulation_steps=3)),
        make_batches(12),
        [callback],
        epochs=2,
    )
    assert saved == [103, 106, 102, 104]
