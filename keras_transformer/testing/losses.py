"""Padding counts nowhere in a loss: not as a term, and not in what the sum is divided by."""

import keras
import numpy as np
from keras import ops

from keras_transformer.testing import running

B, T, V = 3, 5, 7
CAUSES = (
    "no ignore_class and no sample_weight; a masked sum divided by all positions of the batch, and "
    "not by its real tokens; a mean of sentences' or rows' means; the mask of the inputs in place "
    "of that of the labels"
)


def assert_ignores_padding(loss, *, weights=None, pad_id=0, tolerance=1e-5):
    """The loss per token does not depend on the padding: on its logits, its columns or its rows.

    Args:
        loss: a Keras loss, or any function `loss(labels [B, T], logits [B, T, V])`, with
            `sample_weight` after them if there are `weights`. A result that is no scalar is
            averaged, as Keras does in `compile`.
        weights: a function from labels [B, T] to the `sample_weight` [B, T] that goes with them
            in training. Not given: the loss is called without.
        pad_id: the label of padding.
        tolerance: the largest relative difference that is none.

    Raises:
        AssertionError: with the two losses, and what usually causes the difference.

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
        # A plain function gives a value for each token, which `compile` weighs and averages.
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

    for what, arguments in (
        (
            "Padding counts in the loss: its logits matter.",
            (labels, np.where(is_pad, 10 * logits, logits)),
        ),
        ("Padding counts in the loss: 5 more pad columns change it.", more(0, 5)),
        ("Padding counts in the loss: 2 more rows of padding change it.", more(2, 0)),
    ):
        actual = value(*arguments)
        if not abs(actual - expected) <= tolerance * abs(expected):
            difference = f"expected {expected:.7g}, got {actual:.7g}"
            raise AssertionError(running.failure(what, difference, CAUSES))
    if value(labels, np.where(is_pad, logits, -logits)) == expected:
        raise AssertionError(
            "The loss ignores real tokens as well: other logits there give the same value "
            f"{expected:.7g}.\nUsual causes: weights that are 0 everywhere, or the mask inverted."
        )
    alone = value(np.full_like(labels, pad_id), logits)
    if not np.isfinite(alone):
        raise AssertionError(
            f"A batch of padding alone costs {alone}.\nUsual causes: a sum divided by the number "
            "of real tokens, 0 here: divide by at least 1."
        )
