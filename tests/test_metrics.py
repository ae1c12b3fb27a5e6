"""Laws of the metrics: exact means over the target tokens of an epoch, for any batches."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_transformer import data, models
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.metrics import NatsPerToken, Perplexity, TokenAccuracy

V = 7
METRICS = [NatsPerToken, Perplexity, TokenAccuracy]


def result(metric):
    return float(ops.convert_to_numpy(metric.result()))


def log_probs(logits):
    logits = logits.astype("float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def reference(batches):
    """Returns (nats, perplexity, accuracy) of all real tokens of these batches, in float64."""
    nats, right = [], []
    for labels, logits in batches:
        real = labels != 0
        chosen = np.take_along_axis(log_probs(logits), labels[..., None], axis=-1)[..., 0]
        nats.append(-chosen[real])
        right.append((logits.argmax(axis=-1) == labels)[real])
    nats, right = np.concatenate(nats), np.concatenate(right)
    return nats.mean(), np.exp(nats.mean()), right.mean()


def ragged(seed, shapes):
    """Returns batches of these shapes. Rows end in padding, and some are only padding."""
    random = np.random.default_rng(seed)
    batches = []
    for rows, width in shapes:
        labels = random.integers(1, V, (rows, width)).astype("int32")
        labels[np.arange(width) >= random.integers(0, width + 1, (rows, 1))] = 0
        labels[0, 0] = 1
        batches.append((labels, random.normal(size=(rows, width, V)).astype("float32")))
    return batches


@given(
    seed=st.integers(0, 2**31),
    shapes=st.lists(st.sampled_from([(1, 1), (2, 5), (3, 2)]), min_size=1, max_size=4),
    scales=st.lists(st.sampled_from([1e-4, 1.0, 17.0]), min_size=4, max_size=4),
)
@settings(max_examples=8)
def test_exact_over_ragged_batches_whatever_the_weights_scale(seed, shapes, scales):
    batches = ragged(seed, shapes)
    metrics = [metric() for metric in METRICS]
    for (labels, logits), scale in zip(batches, scales, strict=False):
        for metric in metrics:
            metric.update_state(labels, logits, sample_weight=(labels != 0) * np.float32(scale))
    assert [result(m) for m in metrics] == pytest.approx(reference(batches), rel=1e-5)

    for metric in metrics:  # the next epoch does not depend on this one
        metric.reset_state()
        metric.update_state(*batches[0])
    assert [result(m) for m in metrics] == pytest.approx(reference(batches[:1]), rel=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_padding_changes_nothing(metric):
    [(labels, logits)] = ragged(3, [(3, 5)])
    results = []
    for padding in (0, 1000):
        one = metric()
        one.update_state(labels, np.where((labels == 0)[..., None], padding, logits))
        results.append(result(one))
    assert results[0] == results[1]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rank", [1, 2])
def test_a_row_of_weight_zero_is_left_out(metric, rank):
    [(labels, logits)] = ragged(5, [(3, 5)])
    labels[:, 0] = 2
    logits[1] = 9 * np.eye(V)[labels[1]]  # unlike the other rows, it predicts all labels
    weights = np.array([0.5, 0.0, 2.0], "float32")
    some, rest = metric(), metric()
    some.update_state(labels, logits, weights if rank == 1 else weights[:, None])
    rest.update_state(labels[[0, 2]], logits[[0, 2]])
    whole = metric()
    whole.update_state(labels, logits)
    assert result(some) == pytest.approx(result(rest), rel=1e-6)
    assert result(some) != pytest.approx(result(whole), rel=1e-3)


def test_tokens_of_weight_zero_are_left_out():
    labels = np.array([[3, 3]], "int32")
    logits = np.array([[[0, 0, 0, 5], [5, 0, 0, 0]]], "float32")
    accuracy = TokenAccuracy()
    accuracy.update_state(labels, logits, np.array([[0.1, 0.0]], "float32"))
    assert result(accuracy) == 1


def test_another_label_may_be_padding():
    labels, logits = np.array([[0, 4]], "int32"), np.zeros((1, 2, V), "float32")
    logits[0, 0, 0] = 9
    accuracy = TokenAccuracy(ignore_class=4)
    accuracy.update_state(labels, logits)
    assert result(accuracy) == 1


@pytest.mark.parametrize("ignore_class", [-100, 255, None])
@pytest.mark.parametrize("metric", METRICS)
def test_padding_may_lie_outside_the_vocabulary(metric, ignore_class):
    [(labels, logits)] = ragged(3, [(3, 5)])
    one, other = metric(ignore_class=ignore_class), metric(ignore_class=None)
    if ignore_class is None:
        np.copyto(labels, 2, where=labels == 0)
        expected = reference([(labels, logits)])
        labels = np.where(labels == 2, 0, labels)  # 0 is an ordinary class here
        logits = logits[..., [2, 1, 0, *range(3, V)]]
    else:
        expected = reference([(labels, logits)])
        labels = np.where(labels == 0, ignore_class, labels)
    one.update_state(labels, logits)
    assert result(one) == pytest.approx(expected[METRICS.index(metric)], rel=1e-5)

    other.update_state(np.abs(labels[..., None]) % V, logits)  # a last axis of 1 is dropped
    assert result(other) > 0
    with pytest.raises(ValueError, match="argmax"):
        one.update_state(np.eye(V)[labels % V], logits)


def test_without_a_token_nothing_is_divided_by_zero():
    for metric, empty in zip(METRICS, (0, 1, 0), strict=True):
        one = metric()
        one.update_state(np.zeros((2, 3), "int32"), np.ones((2, 3, V), "float32"))
        assert result(one) == empty


@pytest.mark.parametrize("metric", METRICS)
def test_config_round_trip(metric):
    one = metric(name="its_name", ignore_class=3)
    copy = keras.metrics.deserialize(keras.metrics.serialize(one))
    assert type(copy) is metric and copy.get_config() == one.get_config()
    [(labels, logits)] = ragged(7, [(3, 5)])
    for each in (one, copy):
        each.update_state(labels, logits)
    assert result(copy) == result(one)


def test_evaluate_counts_every_token_of_a_corpus_once():
    """Evaluating with `weighted_metrics` and a plan's weights equals one big batch."""
    random = np.random.default_rng(0)
    lengths = np.full(29, 6), random.integers(1, 7, 29)  # of sources and targets
    offsets = [np.concatenate([[0], np.cumsum(each)]) for each in lengths]
    ids = [random.integers(4, 23, each[-1]).astype("int32") for each in offsets]
    encoded = data.EncodedPairs(ids[0], offsets[0], ids[1], offsets[1], 3, 2, 3, 7, 0, 0)
    model = models.Transformer(23, num_layers=1, d_model=12, num_heads=2, d_ff=17, dropout=0.1)
    model.compile(
        loss=SmoothedCrossentropy(0.1),
        weighted_metrics=[metric() for metric in METRICS],
        jit_compile=False,
    )
    plan = data.BatchPlan(encoded, 41, shapes="static")
    whole = data.BatchPlan(encoded, 29 * 7).batches(0)  # everything in one batch
    assert len(whole) == 1 and plan.batches_per_epoch > 3
    inputs, labels, _ = whole[0]
    logits = model.predict_on_batch(inputs)
    scores = model.evaluate(plan.evaluation(encoded), verbose=0, return_dict=True)
    found = [scores[name] for name in ("nats_per_token", "perplexity", "token_accuracy")]
    assert found == pytest.approx(reference([(labels, logits)]), rel=1e-4)
