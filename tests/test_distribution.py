"""Several replicas train as one: the same curve, norms and weights, to float tolerance.

Devices are set up before anything is computed, so each test runs this file as a script in a process
of its own, which trains twice, on one device and on several virtual ones, and compares.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from random_pairs import random_pairs

from keras_transformer import data, models
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.metrics import NatsPerToken
from keras_transformer.optimizers import PaperAdam

V, UPDATES = 23, 4


class Curve(keras.callbacks.Callback):
    """(loss, gradient norm, skipped updates) after each update.

    Of metrics Keras shows the mean over replicas here, and the exact value only after the epoch.
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
    """Fits a small model without dropout; every gradient is clipped.

    Two vocabularies and batches of one shape, or a tied one and batches of many: a gradient of the
    embedding that lists rows then has another length on each replica.
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
        # Of 13 rows, less what the devices cannot share; zeros fill up the last one.
        plan = data.BatchPlan(pairs, 13 * 7, shapes="static", rows_multiple=devices)
    curve = Curve()
    logs = model.fit(plan.dataset(), steps_per_epoch=UPDATES, verbose=0, callbacks=[curve]).history
    valid = model.evaluate(
        plan.evaluation(random_pairs(17, V, seed=1)), verbose=0, return_dict=True
    )
    weights = model.get_weights()  # the moving average: fit ends with it
    moments = optimizer._momentums + optimizer._velocities
    moments = [keras.ops.convert_to_numpy(variable) for variable in moments]
    nats = [logs["nats_per_token"][0], valid["nats_per_token"]]
    return np.array(curve.points), nats, weights, moments


def compare(one, many):
    curve, nats, weights, moments = one
    other_curve, other_nats, other_weights, other_moments = many
    np.testing.assert_allclose(other_curve, curve, rtol=1e-4)
    assert (curve[:, 1] > 0.5).all()  # clipped
    assert len(set(curve[:, 0])) == UPDATES
    np.testing.assert_allclose(other_nats, nats, rtol=1e-4)
    for a, b in zip(other_weights + other_moments, weights + moments, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def on_tensorflow(devices):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    virtual = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(cpu, virtual)
    tf.config.set_visible_devices(cpu)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
    assert strategy.num_replicas_in_sync == devices
    for tied in (False, True):
        one = train(devices, tied)
        with strategy.scope():
            many = train(devices, tied)
        compare(one, many)


def on_jax(devices):
    import jax

    assert len(jax.devices()) == devices
    one = [train(devices, tied) for tied in (False, True)]
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=jax.devices()))
    for tied in (False, True):
        compare(one[tied], train(devices, tied))


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras trains on one device with torch"
)
def test_several_devices_train_as_one():
    devices = {"tensorflow": 2, "jax": 3}[keras.backend.backend()]
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, __file__, str(devices)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    {"tensorflow": on_tensorflow, "jax": on_jax}[keras.backend.backend()](int(sys.argv[1]))
