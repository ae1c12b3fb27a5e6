"""Laws of layer normalisation: Keras' own values and gradients, in every dtype and compiled."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops

from keras_transformer.layers.normalization import LayerNorm

RNG = np.random.default_rng(1)
D = 13


def layer(kind, dtype=None, epsilon=1e-6):
    made = kind(epsilon=epsilon, dtype=dtype)
    made.build((None, D))
    rng = np.random.default_rng(2)
    made.set_weights([rng.normal(1, 0.5, D), rng.normal(size=D)])
    return made


# Fails if: the gradient lacks a term; epsilon differs; a mean leaves out a column.
@pytest.mark.parametrize("shape", [(D,), (7, D), (3, 5, D)])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_values_and_gradients_are_the_formulas(shape, jit, epsilon):
    shape = (2, *shape)
    x, slopes = RNG.normal(3, 2, shape), RNG.normal(size=shape).astype("float32")
    ours = layer(LayerNorm, epsilon=epsilon)
    gamma, beta = (ops.convert_to_numpy(w).astype("float64") for w in ours.weights)
    upstream = ops.convert_to_tensor(slopes)
    value, gradients = value_and_gradients(
        lambda x: ops.sum(ours(x) * upstream), [x.astype("float32")], ours.weights, jit=jit
    )
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    h = (x - x.mean(-1, keepdims=True)) * inverse
    g = slopes * gamma
    dx = (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True)) * inverse
    rows = tuple(range(len(shape) - 1))
    expected = dx, (slopes * h).sum(rows), slopes.sum(rows)
    np.testing.assert_allclose(value, ((h * gamma + beta) * slopes).sum(), rtol=1e-5, atol=1e-4)
    for found, right in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
def test_equals_keras_in_every_dtype(dtype):
    x = RNG.normal(3, 2, (2, 7, D)).astype("float32")
    theirs = layer(keras.layers.LayerNormalization, dtype)
    ours = layer(LayerNorm, dtype)
    x = ops.cast(x, ours.compute_dtype)
    found, expected = ours(x), theirs(x)
    assert found.dtype == expected.dtype
    step = {"float64": 1e-12, "mixed_bfloat16": 2**-7}.get(dtype, 2**-9)
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(ops.cast(each, "float64")) for each in (found, expected)),
        rtol=step,
        atol=step,
    )


# Fails if: mean and variance are computed in half precision.
def test_half_precision_keeps_its_statistics_in_float32():
    # The squares of these are beyond float16.
    x = ops.cast(RNG.normal(2000, 700, (3, D)), "float16")
    y = ops.convert_to_numpy(LayerNorm(dtype="mixed_float16")(x)).astype("float64")
    np.testing.assert_allclose(y.mean(-1), 0, atol=2e-3)
    np.testing.assert_allclose(y.std(-1), 1, rtol=2e-3)


def test_equal_inputs_are_finite():
    x = np.full((2, D), 5.0, "float32")
    ours = LayerNorm()
    value, gradients = value_and_gradients(lambda x: ops.sum(ours(x) ** 2), [x])
    assert value == 0 and np.isfinite(gradients[0]).all()


def test_config_round_trip():
    copy = LayerNorm.from_config(LayerNorm(epsilon=0.5, name="n").get_config())
    assert copy.epsilon == 0.5 and copy.name == "n"


# Fails if: training with XLA normalizes by matrix products.
@pytest.mark.tensorflow_only
def test_compiled_by_xla_a_deeper_stack_costs_its_layers_and_not_their_product():
    import tensorflow as tf

    def instructions(depth):
        """Counts the instructions of the compiled gradient of `depth` normalised layers."""
        norms = [layer(LayerNorm) for _ in range(depth)]
        kernel = tf.random.stateless_normal((D, D), [1, depth])

        @tf.function(jit_compile=True)
        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = x
                for norm in norms:
                    y = norm(y + tf.nn.relu(y @ kernel) @ kernel, training=True)
                loss = tf.reduce_sum(y**3)
            return tape.gradient(loss, [x, *(w.value for norm in norms for w in norm.weights)])

        x = tf.ones((7, D))
        return gradient.experimental_get_compiler_ir(x)(stage="optimized_hlo").count(" = ")

    two, four, six = (instructions(depth) for depth in (2, 4, 6))
    assert six - four < 1.3 * (four - two)
