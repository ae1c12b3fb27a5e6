"""Saved and loaded, a model computes the same to the bit; quantised, nearly the same."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transformer.testing import running

# The root mean square of the differences, relative to that of the outputs.
TOLERANCES = {"int8": 0.1, "int4": 0.8, "float8": 0.5}


def assert_saves_and_loads(
    model: Any, inputs: Any, *, custom_objects: dict[str, Any] | None = None
) -> None:
    """Requires that a `.keras` file, loaded in safe mode, gives the same outputs to the bit.

    This holds in training as well, with equal states of the seed generators. So a dropout rate that
    the configuration forgets is found too.

    Args:
        model: A Keras model. A layer of one or several inputs is put into a model.
        inputs: Example inputs: an array, or a list or a dictionary of arrays.
        custom_objects: `{name: class}` of classes that are not registered by
            `keras.saving.register_keras_serializable`.

    Raises:
        AssertionError: If the loaded model differs; with the first difference.

    Example:

    ```python
    kt.testing.assert_saves_and_loads(model, kt.testing.random_inputs(vocabulary_size=100))
    ```
    """
    model = model_of(model, inputs)
    run = running.Runner(model, inputs)
    try:
        loaded = saved_and_loaded(model, custom_objects)
    except Exception as error:
        raise AssertionError(
            f"The model cannot be saved and loaded: {error}\nUsual causes: a class that is not "
            "registered (keras.saving.register_keras_serializable); a get_config that lacks an "
            "argument; a Lambda layer or other code in the file, which safe mode refuses."
        ) from error
    causes = (
        "a get_config that forgets an argument, so that loading takes its default; a variable made "
        "outside build or add_weight, which the file does not hold; an array kept as an attribute"
    )
    before, after = model.count_params(), loaded.count_params()
    if before != after:
        what = "The loaded model has another number of parameters."
        running.fail(what, causes, f"{before}, {after}")
    what = "The loaded model gives other outputs"
    actual = running.Runner(loaded, inputs).expected
    run.require_same(actual, tolerance=0.0, what=f"{what}.", causes=causes)

    # A file holds weights and no seed states. With equal states the dropout is equal.
    seeds, its_seeds = _seeds(model), _seeds(loaded)
    causes = f"a forgotten dropout rate; {causes}"
    if len(seeds) != len(its_seeds):
        difference = f"{len(seeds)} seed generators, {len(its_seeds)}"
        running.fail("The loaded model draws random numbers in other places.", causes, difference)
    for mine, its in zip(seeds, its_seeds, strict=True):
        its.assign(mine)
    expected, actual = (
        running.Runner(each, inputs, training=True).expected for each in (model, loaded)
    )
    what = f"{what} in training, though not at inference."
    running.require_same(actual, expected, what=what, causes=causes)


def assert_quantizes(
    model: Any, inputs: Any, mode: str = "int8", *, tolerance: float | None = None
) -> None:
    """Requires that a quantised model gives nearly the same outputs, and keeps them when saved.

    A model may also refuse by a `ValueError`. Then it must compute as before.

    Args:
        model: A Keras model. It is quantised, so pass a copy to keep it. A layer of one or several
            inputs is put into a model.
        inputs: Example inputs: an array, or a list or a dictionary of arrays.
        mode: An argument of `keras.Model.quantize`: `"int8"`, `"int4"` or `"float8"`.
        tolerance: The largest error that is accepted: the root mean square of the differences
            divided by that of the outputs. Unless given it is 0.1 in int8, and more in coarser
            modes.

    Raises:
        AssertionError: If the outputs differ; with the first difference after loading.

    Example:

    ```python
    model = kt.models.Transformer(100, num_layers=1, d_model=16, num_heads=2, d_ff=32)
    kt.testing.assert_quantizes(model, kt.testing.random_inputs(vocabulary_size=100), "int8")
    ```
    """
    model = model_of(model, inputs)
    tensors = keras.tree.map_structure(ops.convert_to_tensor, inputs)

    def output(model):
        return ops.convert_to_numpy(ops.cast(model(tensors), "float32"))

    before = output(model)
    tolerance = TOLERANCES[mode] if tolerance is None else tolerance
    try:
        with warnings.catch_warnings():  # Keras warns of each layer that stays as it is
            warnings.simplefilter("ignore")
            model.quantize(mode)
    except ValueError:
        tolerance = 0.0
    after = output(model)
    error = np.sqrt(np.mean((after - before) ** 2) / np.mean(before**2))
    if not error <= tolerance:
        running.fail(
            f"Quantised by {mode!r} the model gives other outputs: they differ by {error:.3g} of "
            f"their size, where {tolerance:.2g} is accepted.",
            "a layer that multiplies the kernel of a Dense layer itself, which now holds integers, "
            "and does not call it",
        )
    running.require_same(
        output(saved_and_loaded(model)),
        after,
        what=f"Quantised by {mode!r} and saved, the loaded model gives other outputs.",
        causes="a get_config that does not tell which layers were quantised",
    )


def model_of(layer: Any, inputs: Any) -> keras.Model:
    """Returns a layer of these inputs as a model; a model as it is."""
    if isinstance(layer, keras.Model):
        return layer
    arrays, pack = running.named(inputs)
    packed = pack(running.symbols(arrays))
    return keras.Model(packed, layer(*packed) if isinstance(packed, list) else layer(packed))


def saved_and_loaded(model: keras.Model, custom_objects: dict[str, Any] | None = None) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.models.load_model(path, custom_objects, safe_mode=True)


def _seeds(model: keras.Model) -> list:
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
