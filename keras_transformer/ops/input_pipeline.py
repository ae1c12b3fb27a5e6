"""Batches in the form that `fit` and `evaluate` take on each Keras backend.

On TensorFlow that is a `tf.data.Dataset` with an explicit signature: Keras infers the signature of
a generator from its first two batches, and fails at a third of another shape.
"""

import atexit
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_transformer.ops.processes import own_rows

Batch = Callable[[int], Any]  # the number of a batch -> a nest of arrays
_ended: dict[int, float] = {}  # thread of tf.data -> when its last batch was made
_ending = threading.Event()


def endless(batch: Batch, first: int, meter: Any = None) -> Any:
    """An endless dataset of `batch(first)`, `batch(first + 1)`, ...

    Args:
        batch: Makes a nest of arrays.
        first: The number of the first batch.
        meter: A `kt.data.FeedMeter` that counts the batches as they are taken, or None.
    """
    if keras.backend.backend() != "tensorflow":
        numbers = itertools.count(first)
        # A generator, because Keras takes no other iterator.
        batches = (batch(n) for n in numbers) if meter is None else _metered(batch, numbers, meter)
        return (own_rows(each) for each in batches)
    import tensorflow as tf

    def counted(index):
        found = batch(index)
        return np.array(meter.count(found), "int64"), found

    numbers = tf.data.Dataset.counter(first)
    made = _tf_dataset(numbers, batch if meter is None else counted, first)
    return made if meter is None else _metered_dataset(made, meter)


def one_pass(batch: Batch, count: int) -> Any:
    """A dataset of `batch(0)` to `batch(count - 1)` that can be iterated again and again."""
    if keras.backend.backend() != "tensorflow":
        return _OnePass(batch, count)
    import tensorflow as tf

    return _tf_dataset(tf.data.Dataset.range(count), batch, 0)


def _metered(batch, numbers, meter) -> Iterator[Any]:
    for number in numbers:
        start = time.perf_counter()
        found = batch(number)
        meter.add(time.perf_counter() - start, *meter.count(found))
        yield found


def _metered_dataset(dataset, meter):
    import tensorflow as tf

    # A zip asks its parts one after the other, in one thread: a clock, a batch, a clock again.
    # tf.timestamp is forbidden in deterministic mode.
    def now(_):
        return np.float64(time.perf_counter())

    clock = tf.data.Dataset.counter().map(lambda i: tf.numpy_function(now, [i], tf.float64))

    def add(start, end, counts):
        meter.add(float(end - start), *map(int, counts))
        return np.int64(0)

    def take(start, made, end):
        counts, found = made
        with tf.control_dependencies([tf.numpy_function(add, [start, end, counts], tf.int64)]):
            return tree.map_structure(tf.identity, found)

    return tf.data.Dataset.zip((clock, dataset, clock)).map(take).with_options(dataset.options())


class _OnePass(keras.utils.PyDataset):
    def __init__(self, batch, count):
        super().__init__()
        self._batch, self._count = batch, count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return own_rows(self._batch(index))


def _call(batch, number, example):
    thread = threading.get_ident()
    _ended[thread] = float("inf")
    try:
        return example if _ending.is_set() else batch(number)
    finally:
        _ended[thread] = time.monotonic()


@atexit.register
def _wait_for_calls():
    """Waits until no thread of tf.data runs Python: an interpreter that shuts down ends the thread.

    Its iterator would still wait for it, and the process would hang.
    """
    _ending.set()  # a thread makes four batches in advance, and then rests
    while any(time.monotonic() < ended + 0.1 for ended in list(_ended.values())):
        time.sleep(0.01)


def _tf_dataset(numbers, batch, first):
    # Dataset.from_generator calls Python when an iterator is freed. That fails noisily in a process
    # that ends while an iterator is alive, for example after Ctrl-C in fit.
    import tensorflow as tf

    example = batch(first)
    arrays = [np.asarray(array) for array in tree.flatten(example)]

    def flat_batch(number):
        return tree.flatten(_call(batch, int(number), example))

    def load(number):
        found = tf.numpy_function(flat_batch, [number], [array.dtype for array in arrays])
        for tensor, array in zip(found, arrays, strict=True):
            tensor.set_shape([None] * array.ndim)
        return tree.pack_sequence_as(example, found)

    # There is nothing to tune. The tuning thread sleeps for 10, 20, 40, ... ms, up to a minute, and
    # a pass ends only when it wakes: a validation of 3 s would take 5 s.
    options = tf.data.Options()
    options.autotune.enabled = False
    return numbers.map(load).prefetch(4).with_options(options)
