"""Batches in the form that `fit` and `evaluate` take on each Keras backend.

On TensorFlow that is a `tf.data.Dataset` of explicit signature: Keras infers the signature of a
generator from its first two batches, and fails at a third of another shape.
"""

import itertools
import time

import keras
import numpy as np
from keras import tree


class FeedMeter:
    """What the endless datasets of this process have cost since it began.

    Attributes:
        waited: seconds that training waited for a batch. On JAX and PyTorch each is made when it is
            asked for, and all of that is waiting.
        positions: of the batches' ids, those of padding too.
        padding: how many of them were padding, id 0.
    """

    def __init__(self):
        self.waited, self.positions, self.padding = 0.0, 0, 0

    def count(self, batch):
        """Counts a batch, `(inputs, labels, weights)`, that was made."""
        for ids in tree.flatten(batch[0] if isinstance(batch, tuple) else batch):
            if ids.ndim == 2 and np.issubdtype(ids.dtype, np.integer):
                self.positions += ids.size
                self.padding += ids.size - np.count_nonzero(ids)


METER = FeedMeter()


def endless(batch, first):
    """An endless dataset of `batch(first)`, `batch(first + 1)`, ..., nests of arrays.

    `METER` counts its padding, and how long was waited for it.
    """

    def counted(index):
        found = batch(index)
        METER.count(found)
        return found

    if keras.backend.backend() != "tensorflow":
        return _timed(counted, first)
    import tensorflow as tf

    return _timed_dataset(_tf_dataset(tf.data.Dataset.counter(first), counted, first))


def _timed(batch, first):
    for index in itertools.count(first):
        start = time.perf_counter()
        found = batch(index)
        METER.waited += time.perf_counter() - start
        yield found


def _timed_dataset(dataset):
    import tensorflow as tf

    # The parts of a zip are asked one after the other, by the thread that asks for the whole.
    clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

    def add(start, end):
        METER.waited += float(end - start)
        return np.float64(0)

    def take(start, found, end):
        with tf.control_dependencies([tf.numpy_function(add, [start, end], tf.float64)]):
            return tree.map_structure(tf.identity, found)

    return tf.data.Dataset.zip((clock, dataset, clock)).map(take).with_options(dataset.options())


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
