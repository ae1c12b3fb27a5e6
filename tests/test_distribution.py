"""Tests that several replicas train as one: the same curve, norms and weights, nearly exactly.

Devices must be set up before anything is computed. So a test runs this file as a script in a
process of its own. The script trains on one device and on several virtual ones, and compares.
"""

import os
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
from random_pairs import random_pairs

import keras_transformer as kt
from keras_transformer import cli, data, models, testing
from keras_transformer.datasets import korean_english as corpus
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.metrics import NatsPerToken
from keras_transformer.ops.crossentropy import token_nats
from keras_transformer.ops.devices import share_batches
from keras_transformer.optimizers import PaperAdam

V, UPDATES = 23, 4


class Curve(keras.callbacks.Callback):
    """Records (loss, gradient norm, skipped updates) after every update.

    It records no metrics: during an epoch Keras shows their mean over replicas, which is not exact.
    """

    def __init__(self):
        super().__init__()
        self.points = []

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        counted = [optimizer.gradient_norm, optimizer.skipped_updates]
        counted = [float(keras.ops.convert_to_numpy(variable)) for variable in counted]
        self.points.append([logs["loss"], *counted])


def train(devices, tied):
    """Fits a small model without dropout. Every gradient is clipped.

    With `tied` it has one vocabulary and batches of many shapes. The embedding's gradient lists
    rows, so it then has another length on every replica. Otherwise it has two vocabularies and
    batches of one shape.
    """
    keras.utils.set_random_seed(5)
    model = models.Transformer(
        V,
        num_layers=1,
        d_model=12,
        num_heads=2,
        d_ff=17,
        dropout=0.0,
        target_vocabulary_size=None if tied else V + 6,
    )
    # Epsilon is large, so that the length of the clipped gradient matters to Adam.
    optimizer = PaperAdam(12, 5, epsilon=1e-2, global_clipnorm=0.5, use_ema=True, ema_momentum=0.5)
    model.compile(
        optimizer,
        loss=SmoothedCrossentropy(0.1),
        weighted_metrics=[NatsPerToken()],
        jit_compile=keras.backend.backend() == "jax",
    )
    pairs = random_pairs(31, V, same_source=not tied)
    if tied:
        plan = data.BatchPlan(pairs, 29, shapes="dynamic", rows_multiple=devices)
        assert len({batch[1].shape for u in range(UPDATES) for batch in plan.batches(u)}) > 2
    else:
        # At most 13 rows, in a multiple of the devices. Zeros fill up the last batch.
        plan = data.BatchPlan(pairs, 13 * 7, shapes="static", rows_multiple=devices)
    curve = Curve()
    logs = model.fit(plan.dataset(), steps_per_epoch=UPDATES, verbose=0, callbacks=[curve]).history
    valid = model.evaluate(
        plan.evaluation(random_pairs(17, V, seed=1)), verbose=0, return_dict=True
    )
    nats = [each[name] for each in ({k: v[0] for k, v in logs.items()}, valid) for name in logs]
    weights = model.get_weights()  # the moving average, which `fit` sets at its end
    moments = optimizer._momentums + optimizer._velocities
    moments = [keras.ops.convert_to_numpy(variable) for variable in moments]
    return np.array(curve.points), nats, weights, moments


def without_weights(loss, kind=keras.Model):
    """Returns what `fit` and `evaluate` show for labels without weights, and the final weights.

    Every row has 3 labels fewer than the row before it, so replicas have unequal parts.
    """
    random = np.random.default_rng(3)
    ids, labels = random.integers(1, V, (2, 12, 19)).astype("int32")
    if isinstance(loss, SmoothedCrossentropy):
        labels[np.arange(19) >= 19 - 3 * (np.arange(12)[:, None] % 6)] = 0
    token_ids = keras.Input((19,), dtype="int32")
    model = kind(token_ids, keras.layers.Dense(V)(keras.layers.Embedding(V, 5)(token_ids)))
    model.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.01), loss)
    shown = model.fit(ids, labels, batch_size=6, epochs=2, shuffle=False, verbose=0)
    valid = model.evaluate(ids, labels, batch_size=6, verbose=0)
    return [*shown.history["loss"], valid], model.get_weights()


class Exact(models.LossPerLabel, keras.Model):
    pass


def losses_without_weights():
    """Returns the results of Keras' own loss, as a check of the test, and of our losses."""
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    cases = (theirs, keras.Model), (SmoothedCrossentropy(0.1), keras.Model)
    return [without_weights(*case) for case in (*cases, (SmoothedCrossentropy(0.1), Exact))]


