"""Quantised, a layer or model still computes what it did."""

import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_transformer.testing import running, saving

# The root mean square of the differences, relative to that of the outputs.
TOLERANCES = {"int8": 0.1, "int4": 0.8, "float8": 0.5}


def assert_quantizes(model, inputs, mode="int8", *, tolerance=None):
    """Quantised, a model gives nearly the outputs it gave, and is saved with those it then gives.

    A model may also refuse, by a `ValueError`; then it must compute as before.

    Args:
        model: A Keras model, which is quantised: pass a copy to keep it. Or a layer of one or
            several inputs, which is put into a model.
        inputs: Example inputs: an array, or a list or a dictionary of them.
        mode: What `keras.Model.quantize` takes: `"int8"`, `"int4"`, `"float8"`.
        tolerance: The largest error that is accepted: the root mean square of the differences
            divided by that of the outputs. By default 0.1 in int8, and more in coarser modes.

    Raises:
        AssertionError: With what differs, and what usually causes it.

    Example:

    ```python
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7, 4, 9]])}
    kt.testing.assert_quantizes(model, ids, "int8")
    ```
    """
    if not isinstance(model, keras.Model):
        model = saving.model_of(model, inputs)
    tensors = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    before = _array(model(tensors))
    tolerance = TOLERANCES[mode] if tolerance is None else tolerance
    try:
        with warnings.catch_warnings():  # Keras warns of each layer that stays as it is
            warnings.simplefilter("ignore")
            model.quantize(mode)
    except ValueError:
        tolerance = 0.0
    after = _array(model(tensors))
    error = np.sqrt(np.mean((after - before) ** 2) / np.mean(before**2))
    if not error <= tolerance:
        raise AssertionError(
            f"Quantised by {mode!r} the model gives other outputs: they differ by {error:.3g} of "
            f"their size, where {tolerance:.2g} is accepted.\nUsual causes: a layer that "
            "multiplies the kernel of a Dense layer itself, which now holds integers, and does not "
            "call it."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
    running.require_same(
        _array(loaded(tensors)),
        after,
        what=f"Quantised by {mode!r} and saved, the loaded model gives other outputs.",
        causes="a get_config that does not tell which layers were quantised",
    )


def _array(outputs):
    return ops.convert_to_numpy(ops.cast(outputs, "float32"))
