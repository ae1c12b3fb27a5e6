"""Laws of the label-smoothed cross-entropy: its value, its gradient, and the labels it counts."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from random_pairs import random_pairs

from keras_transformer import data
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.metrics import NatsPerToken
from keras_transformer.ops.crossentropy import smoothed_token_nats, token_nats

B, T, V = 3, 5, 7


def reference(labels, logits, eps):
    """Returns nats [B, T] and their derivatives by the logits [B, T, V], in float64."""
    logits = logits.astype("float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    wanted = (1 - eps) * np.eye(logits.shape[-1])[labels] + eps / logits.shape[-1]
    return -(wanted * log_probs).sum(axis=-1), np.exp(log_probs) - wanted


def value_and_gradient(function, logits, jit=False):
    """Returns a scalar function of logits and its gradient, as NumPy float64."""
    value, (gradient,) = value_and_gradients(function, [logits], jit=jit)
    return value, gradient


def sample(seed, scale=1.0, padded=0):
    """Returns labels [B, T] ending in `padded` zeros, logits [B, T, V] and weights [B, T]."""
    random = np.random.default_rng(seed)
    labels = random.integers(1, V, (B, T)).astype("int32")
    labels[:, T - padded :] = 0
    logits = (scale * random.normal(size=(B, T, V))).astype("float32")
    return labels, logits, random.uniform(0.1, 2, (B, T)).astype("float32")


# Fails if: the gradient is not weighted; it lacks eps / V, or eps at the label; the label is taken
# from another row.
@given(
    seed=st.integers(0, 2**31),
    eps=st.sampled_from([0.0, 0.1]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
@settings(max_examples=12)
def test_value_and_gradient_are_the_formulas(seed, eps, scale):
    labels, logits, weights = sample(seed, scale)
    loss = SmoothedCrossentropy(label_smoothing=eps)
    value, gradient = value_and_gradient(lambda x: loss(labels, x, weights), logits)
    nats, slopes = reference(labels, logits, eps)
    np.testing.assert_allclose(value, (nats * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes * weights[..., None], atol=2e-6)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_the_same_when_compiled(eps):
    labels, logits, weights = sample(5)
    loss = SmoothedCrossentropy(label_smoothing=eps)
    value, gradient = value_and_gradient(lambda x: loss(labels, x, weights), logits, jit=True)
    nats, slopes = reference(labels, logits, eps)
    np.testing.assert_allclose(value, (nats * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes * weights[..., None], atol=2e-6)


# Fails if: the slopes are written in place within the step, or into the softmax.
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_asked_for_again_are_the_same(compiled):
    """The gradient overwrites the slopes. No other tensor may use their memory."""
    import tensorflow as tf

    labels, logits, _ = sample(23)

    def gradients(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            first = tf.reduce_sum(smoothed_token_nats(labels, x, 0.1))
            second = tf.reduce_sum(smoothed_token_nats(labels, x, 0.1))
            both = first + second
        wanted = first, first, second, both
        return [tape.gradient(each, x) for each in wanted]

    run = tf.function(gradients, autograph=False) if compiled else gradients
    _, slopes = reference(labels, logits, 0.1)
    for gradient, times in zip(run(tf.constant(logits)), (1, 1, 1, 2), strict=True):
        np.testing.assert_allclose(gradient, times * slopes, atol=2e-6)


# Fails if: the loss is infinite when a probability underflows; the gradient at the label lacks the
# smoothing; the highest logit is not subtracted before the exponentials.
@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_extreme_logits_are_exact(dtype, eps):
    random = np.random.default_rng(3)
    extreme = random.choice([-1e4, -1.0, 0.0, 1.0, 1e4], (B, T, V))
    logits = ops.cast(extreme, dtype)
    rounded = ops.convert_to_numpy(ops.cast(logits, "float32"))
    labels = random.integers(1, V, (B, T)).astype("int32")
    loss = SmoothedCrossentropy(label_smoothing=eps)
    weights = np.full((B, T), 0.5, "float32")
    value, gradient = value_and_gradient(lambda x: loss(labels, x, weights), logits)
    nats, slopes = reference(labels, rounded, eps)
    assert nats.max() > 9e3
    np.testing.assert_allclose(value, 0.5 * nats.sum(), rtol=1e-5)
    step = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 5e-3}[dtype]
    np.testing.assert_allclose(gradient, 0.5 * slopes, atol=step)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_equals_keras_on_one_hot_labels(eps):
    labels, logits, weights = sample(11)
    theirs = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=eps, reduction="sum"
    )
    expected, slopes = value_and_gradient(
        lambda x: theirs(ops.one_hot(labels, V), x, weights), logits
    )
    ours = SmoothedCrossentropy(label_smoothing=eps)
    value, gradient = value_and_gradient(lambda x: ours(labels, x, weights), logits)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes, atol=1e-6)


@pytest.mark.parametrize("weighted", ["by a mask", "everywhere", "not at all"])
def test_padding_counts_nowhere(weighted):
    labels, logits, weights = sample(7, padded=2)
    if weighted == "by a mask":
        weights = weights * (labels != 0)
    elif weighted == "not at all":
        weights = None
    loss = SmoothedCrossentropy(0.1)
    value, gradient = value_and_gradient(lambda x: loss(labels, x, weights), logits)
    assert not gradient[labels == 0].any()
    assert gradient[labels != 0].all()

    changed = np.where((labels == 0)[..., None], 1000 * logits, logits)
    other, same = value_and_gradient(lambda x: loss(labels, x, weights), changed)
    assert other == value
    np.testing.assert_array_equal(same, gradient)


def test_ignore_class_is_any_label():
    labels, logits, _ = sample(7)
    labels[:, 0] = 4
    nats, _ = reference(labels, logits, 0.1)
    value = SmoothedCrossentropy(0.1, ignore_class=4)(labels, logits)
    np.testing.assert_allclose(float(value), nats[labels != 4].mean(), rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_class", [-100, 255, None])
def test_a_label_outside_the_vocabulary_is_padding(ignore_class, weighted, jit):
    labels, logits, weights = sample(7)
    labels[:, 0] = 0  # 0 is an ordinary class here
    nats, slopes = reference(labels, logits, 0.1)
    real = np.ones_like(labels, bool)
    if ignore_class is not None:
        real[0, 2:], real[2, 1] = False, False
        labels[~real] = ignore_class
    expected = real * (weights if weighted else 1 / real.sum())
    loss = SmoothedCrossentropy(0.1, ignore_class=ignore_class)
    given = [weights] if weighted else []
    value, gradient = value_and_gradient(lambda x: loss(labels, x, *given), logits, jit=jit)
    np.testing.assert_allclose(value, (nats * expected).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes * expected[..., None], atol=2e-6)


# Fails if: such a label is another class, or its gradient goes to another position.
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("label", [-100, -1])
def test_a_negative_label_that_counts_makes_loss_and_gradient_nan(label, jit):
    labels, logits, weights = sample(7)
    labels[1, 2] = label
    loss = SmoothedCrossentropy(0.1)
    value, gradient = value_and_gradient(lambda x: loss(labels, x, weights), logits, jit=jit)
    assert np.isnan(value) and np.isnan(gradient[1, 2]).all()
    assert np.isfinite(np.delete(gradient.reshape(-1, V), T + 2, axis=0)).all()
    metric = NatsPerToken()
    metric.update_state(labels, logits, weights)
    assert np.isnan(float(metric.result()))
    weights[1, 2] = 0  # it does not count
    value, gradient = value_and_gradient(lambda x: loss(labels, x, weights), logits, jit=jit)
    assert np.isfinite(value) and np.isfinite(gradient).all() and not gradient[1, 2].any()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_labels_of_any_dtype_and_with_a_last_axis_of_one(dtype):
    labels, logits, weights = sample(7, padded=2)
    loss = SmoothedCrossentropy(0.1)
    for weighed in ([], [weights]):
        expected = float(loss(labels, logits, *weighed))
        column = [each[..., None] for each in weighed]
        assert float(loss(labels[..., None].astype(dtype), logits, *column)) == expected


def test_a_weight_for_each_row_is_that_of_its_tokens():
    labels, logits, weights = sample(7, padded=2)
    loss, rows = SmoothedCrossentropy(0.1), weights[:, 0]
    whole = np.repeat(rows[:, None], T, axis=1)
    assert float(loss(labels, logits, rows)) == float(loss(labels, logits, whole))


def test_one_hot_labels_are_explained():
    labels, logits, _ = sample(7)
    for wrong in (np.eye(V)[labels], labels[:, 0]):
        with pytest.raises(ValueError, match=r"labels of shape \(3, 5\).*argmax"):
            SmoothedCrossentropy(0.1)(wrong, logits)


@pytest.mark.parametrize("ignore_class", [0, None])
def test_keras_mask_decides_only_where_no_label_is_padding(ignore_class):
    """A target that begins with the padding id is masked there, but its first label counts."""
    labels, logits, _ = sample(7)
    logits = ops.convert_to_tensor(logits)
    mask = np.ones((B, T), bool)
    mask[:, 0] = False
    logits._keras_mask = ops.convert_to_tensor(mask)
    nats, _ = reference(labels, ops.convert_to_numpy(logits), 0.1)
    value = SmoothedCrossentropy(0.1, ignore_class=ignore_class)(labels, logits)
    expected = nats.mean() if ignore_class == 0 else nats[mask].mean()
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)


@given(seed=st.integers(0, 2**31), padded=st.integers(0, T - 1))
@settings(max_examples=10)
def test_without_weights_the_mean_over_real_tokens(seed, padded):
    labels, logits, _ = sample(seed, padded=padded)
    nats, _ = reference(labels, logits, 0.1)
    value = SmoothedCrossentropy(0.1)(labels, logits)
    np.testing.assert_allclose(float(value), nats[labels != 0].mean(), rtol=1e-5)


def test_a_batch_of_padding_alone_is_zero():
    labels, logits, _ = sample(7, padded=T)
    assert float(SmoothedCrossentropy(0.1)(labels, logits)) == 0


@given(accumulate=st.integers(1, 4), update=st.integers(0, 9))
@settings(max_examples=10)
def test_micro_batches_sum_to_the_mean_over_the_update(accumulate, update):
    """Keras averages the gradients of k micro-batches, hence the factor 1 / k."""
    plan = data.BatchPlan(random_pairs(41, V), 31, shapes="static", accumulate=accumulate)
    loss, all_nats, total = SmoothedCrossentropy(0.1), [], 0.0
    for _, labels, weights in plan.batches(update):
        logits = np.random.default_rng(labels.shape).normal(size=(*labels.shape, V))
        total += float(loss(labels, logits.astype("float32"), weights)) / accumulate
        all_nats.append(reference(labels, logits, 0.1)[0][labels != 0])
    np.testing.assert_allclose(total, np.concatenate(all_nats).mean(), rtol=1e-5)


def test_plain_nats_are_those_without_smoothing():
    labels, logits, _ = sample(13, scale=10)
    expected, _ = reference(labels, logits, 0.0)
    for nats in (token_nats(labels, logits), smoothed_token_nats(labels, logits, 0.0)):
        np.testing.assert_allclose(ops.convert_to_numpy(nats), expected, rtol=1e-5, atol=1e-6)


def test_uniform_logits_cost_log_v():
    labels, _, _ = sample(19, padded=2)
    for eps in (0.0, 0.1):
        value = SmoothedCrossentropy(eps)(labels, np.zeros((B, T, V), "float32"))
        np.testing.assert_allclose(float(value), np.log(V), rtol=1e-6)


def test_config_round_trip():
    loss = SmoothedCrossentropy(label_smoothing=0.3, ignore_class=4, name="its_name")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(copy) is SmoothedCrossentropy
    assert copy.get_config() == loss.get_config()
    labels, logits, weights = sample(17)
    assert float(copy(labels, logits, weights)) == float(loss(labels, logits, weights))


@pytest.mark.parametrize("eps", [-0.1, 1.0, 1.5])
def test_smoothing_is_a_share(eps):
    with pytest.raises(ValueError, match=f"label_smoothing.*{eps}"):
        SmoothedCrossentropy(label_smoothing=eps)
