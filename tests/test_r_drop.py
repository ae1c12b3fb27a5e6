"""R-Drop (Liang et al., 2021) on every model: the divergence, its gradient, and what trains."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from test_models import MODELS, array, every_model, make

from keras_transformer import losses
from keras_transformer.ops.divergence import plain_two_sided_divergence, two_sided_divergence

ALPHA = 3.0


def example(name, zero=0):
    """Returns inputs, labels [B, ...] and weights, of which the first `zero` rows are 0."""
    inputs = MODELS[name][3]
    logits = array(make(name)(keras.tree.map_structure(ops.convert_to_tensor, inputs)))
    random = np.random.default_rng(5)
    labels = random.integers(0, logits.shape[-1], logits.shape[:-1]).astype("int32")
    weights = random.uniform(0.1, 1, labels.shape).astype("float32")
    weights[:zero] = 0
    return keras.tree.map_structure(np.asarray, inputs), labels, weights


def compiled(name, alpha, dropout, loss=None):
    model = make(name, dropout=dropout)
    model.enable_r_drop(alpha)
    model.compile(keras.optimizers.SGD(0.02), loss or losses.SmoothedCrossentropy(0.1, -1))
    return model


# Fails if: a gradient has the other's sign or lacks the mean; the logits' scale is left in.
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 20.0]))
@settings(max_examples=12)
def test_the_divergence_and_its_gradient_are_those_of_keras(seed, scale):
    random = np.random.default_rng(seed)
    logits = [scale * random.normal(size=(2, 3, 7)) for _ in range(2)]
    *logits, weights = (
        ops.convert_to_tensor(each, "float32") for each in (*logits, random.uniform(size=(2, 3)))
    )
    p, q = (ops.softmax(each, axis=-1) for each in logits)
    expected = keras.losses.kl_divergence(p, q) + keras.losses.kl_divergence(q, p)
    if scale < 20:  # Keras takes probabilities below 1e-7 as that
        np.testing.assert_allclose(array(two_sided_divergence(*logits)), expected, rtol=1e-4)
    found, plain = (
        value_and_gradients(lambda a, b, f=f: ops.sum(f(a, b) * weights), logits)
        for f in (two_sided_divergence, plain_two_sided_divergence)
    )
    np.testing.assert_allclose(found[0], plain[0], rtol=1e-5)
    for mine, derived in zip(found[1], plain[1], strict=True):
        np.testing.assert_allclose(mine, derived, atol=1e-5 * scale)


# Fails if: the second pass is the first again; one loss counts twice; alpha is not divided by 4; a
# label without weight counts.
@every_model
def test_the_loss_is_the_mean_of_two_passes_and_their_divergence(name):
    inputs, labels, weights = example(name, zero=1)
    model = compiled(name, ALPHA, dropout=0.5)
    x = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    seeds = model.non_trainable_variables
    before = [ops.copy(variable.value) for variable in seeds]
    keras.utils.set_random_seed(1)  # PyTorch draws from a state of its own
    first = model(x, training=True)
    found = model.compute_loss(x, labels, first, weights, training=True)
    for variable, value in zip(seeds, before, strict=True):
        variable.assign(value)
    keras.utils.set_random_seed(1)
    passes = [model(x, training=True) for _ in range(2)]
    each = [float(model.loss(labels, logits, weights)) for logits in passes]
    p, q = (ops.softmax(logits, axis=-1) for logits in passes)
    apart = keras.losses.kl_divergence(p, q) + keras.losses.kl_divergence(q, p)
    apart = float(ops.sum(apart * ops.convert_to_tensor(weights)))
    assert apart > 1e-3
    np.testing.assert_allclose(float(found), sum(each) / 2 + ALPHA / 4 * apart, rtol=1e-4)


# Fails if: training without dropout differs from one pass; validation has a second pass.
@pytest.mark.parametrize("name", ["causal", "vision"])
def test_without_dropout_it_trains_as_one_pass_does(name):
    inputs, labels, weights = example(name)
    found = []
    for alpha in (0.0, ALPHA):
        model = compiled(name, alpha, dropout=0.0)
        first = model.train_on_batch(inputs, labels, weights)
        after = model.test_on_batch(inputs, labels, weights)
        found.append((first, after, *map(array, model.trainable_variables)))
    assert found[0][0] > found[0][1]
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


# Fails if: the divergence has no gradient; alpha has no effect in a compiled step; validation has a
# second pass.
def test_training_brings_two_passes_together():
    inputs, labels, weights = example("causal")
    found = []
    for alpha in (0.0, 20.0):
        model = compiled("causal", alpha, dropout=0.5)
        data = {"x": inputs, "y": labels, "sample_weight": weights, "batch_size": 8, "verbose": 0}
        model.fit(epochs=30, **data)
        x = ops.convert_to_tensor(inputs)
        pairs = [[model(x, training=True) for _ in range(2)] for _ in range(4)]
        found.append(np.mean([array(two_sided_divergence(*pair)).mean() for pair in pairs]))
    assert found[1] < 0.5 * found[0]
    mean = float(model.loss(labels, model(x), weights)) / weights.sum()
    np.testing.assert_allclose(model.evaluate(**data), mean, rtol=1e-4)


def test_what_it_cannot_train_is_refused():
    model = make("causal")
    for alpha in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="at least 0, got"):
            model.enable_r_drop(alpha)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = compiled("causal", ALPHA, 0.5, loss)
    inputs, labels, _ = example("causal")
    with pytest.raises(ValueError, match="R-Drop needs the loss kt.losses.SmoothedCrossentropy"):
        model.fit(inputs, labels, verbose=0)
    model.enable_r_drop(0)
    model.fit(inputs, labels, verbose=0)
