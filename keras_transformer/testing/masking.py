"""Padding changes nothing, and rows of only padding give finite outputs and gradients."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transformer.ops.gradients import gradients_by_weights
from keras_transformer.testing import running

# Distinct, so that rows are not taken for columns.
COLUMNS, ROWS = 3, 2


def assert_padding_invariant(
    model: Any,
    inputs: Any,
    *,
    target: str | int | None = None,
    pad_id: int = 0,
    jit: bool = False,
    tolerance: float | None = None,
) -> None:
    """Requires that more padding, as columns or rows, changes the output of no real token.

    Args:
        model: A Keras model, or any function of `inputs`, with one output [B, T, ...] or [B, ...].
        inputs: Example inputs: an array, or a list or a dictionary of arrays. At least one holds
            ids [B, T]. Boolean masks [B, T] beside them are extended by False.
        target: The input whose positions are those of the output, a key or an index. Unless given
            it is `"target_ids"`, or the last input.
        pad_id: The id of padding.
        jit: Whether XLA compiles the model, on backends that have it.
        tolerance: The largest difference that is accepted. Unless given it is what rounding in the
            model's compute dtype explains.

    Raises:
        AssertionError: If padding changes an output; with the first difference.

    Example:

    ```python
    kt.testing.assert_padding_invariant(model, kt.testing.random_inputs(vocabulary_size=100))
    ```
    """
    run = running.Runner(model, inputs, jit=jit, tolerance=tolerance)
    arrays, sides = run.arrays, _sides(run.arrays)
    real = run.real_positions(run.choose(target, "target"), pad_id)

    def padded(names, rows, columns):
        widths = {name: (0, columns if name in names else 0) for name in arrays}
        return {
            name: np.pad(
                array,
                ((0, rows), widths[name], *[(0, 0)] * (array.ndim - 2))[: array.ndim],
                constant_values=pad_id if running.is_ids(array) else 0,
            )
            for name, array in arrays.items()
        }

    masks = [name for name, array in arrays.items() if array.dtype.kind == "b" and array.ndim == 2]
    ways = [
        ([name, *(mask for mask in masks if arrays[mask].shape == arrays[name].shape)], 0, COLUMNS)
        for name in sides
    ]
    if len(sides) > 1:
        ways.append(([*sides, *masks], 0, COLUMNS))
    ways.append(([], ROWS, 0))
    for names, rows, columns in ways:
        how = f"{columns} more pad columns in {' and '.join(names)}" if columns else ""
        how = how or f"{rows} more rows of only padding"
        actual = run.run_changed(padded(names, rows, columns), how)
        run.require_same(
            actual[tuple(slice(n) for n in run.expected.shape[:2])],
            real=real,
            what=f"Padding matters: {how} changed the output of real tokens.",
            causes="a mask that does not reach the attention, its keys or the cross-attention's "
            "memory (Keras drops implicit masks where a plain operation is used); the source's "
            "mask made from the target; pooling or normalising over all positions; positions "
            "counted from the end",
        )


def _sides(arrays: running.Arrays) -> list[str]:
    sides = [name for name, array in arrays.items() if running.is_ids(array)]
    if not sides:
        kinds = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
        raise ValueError(
            f"Padding is an id, and no input holds integer ids [B, T]: got {kinds}. Put a layer of "
            "floats behind a kt.layers.PositionalEmbedding in a keras.Model."
        )
    return sides


def assert_finite_when_masked(
    model: Any, inputs: Any, *, pad_id: int = 0, gradients: bool = True, jit: bool = False
) -> None:
    """Requires finite outputs and gradients for a row of only padding, on one side or on all.

    Such rows fill a batch up to its shape. Their weight in the loss is 0, but 0 times NaN is NaN,
    so NaN there would spoil the whole update.

    Args:
        model, inputs, pad_id, jit: As in `assert_padding_invariant`.
        gradients: Whether to check the gradients of the mean squared output by the trainable
            weights as well. Only for Keras models and layers.

    Raises:
        AssertionError: If a value is not finite; with the first one.

    Example:

    ```python
    kt.testing.assert_finite_when_masked(model, kt.testing.random_inputs(vocabulary_size=100))
    ```
    """
    run = running.Runner(model, inputs, jit=jit)
    sides = _sides(run.arrays)
    variables = model.trainable_variables if isinstance(model, keras.layers.Layer) else []
    for names in [[name] for name in sides] + [sides] * (len(sides) > 1):
        blank = {name: array.copy() for name, array in run.arrays.items()}
        for name in names:
            blank[name][0] = pad_id
        which = f"row 0 of {' and '.join(names)} all padding"
        output = run.run_changed(blank, which)
        _require_finite(output, f"The output is not finite with {which}.")
        if not (gradients and variables):
            continue
        inputs = run.pack({name: ops.convert_to_tensor(array) for name, array in blank.items()})
        found = gradients_by_weights(functools.partial(_mean_square, model, inputs), variables)
        for variable, gradient in zip(variables, found, strict=True):
            if gradient is not None:
                _require_finite(
                    ops.convert_to_numpy(ops.cast(gradient, "float32")),
                    f"The gradient of {variable.path} is not finite with {which}; the output is.",
                )


def _mean_square(model: Any, inputs: Any) -> Any:
    return ops.mean(ops.square(ops.cast(model(inputs, training=False), "float32")))


def _require_finite(array: np.ndarray, what: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        running.fail(
            what,
            "a softmax over scores that are all -inf (a large finite number gives an average "
            "instead); a mean divided by the number of real tokens, 0 here; NaN replaced by 0 "
            "after the softmax, which leaves NaN in the gradient",
            f"{array[where]} at {list(where)}; {(~finite).sum()} of {array.size} values",
        )


def assert_honours_implicit_masks(
    layer: Any,
    inputs: dict[str, np.ndarray],
    masks: dict[str, tuple[str, np.ndarray]],
    *,
    options: dict[str, np.ndarray] | None = None,
) -> None:
    """Requires that a mask that a tensor carries does the same as the mask as an argument.

    ```
    layer(x carrying m, **options) == layer(x, mask=m, **options)      for every choice of options
    layer(x carrying another, mask=m, **options) == the same
    ```

    If both are given, the argument wins. Keras fills in `mask` if a layer is called with one
    tensor, and `<argument>_mask` if it is called with several. So a layer that has only the first
    silently loses its mask beside a second tensor. The options are left out, given one by one, and
    given all together: by plain calls and, all together, in a compiled functional model.

    Args:
        layer: A Keras layer.
        inputs: `{call argument: floats [B, T, D]}`, what the layer is always called with.
        masks: `{call argument: (the argument of its mask, booleans [B, T])}`, for one or more of
            the inputs.
        options: `{call argument: array}`, further tensors that the layer can be called with.

    Raises:
        AssertionError: If an output differs, or if the masks change nothing, so that nothing is
            tested.

    Example:

    ```python
    x, mask = np.random.normal(size=(2, 5, 8)), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    kt.testing.assert_honours_implicit_masks(
        kt.layers.EncoderLayer(d_model=8, num_heads=2, d_ff=16),
        {"inputs": x},
        {"inputs": ("mask", mask)},
        options={"attention_mask": np.tri(5, dtype=bool)[None]},
    )
    ```
    """
    options = options or {}
    explicit = {argument: mask for argument, mask in masks.values()}
    implicit = {name: mask for name, (_, mask) in masks.items()}
    choices = [{}, *({name: value} for name, value in options.items())]
    choices += [options] if len(options) > 1 else []
    for chosen in choices:
        given = {**inputs, **chosen}
        how = f"with {' and '.join(chosen)}" if chosen else "with no other tensor"
        expected = _first(layer(**given, **explicit))
        if not chosen and (_first(layer(**given)) == expected).all():
            running.fail(
                f"The masks {', '.join(explicit)} change no output, so the law says nothing.",
                "a mask that is True everywhere; a layer that does not read it",
            )
        tolerance = running.rounding(layer, expected)
        another = {name: np.logical_not(mask) for name, mask in implicit.items()}
        running.require_same(
            _first(layer(**_carrying(given, another), **explicit)),
            expected,
            tolerance=tolerance,
            what=f"A mask that is passed gives way, {how}, to another that its tensor carries.",
            causes="`call` prefers the argument that Keras fills in",
        )
        found = {"its tensor": _first(layer(**_carrying(given, implicit)))}
        if chosen is choices[-1]:
            found["its tensor in a functional model"] = _in_a_model(layer, given, implicit)
        for carrier, actual in found.items():
            running.require_same(
                actual,
                expected,
                tolerance=tolerance,
                what=f"A mask is lost: {how}, it does not do what it does as an argument when "
                f"{carrier} carries it.",
                causes="`call` has an argument `mask`, and none that is named after the tensor "
                "(`inputs_mask` for `inputs`), which Keras fills in beside a second tensor; a "
                "layer before that does not set supports_masking; an operation outside of layers, "
                "which drops masks",
            )


class _Carrier(keras.layers.Layer):
    """Returns its input, which then carries the given mask."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return 1 * inputs


def _carrying(tensors, masks):
    return {
        name: _Carrier()(tensor, mask=masks[name]) if name in masks else tensor
        for name, tensor in tensors.items()
    }


def _in_a_model(layer, given, masks):
    """Returns the first output of the layer in a functional model that `predict` compiles."""
    symbols = [running.symbols(arrays) for arrays in (given, masks)]
    model = keras.Model(symbols, layer(**_carrying(*symbols)))
    return _first(model.predict_on_batch([given, masks]))


def _first(output):
    output = output[0] if isinstance(output, list | tuple) else output
    return np.array(ops.convert_to_numpy(ops.cast(output, "float32")))
