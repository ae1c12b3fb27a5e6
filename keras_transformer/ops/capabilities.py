"""What the backend and the device of this process can do, by name."""

import os

import numpy as np
from keras import ops

from keras_transformer.ops import backend
from keras_transformer.ops.compilation import runs_on_processor


def compiles_functions() -> bool:
    """Whether `compile_with_weights` compiles a function, once per shape. PyTorch runs it as is."""
    return backend.name() != "torch"


def calls_at_once() -> int:
    """Returns how many calls of one compiled function to make at the same time, in threads.

    A search that TensorFlow compiles for a CPU leaves cores idle between its larger products, so
    there is one call per core. Elsewhere one call keeps the device busy.
    """
    if backend.name() != "tensorflow" or not runs_on_processor():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def splits_weights() -> bool:
    """Whether `keras.distribution.ModelParallel` splits weights. Elsewhere Keras ignores it."""
    return backend.name() == "jax"


def used_missing_rows(found: object) -> bool:
    """Whether `found` was computed with ids or positions that an embedding does not have.

    Only JAX needs this: it gives NaN for such a row, where the others raise an error.
    """
    if backend.name() != "jax":
        return False
    return not np.isfinite(ops.convert_to_numpy(ops.cast(found, "float32"))).all()


def make_deterministic() -> None:
    """Makes TensorFlow choose operations that give the same bits in every run, which are slower.

    The other backends have no such mode.
    """
    if backend.name() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
