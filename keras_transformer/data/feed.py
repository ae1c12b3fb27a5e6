"""Batches in the form that `fit` and `evaluate` take on each Keras backend.

On TensorFlow that is a `tf.data.Dataset` of explicit signature: Keras infers the signature of a
generator from its first two batches, and fails at a third of another shape.
"""

import itertools

import keras


def compiles_each_shape():
    """Whether `compile(jit_compile="auto")` means XLA here, which compiles every shape anew."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return any(device.device_type != "CPU" for device in tf.config.list_physical_devices())
    return backend == "jax"


def endless(batch, first):
    """An endless dataset of `batch(first)`, `batch(first + 1)`, ..."""
    if keras.backend.backend() != "tensorflow":
        return (batch(index) for index in itertools.count(first))
    import tensorflow as tf

    return _tf_dataset(tf.data.Dataset.counter(first), batch)


def one_pass(batch, count):
    """A dataset of `batch(0)` to `batch(count - 1)` that can be iterated again and again."""
    if keras.backend.backend() != "tensorflow":
        return _OnePass(batch, count)
    import tensorflow as tf

    return _tf_dataset(tf.data.Dataset.range(count), batch)


class _OnePass(keras.utils.PyDataset):
    def __init__(self, batch, count):
        super().__init__()
        self._batch, self._count = batch, count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return self._batch(index)


def _tf_dataset(indices, batch):
    # Not Dataset.from_generator: it calls Python when an iterator dies, which fails, with noise
    # and at worst late, in a process that ends with a live one (after Ctrl-C in fit, say).
    import tensorflow as tf

    def flat_batch(index):
        inputs, labels, weights = batch(int(index))
        return inputs["source_ids"], inputs["target_ids"], labels, weights

    def load(index):
        arrays = tf.numpy_function(flat_batch, [index], [tf.int32] * 3 + [tf.float32])
        for array in arrays:
            array.set_shape((None, None))
        source_ids, target_ids, labels, weights = arrays
        return {"source_ids": source_ids, "target_ids": target_ids}, labels, weights

    # There is nothing to tune, and the tuning thread, which wakes after 10, 20, 40, ... ms and up
    # to a minute, keeps a pass from ending: a validation of 3 s would take 5.
    options = tf.data.Options()
    options.autotune.enabled = False
    return indices.map(load).prefetch(4).with_options(options)
