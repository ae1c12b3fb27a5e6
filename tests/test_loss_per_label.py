"""Tests that Keras displays, as `loss` and `val_loss`, the mean over the labels of all batches."""

import inspect

import keras
import numpy as np
import pytest
from random_pairs import random_pairs
from test_losses import reference

from keras_transformer import callbacks, data, layers, models
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.metrics import NatsPerToken
from keras_transformer.models import LossPerLabel

V = 13


@keras.saving.register_keras_serializable(package="tests")
class Toy(LossPerLabel, keras.Model):
    """A functional model of two layers."""


def toy(kind=Toy, regularizer=None):
    """Builds a model from `{source_ids, target_ids}` to logits. Padding changes nothing."""
    names = "source_ids", "target_ids"
    ids = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    embed = keras.layers.Embedding(V, 5, mask_zero=True, embeddings_regularizer=regularizer)
    context = layers.MeanPooling()(embed(ids["source_ids"]))[:, None]
    model = kind(ids, keras.layers.Dense(V)(embed(ids["target_ids"]) + context))
    model.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in model.get_weights()])
    return model


def compiled(model, loss=None, accumulate=1, **options):
    """Compiles with a learning rate of 0, so that all figures belong to the same weights."""
    steps = accumulate if accumulate > 1 else None
    model.compile(
        keras.optimizers.SGD(0.0, gradient_accumulation_steps=steps),
        loss or SmoothedCrossentropy(0.1),
        jit_compile=keras.backend.backend() == "jax",
        **options,
    )
    return model


def plan_of(encoded, accumulate=1):
    """Plans batches of 11 short rows and of 7 long rows. Rows of zeros fill up one of them."""
    plan = data.BatchPlan(encoded, 23, shapes="static", accumulate=accumulate)
    assert [rows for rows, _, _ in plan.shapes()] == [7, 11]
    return plan


@pytest.fixture(scope="module")
def encoded():
    return random_pairs(53, V, longest=2, same_source=False)


