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

    def add(self, waited, positions, padding):
        self.waited += waited
        self.positions += positions
        self.padding += padding


METER = FeedMeter()


def padding_of(batch):
    """The positions of a batch's ids, and how many of them are padding, id 0."""
    inputs = batch[0] if isinstance(batch, tuple) else batch
    ids = [
        each
        for each in tree.flatten(inputs)
        if each.ndim == 2 and np.issubdtype(each.dtype, np.integer)
    ]
    positions = sum(each.size for each in ids)
    return positions, positions - sum(np.count_nonzero(each) for each in ids)


def endless(batch, first):
    """An endless dataset of `batch(first)`, `batch(first + 1)`, ..., nests of arrays.

    `METER` counts their padding, and how long was waited for them.
    """
    if keras.backend.backend() != "tensorflow":
        return _metered(batch, first)
    import tensorflow as tf

    def counted(index):
        found = batch(index)
        return np.array(padding_of(found), "int64"), found

    return _metered_dataset(_tf_dataset(tf.data.Dataset.counter(first), counted, first))


def _metered(batch, first):
    for index in itertools.count(first):
        start = time.perf_counter()
        found = batch(index)
        METER.add(time.perf_counter() - start, *padding_of(found))
        yield found


def _metered_dataset(dataset):
    import tensorflow as tf

    # The parts of a zip are asked one after the other, by the thread that asks for the whole.
    # Not tf.timestamp, which may not be called where determinism is asked for.
    def now(_):
        return np.float64(time.perf_counter())

    clock = tf.data.Dataset.counter().map(lambda i: tf.numpy_function(now, [i], tf.float64))

    def add(start, end, counts):
        METER.add(float(end - start), *map(int, counts))
        return np.int64(0)

    def take(start, made, end):
        counts, found = made
        with tf.control_dependencies([tf.numpy_function(add, [start, end, counts], tf.int64)]):
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
