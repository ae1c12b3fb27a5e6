"""How the certificates call a model and compare its outputs."""

import contextlib
import types
from collections.abc import Callable
from typing import Any, NoReturn

import keras
import numpy as np
from keras import ops

from keras_transformer.ops.compilation import compile_with_weights
from keras_transformer.ops.random_bits import generator_restored

# Rounding of a few dozen operations, relative to the largest output. It matters if two calls have
# different shapes, and so may add in another order. Calls of one shape are compared to the bit.
ROUNDING = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 6e-2}

Arrays = dict[str, np.ndarray]


def named(inputs: Any) -> tuple[Arrays, Callable[[dict[str, Any]], Any]]:
    """Returns the inputs of a model as {name: array}, and the function that packs them up again."""
    if isinstance(inputs, dict):
        return {name: np.asarray(array) for name, array in inputs.items()}, dict
    if isinstance(inputs, list | tuple):
        names = {f"inputs[{i}]": np.asarray(array) for i, array in enumerate(inputs)}
        return names, lambda arrays: list(arrays.values())
    return {"inputs": np.asarray(inputs)}, lambda arrays: arrays["inputs"]


def symbols(arrays: Arrays) -> dict[str, Any]:
    """Returns a `keras.Input` for each array."""
    return {name: keras.Input(x.shape[1:], dtype=x.dtype.name) for name, x in arrays.items()}


