"""Which labels count in a loss or a metric, and how much each of them counts."""

import keras
from keras import ops


def integer_labels(y_true, logits):
    """Labels as int32 of the logits' shape without V. A last axis of 1 is dropped, as in Keras.

    Raises:
        ValueError: for labels of another rank, for example one-hot labels.
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


def counts(labels, logits, ignore_class):
    """True where a label counts: int32 labels [B, T] and logits [B, T, V] -> booleans [B, T].

    `ignore_class` alone decides. A Keras mask of the logits would also drop the first label of a
    target that begins with the padding's id. With `ignore_class=None` there is no label of padding,
    so the mask decides, as in Keras; without a mask every label counts.
    """
    if ignore_class is not None:
        return ops.not_equal(labels, ignore_class)
    mask = getattr(logits, "_keras_mask", None)
    return ops.ones_like(labels, dtype="bool") if mask is None else mask


def label_weights(labels, real, sample_weight=None):
    """What each label counts in a sum: float32 [B, T], 0 where it is not `real`.

    Args:
        labels: int32 [B, T].
        real: booleans [B, T] from `counts`.
        sample_weight: [B, T], [B, T, 1], or [B] with one weight for each row. None: 1 / (number of
            labels that count), so that the sum is their mean, over all replicas.
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


def replicas():
    """How many replicas share the step that is being computed; 1 outside `tf.distribute`.

    JAX distributes the tensors of one computation, so its sums are over all devices already.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()  # None where no replica is running
    return context.num_replicas_in_sync if context else 1


def sum_over_replicas(value):
    """The sum of a value that each replica of the step has its own part of."""
    if replicas() == 1:
        return value
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce("SUM", value)


def check_special_ids(start_id, end_id, pad_id=0):
    """Refuses a start or an end that is padding too: its position would count nowhere.

    Raises:
        ValueError: where one of them is `pad_id`.
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
