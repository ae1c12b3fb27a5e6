"""Replicas of a TensorFlow strategy train as one device: their losses add up to the batch's."""

import keras
import numpy as np
from keras import ops

from keras_transformer.testing import running

T, V = 5, 7
CAUSES = (
    "a sum divided by the replica's own labels, which is N times too large on N replicas; a mean "
    "of the replicas' means, where they have unequal numbers of labels"
)


def assert_replicas_add_up(loss, strategy, *, weights=None, pad_id=0, tolerance=1e-5):
    """The losses of the replicas add up to the loss of the whole batch on one device.

    TensorFlow sums the gradients of the replicas. So N replicas train as one device does exactly
    if their losses add up. On JAX a distributed batch is one array, and there is nothing to check.

    Args:
        loss: a function `loss(labels [B, T], logits [B, T, V])`, with `sample_weight` after them
            if there are `weights`, that returns a scalar.
        strategy: a `tf.distribute.MirroredStrategy` or its like.
        weights: a function from labels [B, T] to the `sample_weight` [B, T] of the whole batch.
        pad_id: the label of padding, of which the replicas get unequal numbers. None: no padding.
        tolerance: the largest relative difference that is none.

    Raises:
        AssertionError: with the two losses, and what usually causes the difference.

    Example:

    ```python
    strategy = tf.distribute.MirroredStrategy()
    kt.testing.assert_replicas_add_up(kt.losses.SmoothedCrossentropy(0.1), strategy)
    ```
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError("A tf.distribute strategy needs the TensorFlow backend of Keras.")
    import tensorflow as tf

    random = np.random.default_rng(0)
    count = strategy.num_replicas_in_sync
    labels = random.choice([label for label in range(V) if label != pad_id], (count, 2, T))
    if pad_id is not None:
        for replica, rows in enumerate(labels):
            rows[:, T - replica % T :] = pad_id
    logits = random.normal(size=(count, 2, T, V)).astype("float32")
    arrays = [labels.astype("int32"), logits]
    if weights is not None:
        whole = np.asarray(weights(labels.reshape(-1, T)), "float32")
        arrays.append(whole.reshape(labels.shape))

    def part(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[context.replica_id_in_sync_group])
        )

    @tf.function(autograph=False)
    def added_up(*parts):
        return strategy.reduce("SUM", strategy.run(loss, parts), axis=None)

    actual = float(added_up(*map(part, arrays)))
    whole = [ops.convert_to_tensor(array.reshape(-1, *array.shape[2:])) for array in arrays]
    expected = float(loss(*whole))
    if not abs(actual - expected) <= tolerance * abs(expected):
        what = f"The losses of {count} replicas do not add up to that of the whole batch."
        difference = f"expected {expected:.7g}, got {actual:.7g}"
        raise AssertionError(running.failure(what, difference, CAUSES))