def compare_losses(one, many):
    for (shown, weights), (other_shown, other_weights) in zip(one, many, strict=True):
        np.testing.assert_allclose(other_shown, shown, rtol=1e-5)
        for a, b in zip(other_weights, weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def compare(one, many):
    curve, nats, weights, moments = one
    other_curve, other_nats, other_weights, other_moments = many
    np.testing.assert_allclose(other_curve, curve, rtol=1e-4)
    assert (curve[:, 1] > 0.5).all()  # every gradient is clipped
    assert len(set(curve[:, 0])) == UPDATES
    np.testing.assert_allclose(other_nats, nats, rtol=1e-4)
    for a, b in zip(other_weights + other_moments, weights + moments, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def certify_losses(strategy):
    ours, theirs = SmoothedCrossentropy(0.1), keras.losses.SparseCategoricalCrossentropy(True)
    testing.assert_replicas_add_up(ours, strategy)
    testing.assert_replicas_add_up(ours, strategy, weights=lambda y: (y != 0) / (y != 0).sum())
    for loss in (SmoothedCrossentropy(0.1, ignore_class=None), theirs):
        testing.assert_replicas_add_up(loss, strategy, pad_id=None)
    with pytest.raises(AssertionError, match="of 2 replicas do not add up"):
        testing.assert_replicas_add_up(
            lambda y, x: keras.ops.sum(token_nats(y, x)) / np.prod(y.shape), strategy
        )


def command_trains(folder, devices):
    """The command on one device, on all, and resumed on another number: the same curve."""

    def run(name, updates, devices):
        command = f"train --train-tsv {folder}/pairs.tsv --hold-out 20 --run-dir {folder}/{name}"
        command += f" --updates {updates} --validate-every 2 --log-every 1 --devices {devices}"
        command += " --num-layers 1 --d-model 16 --num-heads 2 --d-ff 16 --dropout 0"
        command += " --attention-dropout 0 --tokens-per-batch 300 --bleu-every 1 --average 0"
        command += " --warmup-steps 5"
        assert cli.main(command.split()) == 0
        keras.distribution.set_distribution(None)
        log = kt.RunDirectory.open(f"{folder}/{name}").read_log()
        return [
            (record["event"], record["update"], record[key])
            for record in log
            for key in ("nats_per_token", "gradient_norm", "val_bleu", "val_nats_per_token")
            if key in record
        ]

    pairs = corpus.generate(1, 200, 10)["train"]
    with open(f"{folder}/pairs.tsv", "w", encoding="utf-8") as file:
        file.writelines(f"{source}\t{target}\n" for source, target in pairs)
    one, many = run("one", 4, 1), run("many", 4, "all")
    run("changed", 2, devices)
    changed = run("changed", 4, 1)
    assert len(one) > 10
    for other in (many, changed):
        assert [each[:2] for each in other] == [each[:2] for each in one]
        values = [[each[2] for each in curve] for curve in (other, one)]
        np.testing.assert_allclose(*values, rtol=1e-4)
    with pytest.raises(ValueError, match=f"{devices + 1} devices were asked for"):
        share_batches(devices + 1)


def make_cpus(devices):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    virtual = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(cpu, virtual)
    tf.config.set_visible_devices(cpu)


def on_tensorflow(devices):
    import tensorflow as tf

    make_cpus(devices)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
    assert strategy.num_replicas_in_sync == devices
    one = losses_without_weights()
    with strategy.scope():
        many = losses_without_weights()
    compare_losses(one, many)
    certify_losses(strategy)
    for tied in (False, True):
        one = train(devices, tied)
        with strategy.scope():
            many = train(devices, tied)
        compare(one, many)


def on_jax(devices):
    import jax

    assert len(jax.devices()) == devices
    one, losses = [train(devices, tied) for tied in (False, True)], losses_without_weights()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=jax.devices()))
    for tied in (False, True):
        compare(one[tied], train(devices, tied))
    compare_losses(losses, losses_without_weights())


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras trains on one device with torch"
)
@pytest.mark.parametrize("what", ["model", "command"])
def test_several_devices_train_as_one(what):
    devices = {"tensorflow": 2, "jax": 3}[keras.backend.backend()]
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, __file__, str(devices), what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    backend, devices = keras.backend.backend(), int(sys.argv[1])
    if sys.argv[2] == "command":
        if backend == "tensorflow":
            make_cpus(devices)
        with tempfile.TemporaryDirectory() as folder:
            command_trains(folder, devices)
    else:
        {"tensorflow": on_tensorflow, "jax": on_jax}[backend](devices)
