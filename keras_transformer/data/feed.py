"""Batches in the form that `fit` and `evaluate` take on each Keras backend.

On TensorFlow that is a `tf.data.Dataset` of explicit signature: Keras infers the signature of a
generator from its first two batches, and fails at a third of another shape.
"""

import itertools

import keras
import numpy as np
from keras import tree


def endless(batch, first):
    """An endless dataset of `batch(first)`, `batch(first + 1)`, ..., nests of arrays."""
    if keras.backend.backend() != "tensorflow":
        return (batch(index) for index in itertools.count(first))
    import tensorflow as tf

    return _tf_dataset(tf.data.Dataset.counter(first), batch, first)


def one_pass(batch, count):
    """A dataset of `batch(0)` to `batch(count - 1)` that can be iterated again and again."""
    if keras.backend.backend() != "tensorflow":
        return _OnePass(batch, count)
    import tensorflow as tf

    return _tf_dataset(tf.data.Dataset.range(count), batch, 0)


class _OnePass(keras.utils.PyDataset):
    def __init__(self, batch, count):
        super().__init__()
        self._batch, self._count = batch, count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return self._batch(index)


def _tf_dataset(indices, batch, first):
    # Not Dataset.from_generator: it calls Python when an iterator dies, which fails, with noise
    # and at worst late, in a process that ends with a live one (after Ctrl-C in fit, say).
    import tensorflow as tf

    example = batch(first)
    arrays = [np.asarray(array) for array in tree.flatten(example)]

    def flat_batch(index):
        return tree.flatten(batch(int(index)))

    def load(index):
        found = tf.numpy_function(flat_batch, [index], [array.dtype for array in arrays])
        for each, array in zip(found, arrays, strict=True):
            each.set_shape([None] * array.ndim)
        return tree.pack_sequence_as(example, found)

    # There is nothing to tune, and the tuning thread, which wakes after 10, 20, 40, ... ms and up
    # to a minute, keeps a pass from ending: a validation of 3 s would take 5.
    options = tf.data.Options()
    options.autotune.enabled = False
    return indices.map(load).prefetch(4).with_options(options)
