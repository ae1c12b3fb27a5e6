"""Laws of dropout, on every backend."""

import keras
import numpy as np
import pytest

from keras_transformer.layers.dropout import Dropout


def dropped(layer, shape, dtype="float32"):
    ones = keras.ops.ones(shape, dtype)
    return keras.ops.convert_to_numpy(keras.ops.cast(layer(ones, training=True), "float32"))


# Fails if: kept elements are not scaled; the threshold is shifted; all layers share one rate.
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.75])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_share_of_the_rate_goes_and_the_rest_keeps_the_sum(rate, dtype):
    shape = (7, 11, 1301)  # an odd number, so only half of the last random number is used
    output = dropped(Dropout(rate, seed=1, dtype=dtype), shape, dtype)
    deviation = np.sqrt(rate * (1 - rate) / output.size)
    assert abs((output == 0).mean() - rate) < 4 * deviation
    kept = output[output != 0]
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=4e-5 if dtype == "float32" else 4e-3)
    # All positions are dropped equally often, and independently of their neighbours.
    zeros = output.reshape(-1) == 0
    assert abs((zeros[1:] & zeros[:-1]).mean() - rate**2) < 5 * deviation
    assert abs(zeros[::2].mean() - rate) < 6 * deviation


# Fails if: all calls use the same seed.
def test_every_call_drops_others_and_a_seed_repeats_itself():
    first, second = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
    calls = [dropped(first, (5, 13)) for _ in range(2)]
    assert (calls[0] != calls[1]).any()
    for call in calls:
        np.testing.assert_array_equal(dropped(second, (5, 13)), call)


def test_nothing_is_dropped_outside_training_or_at_rate_0():
    x = np.arange(15.0, dtype="float32").reshape(3, 5)
    for layer, training in ((Dropout(0.5), False), (Dropout(0.5), None), (Dropout(0.0), True)):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x, training=training)), x)
    assert (dropped(Dropout(1.0), (3, 5)) == 0).all()


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_is_the_mask(jit_compile):
    import tensorflow as tf

    layer = Dropout(0.25, seed=5)

    @tf.function(jit_compile=jit_compile)
    def output_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x)

    x = tf.random.normal((3, 7, 5))
    y, gradient = output_and_gradient(x)
    np.testing.assert_allclose(y, x * gradient, rtol=1e-6)
    assert set(np.unique(gradient)) == {0.0, np.float32(4 / 3)}
    assert y.shape == x.shape


def test_the_config_is_keras_own():
    layer = Dropout(0.3, seed=7, name="drop")
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(copy) is Dropout and (copy.rate, copy.seed, copy.name) == (0.3, 7, "drop")
    with pytest.raises(ValueError, match="rate"):
        Dropout(1.5)