def nats_per_token(model, batches):
    """Returns the mean of the smoothed cross-entropy over all real tokens of these batches."""
    nats = []
    for inputs, labels, _ in batches:
        logits = keras.ops.convert_to_numpy(model(inputs))
        nats.append(reference(labels, logits, 0.1)[0][labels != 0])
    return np.concatenate(nats).mean()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_and_validation_show_the_same_loss_on_the_same_data(encoded, accumulate):
    plan = plan_of(encoded, accumulate)
    steps = plan.batches_per_epoch * accumulate
    seen = [batch for update in range(steps // accumulate) for batch in plan.batches(update)]
    model = compiled(toy(), accumulate=accumulate)
    history = model.fit(
        plan.dataset(),
        steps_per_epoch=steps,
        validation_data=plan.evaluation(encoded),
        verbose=0,
    ).history
    expected = nats_per_token(model, seen)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-5)
    again = model.evaluate(plan.dataset(), steps=steps, verbose=0)
    assert again == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_an_interval_is_that_of_its_tokens(encoded):
    plan = plan_of(encoded)
    model, lines = compiled(toy(), weighted_metrics=[NatsPerToken()]), []
    model.fit(
        plan.dataset(),
        steps_per_epoch=5,
        verbose=0,
        callbacks=[callbacks.Progress(every=2, log=lines.append)],
    )
    shown = [line["loss"] for line in lines if line["event"] == "interval"]
    for loss, updates in zip(shown, ([0, 1], [2, 3], [4]), strict=True):
        seen = [batch for update in updates for batch in plan.batches(update)]
        assert loss == pytest.approx(nats_per_token(model, seen), rel=1e-5)


def test_validation_is_exact_in_any_keras_model(encoded):
    model = compiled(toy(keras.Model))
    loss = model.evaluate(plan_of(encoded).evaluation(encoded), verbose=0)
    whole = data.BatchPlan(encoded, 53 * 3).batches(0)
    assert loss == pytest.approx(nats_per_token(model, whole), rel=1e-5)


def test_without_weights_every_real_label_counts_once(encoded):
    [(inputs, labels, _)] = data.BatchPlan(encoded, 53 * 3).batches(0)
    model = compiled(toy())
    history = model.fit(inputs, labels, batch_size=29, verbose=0).history
    expected = nats_per_token(model, [(inputs, labels, None)])
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(inputs, labels, batch_size=29, verbose=0) == pytest.approx(expected, 1e-5)


def test_classes_of_texts_count_once_each():
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 3, 29)
    encoded = data.EncodedTexts(
        ids=rng.integers(4, V, lengths.sum()).astype("int32"),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=rng.integers(0, 3, 29).astype("int32"),
        start_id=2,
        end_id=3,
        special_ids=(0, 1, 2, 3),
        max_length=4,
        cut=0,
    )
    token_ids = keras.Input((None,), dtype="int32")
    pooled = layers.MeanPooling()(keras.layers.Embedding(V, 5, mask_zero=True)(token_ids))
    model = compiled(
        Toy(token_ids, keras.layers.Dense(3)(pooled)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        weighted_metrics=["accuracy"],
    )
    plan = data.LabelledPlan(encoded, 23, shapes="static")
    steps = plan.batches_per_epoch
    history = model.fit(
        plan.dataset(), steps_per_epoch=steps, validation_data=plan.evaluation(encoded), verbose=0
    ).history
    right, nats = 0, 0.0
    for update in range(steps):
        [(ids, labels, weights)] = plan.batches(update)
        logits = keras.ops.convert_to_numpy(model(ids))
        nats += reference(labels, logits, 0.0)[0][weights > 0].sum()
        right += (logits.argmax(-1) == labels)[weights > 0].sum()
    assert history["loss"][0] == pytest.approx(nats / 29, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(nats / 29, rel=1e-5)
    assert history["val_accuracy"][0] == pytest.approx(right / 29, rel=1e-5)


def test_a_regularizer_adds_the_same_to_both(encoded):
    plan = plan_of(encoded)
    model = compiled(toy(regularizer=keras.regularizers.L2(0.1)))
    history = model.fit(
        plan.dataset(),
        steps_per_epoch=plan.batches_per_epoch,
        validation_data=plan.evaluation(encoded),
        verbose=0,
    ).history
    penalty = 0.1 * np.square(model.get_weights()[0]).sum()
    expected = nats_per_token(model, data.BatchPlan(encoded, 53 * 3).batches(0)) + penalty
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_other_losses_are_shown_as_keras_does(encoded, reduction):
    [(inputs, labels, _)] = data.BatchPlan(encoded, 53 * 3).batches(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    shown = [
        compiled(toy(kind), loss).evaluate(inputs, labels, batch_size=29, verbose=0)
        for kind in (Toy, keras.Model)
    ]
    assert shown[0] == shown[1]


def test_a_subclass_with_a_loss_of_its_own_and_a_loaded_model(encoded, tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class Doubled(Toy):
        def compute_loss(self, *args, **kwargs):
            return 2 * super().compute_loss(*args, **kwargs)

    valid = plan_of(encoded).evaluation(encoded)
    once, twice = (compiled(toy(kind)) for kind in (Toy, Doubled))
    expected = once.evaluate(valid, verbose=0)
    assert twice.evaluate(valid, verbose=0) == pytest.approx(2 * expected, rel=1e-5)

    once.save(tmp_path / "toy.keras")
    loaded = keras.models.load_model(tmp_path / "toy.keras")
    assert loaded.evaluate(valid, verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.tensorflow_only
def test_every_model_of_the_package_shows_its_loss_per_label():
    found = [each for each in vars(models).values() if inspect.isclass(each)]
    found = [each for each in found if issubclass(each, keras.Model)]
    assert len(found) >= 5 and all(issubclass(each, LossPerLabel) for each in found)
