"""What a loss must not depend on: padding, and how a batch is split among replicas."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transformer.ops.labels import sum_on_replicas
from keras_transformer.testing import running

B, T, V = 3, 5, 7


def assert_ignores_padding(
    loss: Callable[..., Any],
    *,
    weights: Callable[[np.ndarray], Any] | None = None,
    pad_id: int = 0,
    tolerance: float = 1e-5,
) -> None:
    """Requires that the loss per token does not depend on logits, columns or rows of padding.

    Args:
        loss: A Keras loss, or any function `loss(labels [B, T], logits [B, T, V])`. A result that
            is no scalar is averaged, as Keras does in `compile`.
        weights: A function from labels [B, T] to the `sample_weight` [B, T] that training gives the
            loss. Unless given, the loss is called without weights.
        pad_id: The label of padding.
        tolerance: The largest relative difference that is accepted.

    Raises:
        AssertionError: If padding changes the loss, real tokens do not, or nothing but padding
            costs NaN.

    Example:

    ```python
    kt.testing.assert_ignores_padding(kt.losses.SmoothedCrossentropy(0.1))
    kt.testing.assert_ignores_padding(
        model.loss, weights=lambda y: (y != 0) / np.maximum((y != 0).sum(), 1)
    )
    ```
    """
    if not callable(loss):
        raise ValueError(
            f"A loss is a function of labels and logits, got {loss!r}: pass the keras.losses.Loss."
        )

    def value(labels, logits):
        arguments = [ops.convert_to_tensor(labels), ops.convert_to_tensor(logits)]
        weight = None if weights is None else np.asarray(weights(labels), "float32")
        if weight is not None and isinstance(loss, keras.losses.Loss):
            arguments.append(ops.convert_to_tensor(weight))
            weight = None
        result = ops.convert_to_numpy(ops.cast(loss(*arguments), "float32")).astype("float64")
        # A plain function gives a value per token, which `compile` weighs and averages.
        return float(np.mean(result if weight is None else result * weight))

    random = np.random.default_rng(0)
    real = [label for label in range(V) if label != pad_id]
    labels = random.choice(real, (B, T)).astype("int32")
    labels[0, 2:], labels[1, 4:] = pad_id, pad_id
    logits = random.normal(size=(B, T, V)).astype("float32")
    expected = value(labels, logits)
    is_pad = (labels == pad_id)[..., None]

    def more(rows, columns):
        wider = np.pad(labels, ((0, rows), (0, columns)), constant_values=pad_id)
        longer = random.normal(size=(*wider.shape, V)).astype("float32")
        longer[:B, :T] = logits
        return wider, longer

    for what, batch in (
        ("its logits matter", (labels, np.where(is_pad, 10 * logits, logits))),
        ("5 more pad columns change it", more(0, 5)),
        ("2 more rows of padding change it", more(2, 0)),
    ):
        running.require_close(
            value(*batch),
            expected,
            tolerance,
            f"Padding counts in the loss: {what}.",
            "no ignore_class and no sample_weight; a masked sum divided by all positions of the "
            "batch, and not by its real tokens; a mean of sentences' or rows' means; the mask of "
            "the inputs instead of that of the labels",
        )
    if value(labels, np.where(is_pad, logits, -logits)) == expected:
        running.fail(
            "The loss ignores real tokens as well: other logits there give the same value "
            f"{expected:.7g}.",
            "weights that are 0 everywhere, or the mask inverted",
        )
    only_padding = value(np.full_like(labels, pad_id), logits)
    if not np.isfinite(only_padding):
        running.fail(
            f"A batch of only padding costs {only_padding}.",
            "a sum divided by the number of real tokens, 0 here: divide by at least 1",
        )


def assert_replicas_add_up(
    loss: Callable[..., Any],
    strategy: Any,
    *,
    weights: Callable[[np.ndarray], Any] | None = None,
    pad_id: int | None = 0,
    tolerance: float = 1e-5,
) -> None:
    """Requires that the losses of the replicas add up to the loss of the batch on one device.

    TensorFlow sums the gradients of the replicas. So N replicas train exactly as one device does if
    their losses add up. On JAX a distributed batch is one array, so there is nothing to check.

    Args:
        loss: A function `loss(labels [B, T], logits [B, T, V])` that returns a scalar. If there are
            `weights`, `sample_weight` is its third argument.
        strategy: A `tf.distribute.MirroredStrategy` or a similar one.
        weights: A function from labels [B, T] to the `sample_weight` [B, T] of the whole batch.
        pad_id: The label of padding. Every replica gets another amount of it. None: no padding.
        tolerance: The largest relative difference that is accepted.

    Raises:
        AssertionError: If the sums differ; with both.
        ValueError: On another backend than TensorFlow.

    Example:

    ```python
    strategy = tf.distribute.MirroredStrategy()
    kt.testing.assert_replicas_add_up(kt.losses.SmoothedCrossentropy(0.1), strategy)
    ```
    """
    random = np.random.default_rng(0)
    count = strategy.num_replicas_in_sync
    labels = random.choice([label for label in range(V) if label != pad_id], (count, 2, T))
    if pad_id is not None:
        for replica, rows in enumerate(labels):
            rows[:, T - replica % T :] = pad_id
    arrays = [labels.astype("int32")]
    arrays.append(random.normal(size=(count, 2, T, V)).astype("float32"))
    if weights is not None:
        of_batch = np.asarray(weights(labels.reshape(-1, T)), "float32")
        arrays.append(of_batch.reshape(labels.shape))
    actual = float(sum_on_replicas(strategy, loss, arrays))
    batch = [ops.convert_to_tensor(array.reshape(-1, *array.shape[2:])) for array in arrays]
    running.require_close(
        actual,
        float(loss(*batch)),
        tolerance,
        f"The losses of {count} replicas do not add up to that of the whole batch.",
        "a sum divided by the replica's own labels, which is N times too large on N replicas; a "
        "mean of the replicas' means, where they have unequal numbers of labels",
    )
