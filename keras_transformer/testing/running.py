"""How the certificates call a model and compare what comes out: one way, shared by them all."""

import contextlib
import types

import keras
import numpy as np
from keras import ops

from keras_transformer.ops.compilation import compile_with_weights

# Rounding of a few dozen operations, relative to the largest output, where two calls have different
# shapes and may therefore add in another order. Calls of one shape are compared to the bit.
ROUNDING = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 6e-2}


def named(inputs):
    """The inputs of a model as {name: array}, and the function that packs them up again."""
    if isinstance(inputs, dict):
        return {name: np.asarray(array) for name, array in inputs.items()}, dict
    if isinstance(inputs, list | tuple):
        names = {f"inputs[{i}]": np.asarray(array) for i, array in enumerate(inputs)}
        return names, lambda arrays: list(arrays.values())
    return {"inputs": np.asarray(inputs)}, lambda arrays: arrays["inputs"]


def choose(arrays, chosen, role):
    """The name of the input that is the `role`, "source" or "target".

    Not given, it is `source_ids` or `target_ids`, or the first or last input; a single input is
    the target.
    """
    if chosen is not None:
        name = f"inputs[{chosen}]" if isinstance(chosen, int) else chosen
        if name not in arrays:
            raise ValueError(f"{role}={chosen!r} names no input. There are: {', '.join(arrays)}.")
        return name
    if f"{role}_ids" in arrays:
        return f"{role}_ids"
    if role == "source" and len(arrays) == 1:
        raise ValueError("A model with a single input has no source: nothing to be sensitive to.")
    if all(name.startswith("inputs") for name in arrays):
        return list(arrays)[0 if role == "source" else -1]
    raise ValueError(f"Say which input is the {role}, {role}=...: one of {', '.join(arrays)}.")


def is_ids(array):
    return array.ndim == 2 and array.dtype.kind in "iu"


def real_positions(arrays, name, output, pad_id=0):
    """Where `output` is to be compared: at real tokens, if its positions are those of the ids."""
    ids = arrays[name]
    if is_ids(ids) and output.shape[:2] == ids.shape:
        return ids != pad_id
    return np.ones(output.shape[:1], bool)


def other_values(array):
    """An array of the same shape that differs everywhere; ids stay real ids that were there."""
    if array.dtype.kind in "iu":
        largest = int(array.max())
        if largest < 2:
            raise ValueError(
                "The ids are to be changed into other real ids and hold none above 1: give inputs "
                "with several different ids."
            )
        return (array % largest + 1).astype(array.dtype)
    if array.dtype.kind != "f":
        return ~array
    # Not a shift or a scale: a layer normalisation would take either back.
    spread = max(float(array.std()), 1e-3)
    return np.random.default_rng(0).normal(scale=spread, size=array.shape).astype(array.dtype)


def changed(arrays, name, position):
    """The inputs with all rows of input `name` changed at one position."""
    array = arrays[name].copy()
    array[:, position] = other_values(arrays[name])[:, position]
    return {**arrays, name: array}


