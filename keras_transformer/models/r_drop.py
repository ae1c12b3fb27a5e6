"""R-Drop (Liang et al., 2021): two passes of a training step shall agree. See `enable_r_drop`."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.ops import Tensor
from keras_transformer.ops.divergence import two_sided_divergence
from keras_transformer.ops.labels import counts, integer_labels, label_weights


def check(alpha: float, loss: Any) -> None:
    """Refuses to train with R-Drop on a loss whose labels and weights it does not know.

    Raises:
        ValueError: If `alpha` is not 0, and the loss is no `SmoothedCrossentropy`.
    """
    if alpha and not isinstance(loss, SmoothedCrossentropy):
        raise ValueError(
            f"R-Drop needs the loss kt.losses.SmoothedCrossentropy, got {loss!r}. Compile the "
            "model with that, or call model.enable_r_drop(0)."
        )


def loss_of_two(
    model: keras.Model,
    loss_of: Callable[[Tensor], Tensor],
    alpha: float,
    x: Any,
    y: Tensor,
    first: Tensor,
    sample_weight: Tensor = None,
) -> Tensor:
    """Returns the loss of a pass whose logits are given, and of a second one, with R-Drop.

    Args:
        model: A model whose loss is a `SmoothedCrossentropy`.
        loss_of: Maps logits to Keras' loss of the step.
        alpha: Weight of the divergence.
        x, y, sample_weight: The batch.
        first: The logits of the pass that Keras ran.
    """
    second = model(x, training=True)
    labels = integer_labels(y, first)
    real = counts(labels, first, model.loss.ignore_class)
    weights = label_weights(labels, real, sample_weight)
    apart = ops.sum(two_sided_divergence(first, second) * weights)
    return (loss_of(first) + loss_of(second)) / 2 + alpha / 4 * apart
