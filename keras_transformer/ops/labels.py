"""Which labels count in a loss or a metric, and how much each of them counts."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transformer.ops import Tensor


def integer_labels(y_true: Tensor, logits: Tensor) -> Tensor:
    """Labels as int32 of the logits' shape without V. A last axis of 1 is dropped, as in Keras.

    Raises:
        ValueError: For labels of another rank, for example one-hot labels.
    """
    labels = ops.convert_to_tensor(y_true)
    rank = len(logits.shape) - 1
    if len(labels.shape) == rank + 1 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    if len(labels.shape) != rank:
        raise ValueError(
            f"Logits of shape {tuple(logits.shape)} need integer labels of shape "
            f"{tuple(logits.shape[:-1])}, got labels of shape {tuple(labels.shape)}. If these are "
            "one-hot labels or probabilities, pass ops.argmax(labels, axis=-1), or use "
            "keras.losses.CategoricalCrossentropy(from_logits=True)."
        )
    return ops.cast(labels, "int32")


def counts(labels: Tensor, logits: Tensor, ignore_class: int | None) -> Tensor:
    """True where a label counts: int32 labels [B, T] and logits [B, T, V] -> booleans [B, T].

    Only `ignore_class` decides. A Keras mask of the logits would also drop the first label of a
    target that begins with the padding's id. With `ignore_class=None` there is no label of padding,
    so the mask decides, as in Keras; without a mask every label counts.
    """
    if ignore_class is not None:
        return ops.not_equal(labels, ignore_class)
    mask = getattr(logits, "_keras_mask", None)
    return ops.ones_like(labels, dtype="bool") if mask is None else mask


def label_weights(labels: Tensor, real: Tensor, sample_weight: Tensor = None) -> Tensor:
    """The weight of each label in a sum: float32 [B, T], 0 where it is not `real`.

    Args:
        labels: int32 [B, T].
        real: Booleans [B, T] from `counts`.
        sample_weight: [B, T], [B, T, 1], or [B] with one weight for each row. None is 1 / (number
            of labels that count), so that the sum is their mean, over all replicas.
    """
    real = ops.cast(real, "float32")
    if sample_weight is None:
        return real / ops.maximum(sum_over_replicas(ops.sum(real)), 1.0)
    weights = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    if len(weights.shape) == len(labels.shape) + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, axis=-1)
    while len(weights.shape) < len(labels.shape):
        weights = ops.expand_dims(weights, -1)
    return weights * real


def replicas() -> int:
    """How many replicas share the step that is being computed; 1 outside `tf.distribute`.

    JAX distributes the tensors of one computation, so its sums are over all devices already.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()  # None where no replica is running
    return context.num_replicas_in_sync if context else 1


def sum_over_replicas(value: Tensor) -> Tensor:
    """The sum of a value over all replicas of the step."""
    if replicas() == 1:
        return value
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce("SUM", value)


def sum_on_replicas(
    strategy: Any, function: Callable[..., Tensor], arrays: Sequence[np.ndarray]
) -> Tensor:
    """Returns the sum of what a function gives on each of the N replicas of a TensorFlow strategy.

    Args:
        strategy: A `tf.distribute.MirroredStrategy` or a similar one.
        function: Maps tensors to a scalar.
        arrays: Arrays [N, ...], whose entry n is an argument on replica n.

    Raises:
        ValueError: On another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError("A tf.distribute strategy needs the TensorFlow backend of Keras.")
    import tensorflow as tf

    def parts(array: np.ndarray) -> Any:
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[context.replica_id_in_sync_group])
        )

    @tf.function(autograph=False)
    def added_up(*arguments: Any) -> Tensor:
        return strategy.reduce("SUM", strategy.run(function, arguments), axis=None)

    return added_up(*map(parts, arrays))


def check_special_ids(start_id: int, end_id: int, pad_id: int = 0) -> None:
    """Refuses a start or an end that is padding too: its position would count nowhere.

    Raises:
        ValueError: If one of them is `pad_id`.
    """
    if start_id == pad_id:
        raise ValueError(
            f"The start id is {start_id}, which is the id of padding: attention would ignore the "
            "start of every sentence. Give the start an id of its own."
        )
    if end_id == pad_id:
        raise ValueError(
            f"The end id is {end_id}, which is the id of padding: attention and the loss would "
            "ignore the end of every sentence. Give the end an id of its own."
        )