def is_ids(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.dtype.kind in "iu"


def other_values(array: np.ndarray) -> np.ndarray:
    """Returns an array that differs at every place. Ids become other ids that occur in it."""
    if array.dtype.kind in "iu":
        largest = int(array.max())
        if largest < 2:
            raise ValueError(
                "The ids are to be changed into other real ids, but there is none above 1. Give "
                "inputs with several different ids."
            )
        return (array % largest + 1).astype(array.dtype)
    if array.dtype.kind != "f":
        return ~array
    # Not a shift or a scale, because a layer normalisation would undo either.
    spread = max(float(array.std()), 1e-3)
    return np.random.default_rng(0).normal(scale=spread, size=array.shape).astype(array.dtype)


class Runner:
    """A model as a function of its inputs that changes nothing and always draws the same dropout.

    It maps {name: array} to the output in NumPy float32. `arrays` are the example inputs, and
    `expected` is the output for them. The arguments are those of the certificates.
    """

    def __init__(
        self,
        model: Any,
        inputs: Any,
        training: bool = False,
        jit: bool = False,
        tolerance: float | None = None,
    ) -> None:
        self.model, self.training = model, training
        self.arrays, self.pack = named(inputs)
        is_layer = isinstance(model, keras.layers.Layer)
        self._arguments = {"training": training} if is_layer or training else {}
        self._call = self._output
        if is_layer and not model.built:
            self._call(*self.arrays.values())
        if jit:
            stateful = model if is_layer else types.SimpleNamespace(variables=[])
            self._call = compile_with_weights(self._output, stateful)
        # Dropout is drawn from seed generators whose states are variables. With the states restored
        # after each call, two calls differ only by their inputs. The moving averages of a
        # normalisation are restored too.
        states = model.non_trainable_variables if is_layer and training else []
        self._states = [(state, np.array(ops.convert_to_numpy(state))) for state in states]
        self.expected = self(self.arrays)
        self.tolerance = rounding(model, self.expected) if tolerance is None else tolerance
        self.require_same(
            self(self.arrays),
            what="The same inputs gave two different outputs, or NaN"
            + (", although all seed generators of the model were set back." if training else "."),
            causes="dropout that is on at inference; random numbers that come from no "
            "keras.random.SeedGenerator of the model; inputs that hold NaN",
            tolerance=0.0,
        )

    def _output(self, *values):
        values = [ops.convert_to_tensor(value) for value in values]
        inputs = self.pack(dict(zip(self.arrays, values, strict=True)))
        output = self.model(inputs, **self._arguments)
        if isinstance(output, dict | list | tuple):
            raise ValueError(
                f"A certificate looks at one output tensor, but the model returned {type(output)} "
                f"of {len(output)}. Wrap it in a keras.Model with the output that is meant."
            )
        return ops.cast(output, "float32")

    def __call__(self, arrays: Arrays) -> np.ndarray:
        try:
            with generator_restored() if self.training else contextlib.nullcontext():
                return np.array(ops.convert_to_numpy(self._call(*arrays.values())))
        finally:
            for state, value in self._states:
                state.assign(value)

    def run_changed(self, arrays: Arrays, how: str) -> np.ndarray:
        """Runs changed inputs. If the model cannot take them, the error says `how` they changed."""
        try:
            return self(arrays)
        except Exception as error:
            raise AssertionError(
                f"The model runs on the inputs as given and fails with {how}: {error}"
            ) from error

    def changed(self, name: str, position: int) -> Arrays:
        """Returns the inputs with all rows of input `name` changed at one position."""
        array = self.arrays[name].copy()
        array[:, position] = other_values(self.arrays[name])[:, position]
        return {**self.arrays, name: array}

    def choose(self, chosen: str | int | None, role: str) -> str:
        """Returns the name of the input that is the `role`, "source" or "target".

        Unless chosen it is `source_ids` or `target_ids`, or the first or last input.
        """
        names = list(self.arrays)
        name = f"inputs[{chosen}]" if isinstance(chosen, int) else chosen or f"{role}_ids"
        if name in names:
            return name
        if chosen is None and role == "source" and len(names) == 1:
            raise ValueError(
                "A model with a single input has no source: nothing to be sensitive to."
            )
        if chosen is None and all(name.startswith("inputs") for name in names):
            return names[0 if role == "source" else -1]
        raise ValueError(f"{role}={chosen!r} names no input: choose one of {', '.join(names)}.")

    def real_positions(self, name: str, pad_id: int = 0) -> np.ndarray:
        """Returns which outputs are compared: those of real tokens, if they have positions."""
        ids = self.arrays[name]
        if is_ids(ids) and self.expected.shape[:2] == ids.shape:
            return ids != pad_id
        return np.ones(self.expected.shape[:1], bool)

    def require_same(self, actual: np.ndarray, **options: Any) -> None:
        """Raises an error if an output differs from `expected`. Options as in `require_same`."""
        require_same(actual, self.expected, **{"tolerance": self.tolerance, **options})


def rounding(model: Any, expected: np.ndarray) -> float:
    """Returns what rounding may change, in the coarsest dtype that the model computes in."""
    parts = [model, *getattr(model, "layers", [])]
    dtypes = {getattr(part, "compute_dtype", None) or "float32" for part in parts}
    finite = np.abs(expected[np.isfinite(expected)])
    return max(ROUNDING.get(dtype, 0.0) for dtype in dtypes) * max(finite.max(initial=0.0), 1e-3)


def require_same(
    actual: np.ndarray,
    expected: np.ndarray,
    *,
    what: str,
    causes: str,
    tolerance: float = 0.0,
    real: np.ndarray | None = None,
) -> None:
    """Raises an error that says where two outputs [B, ...] first differ.

    Args:
        actual, expected: The outputs.
        what: What is wrong if they differ, a sentence.
        causes: What usually causes it.
        tolerance: The largest difference that is accepted. NaN always differs.
        real: Booleans [B] or [B, T]; only where they are True the outputs are compared.
    """
    if actual.shape != expected.shape:
        fail(what, causes, f"the shape was {expected.shape} and is {actual.shape}")
    with np.errstate(invalid="ignore"):  # inf - inf; equal infinities agree
        differs = ~((actual == expected) | (np.abs(actual - expected) <= tolerance))
    if real is not None:
        differs &= real.reshape(real.shape + (1,) * (differs.ndim - real.ndim))
    if not differs.any():
        return
    where = tuple(int(i) for i in np.argwhere(differs)[0])
    axes = ["batch row", "position", "entry", "axis 3", "axis 4"]
    if len(where) < 3:
        axes.remove("position")
    place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, where, strict=False))
    fail(
        what,
        causes,
        f"{place}: expected {expected[where]:.7g}, got {actual[where]:.7g} "
        f"(tolerance {tolerance:.2g}; {differs.sum()} of {differs.size} values differ)",
    )


def require_close(actual: float, expected: float, tolerance: float, what: str, causes: str) -> None:
    """Raises an error if two losses differ by more than a share of them, or one is NaN."""
    if not abs(actual - expected) <= tolerance * abs(expected):
        fail(what, causes, f"expected {expected:.7g}, got {actual:.7g}")


def fail(what: str, causes: str, difference: str = "") -> NoReturn:
    """Raises an `AssertionError` of what is wrong, where first, and what usually causes it."""
    first = f"First difference: {difference}.\n" if difference else ""
    raise AssertionError(f"{what}\n{first}Usual causes: {causes}.")
