"""A file holds the whole model: saved and loaded it is the same to the bit."""

import tempfile
from pathlib import Path

import keras

from keras_transformer.testing import running


def assert_saves_and_loads(model, inputs, *, custom_objects=None):
    """A `.keras` file, loaded in safe mode, gives the same outputs to the bit.

    In training as well, with the seed generators in equal states: so a dropout rate that the
    configuration forgets is seen too.

    Args:
        model: a Keras model; or a layer of one or several inputs, which is put into a model.
        inputs: example inputs: an array, or a list or a dictionary of them.
        custom_objects: `{name: class}` of classes that are not registered with
            `keras.saving.register_keras_serializable`.

    Raises:
        AssertionError: with what differs after loading, and what usually causes it.

    Example:

    ```python
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7, 4, 9]])}
    kt.testing.assert_saves_and_loads(model, ids)
    ```
    """
    if not isinstance(model, keras.Model):
        model = model_of(model, inputs)
    _, _, expected = running.runner(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
            loaded = keras.models.load_model(path, custom_objects, safe_mode=True)
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
        raise AssertionError(
            running.failure(
                "The loaded model has another number of parameters.", f"{before}, {after}", causes
            )
        )
    _, _, actual = running.runner(loaded, inputs)
    what = "The loaded model gives other outputs"
    running.require_same(actual, expected, what=f"{what}.", causes=causes)

    # Files hold weights and no seed states: with equal ones the dropout is equal.
    seeds, its_seeds = _seeds(model), _seeds(loaded)
    causes = f"a forgotten dropout rate; {causes}"
    if len(seeds) != len(its_seeds):
        difference = f"{len(seeds)} seed generators, {len(its_seeds)}"
        what = "The loaded model draws random numbers in other places."
        raise AssertionError(running.failure(what, difference, causes))
    for mine, its in zip(seeds, its_seeds, strict=True):
        its.assign(mine)
    _, _, expected = running.runner(model, inputs, training=True)
    _, _, actual = running.runner(loaded, inputs, training=True)
    what = f"{what} in training, though not at inference."
    running.require_same(actual, expected, what=what, causes=causes)


def model_of(layer, inputs):
    arrays, pack = running.named(inputs)
    symbols = {
        name: keras.Input(array.shape[1:], dtype=array.dtype.name) for name, array in arrays.items()
    }
    packed = pack(symbols)
    return keras.Model(packed, layer(*packed) if isinstance(packed, list) else layer(packed))


def _seeds(model):
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