def runner(model, inputs, training=False, jit=False):
    """`model` as a function of its inputs that changes nothing and always draws the same dropout.

    Args:
        model: a Keras layer or model, or any function of `inputs`.
        inputs: example inputs.
        training: whether the model is called with `training=True`.
        jit: whether it is compiled by XLA, on backends that have it.

    Returns:
        run: `{name: array} -> array` in NumPy float32.
        arrays: the example inputs as {name: array}.
        expected: its output for them.

    Raises:
        AssertionError: where the same inputs give two different outputs, or NaN.
    """
    arrays, pack = named(inputs)
    names = list(arrays)
    is_layer = isinstance(model, keras.layers.Layer)

    def call(*values):
        values = [ops.convert_to_tensor(value) for value in values]
        arguments = {"training": training} if is_layer or training else {}
        output = model(pack(dict(zip(names, values, strict=True))), **arguments)
        if isinstance(output, dict | list | tuple):
            raise ValueError(
                f"A certificate looks at one output tensor, the model returned {type(output)} of "
                f"{len(output)}: wrap it in a keras.Model with the output that is meant."
            )
        return ops.cast(output, "float32")

    if is_layer and not model.built:
        call(*arrays.values())
    if jit:
        stateful = model if is_layer else types.SimpleNamespace(variables=[])
        call = compile_with_weights(call, stateful)
    # Dropout is drawn from seed generators whose states are variables: put back after each call,
    # they give every call the same dropout, and two calls differ only by their inputs. The moving
    # averages of a normalisation are put back with them.
    states = model.non_trainable_variables if is_layer and training else []
    before = [(state, np.array(ops.convert_to_numpy(state))) for state in states]

    def run(arrays):
        try:
            with _same_draws(training):
                return np.array(ops.convert_to_numpy(call(*arrays.values())))
        finally:
            for state, value in before:
                state.assign(value)

    expected = run(arrays)
    require_same(
        run(arrays),
        expected,
        what="The same inputs gave two different outputs, or NaN"
        + (", although all seed generators of the model were set back." if training else "."),
        causes="dropout that is on at inference; random numbers that come from no "
        "keras.random.SeedGenerator of the model; inputs that hold NaN",
    )
    return run, arrays, expected


@contextlib.contextmanager
def _same_draws(training):
    """Torch draws dropout from one global generator, not from Keras' seed generators."""
    if not training or keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.random.fork_rng():  # puts its state back
        yield


def run_changed(run, arrays, how):
    """Runs changed inputs; says which change it was where the model cannot take it."""
    try:
        return run(arrays)
    except Exception as error:
        raise AssertionError(
            f"The model runs on the inputs as given and fails with {how}: {error}"
        ) from error


def rounding(model, expected):
    """What rounding may change: a few steps of the coarsest dtype the model computes in."""
    parts = [model, *getattr(model, "layers", [])]
    dtypes = {getattr(part, "compute_dtype", None) or "float32" for part in parts}
    finite = np.abs(expected[np.isfinite(expected)])
    return max(ROUNDING.get(dtype, 0.0) for dtype in dtypes) * max(finite.max(initial=0.0), 1e-3)


def first_difference(actual, expected, tolerance=0.0, real=None):
    """Where two arrays first differ, in words; None where they agree.

    Args:
        actual, expected: arrays [B, ...] of one shape.
        tolerance: the largest difference that is none. NaN always differs.
        real: booleans [B] or [B, T]; only what is True is compared.
    """
    with np.errstate(invalid="ignore"):  # inf - inf; equal infinities agree
        differs = ~((actual == expected) | (np.abs(actual - expected) <= tolerance))
    if real is not None:
        differs &= real.reshape(real.shape + (1,) * (differs.ndim - real.ndim))
    if not differs.any():
        return None
    where = tuple(int(i) for i in np.argwhere(differs)[0])
    axes = ("batch row", "position", "entry", "axis 3", "axis 4")
    if len(where) < 3:  # without positions
        axes = ("batch row", "entry")
    place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, where, strict=False))
    return (
        f"{place}: expected {expected[where]:.7g}, got {actual[where]:.7g} "
        f"(tolerance {tolerance:.2g}; {differs.sum()} of {differs.size} values differ)"
    )


def require_same(actual, expected, tolerance=0.0, real=None, *, what, causes):
    """Raises what `failure` says if two outputs differ."""
    if actual.shape != expected.shape:
        raise AssertionError(
            failure(what, f"the shape was {expected.shape} and is {actual.shape}", causes)
        )
    difference = first_difference(actual, expected, tolerance, real)
    if difference:
        raise AssertionError(failure(what, difference, causes))


def failure(what, difference, causes):
    return f"{what}\nFirst difference: {difference}.\nUsual causes: {causes}."
