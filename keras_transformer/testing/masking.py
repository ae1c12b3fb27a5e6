"""Padding: it changes nothing, and a row of nothing else is finite, its gradients too."""

import keras
import numpy as np
from keras import ops

from keras_transformer.testing import running

# Distinct, so that rows are not taken for columns.
COLUMNS, ROWS = 3, 2


def assert_padding_invariant(model, inputs, *, target=None, pad_id=0, jit=False, tolerance=None):
    """More padding, as columns at the right or as rows, changes the output of no real token.

    Args:
        model: a Keras model, or any function of `inputs`, with one output [B, T, ...] or [B, ...].
        inputs: example inputs, of which at least one holds ids [B, T]: an array, or a list or a
            dictionary of them. Boolean masks [B, T] beside them grow with False.
        target: the input whose positions are those of the output, a key or an index. By default
            `"target_ids"`, the last of a list, or the only one.
        pad_id: the id of padding.
        jit: whether the model is compiled by XLA, where the backend has it.
        tolerance: the largest difference that is none; by default what rounding in the model's
            compute dtype explains.

    Raises:
        AssertionError: with the first value that padding changed, and what usually causes it.

    Example:

    ```python
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7, 4, 9]])}
    kt.testing.assert_padding_invariant(model, ids)
    ```
    """
    run, arrays, expected = running.runner(model, inputs, jit=jit)
    sides = _sides(arrays)
    target = running.choose(arrays, target, "target")
    real = running.real_positions(arrays, target, expected, pad_id)
    tolerance = running.rounding(model, expected) if tolerance is None else tolerance

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
    ways = [([name, *_masks_of(arrays, masks, name)], 0, COLUMNS) for name in sides]
    if len(sides) > 1:
        ways.append(([*sides, *masks], 0, COLUMNS))
    ways.append(([], ROWS, 0))
    for names, rows, columns in ways:
        how = f"{columns} more pad columns in {' and '.join(names)}" if columns else ""
        how = how or f"{rows} more rows of padding alone"
        actual = running.run_changed(run, padded(names, rows, columns), how)
        actual = actual[tuple(slice(n) for n in expected.shape[:2])]
        running.require_same(
            actual,
            expected,
            tolerance,
            real,
            what=f"Padding matters: {how} changed the output of real tokens.",
            causes="a mask that does not reach the attention, its keys or the cross-attention's "
            "memory (Keras drops implicit masks where a plain operation is used); the source's "
            "mask made from the target; pooling or normalising over all positions; positions "
            "counted from the end",
        )


def _sides(arrays):
    sides = [name for name, array in arrays.items() if running.is_ids(array)]
    if not sides:
        kinds = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
        raise ValueError(
            f"Padding is an id, and no input holds integer ids [B, T]: got {kinds}. Put a layer of "
            "floats behind a kt.layers.PositionalEmbedding in a keras.Model."
        )
    return sides


def _masks_of(arrays, masks, name):
    return [mask for mask in masks if arrays[mask].shape == arrays[name].shape]


def assert_finite_when_masked(model, inputs, *, pad_id=0, gradients=True, jit=False):
    """A row of nothing but padding, on one side or on all, gives finite outputs and gradients.

    Such rows fill a batch up to its shape. Weighted with 0 in the loss they still spoil the whole
    update if they are NaN, for 0 times NaN is NaN.

    Args:
        model: a Keras model, or any function of `inputs`, with one output [B, ...].
        inputs: example inputs, of which at least one holds ids [B, T]: an array, or a list or a
            dictionary of them.
        pad_id: the id of padding.
        gradients: whether to look at the gradients of the mean squared output by the trainable
            weights as well; only of Keras models and layers.
        jit: whether the outputs are computed under XLA, where the backend has it.

    Raises:
        AssertionError: with the first value that is not finite, and what usually causes it.

    Example:

    ```python
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7, 4, 9]])}
    kt.testing.assert_finite_when_masked(model, ids)
    ```
    """
    run, arrays, _ = running.runner(model, inputs, jit=jit)
    _, pack = running.named(inputs)
    sides = _sides(arrays)
    causes = (
        "a softmax over scores that are all -inf (a large finite number gives an average instead); "
        "a mean divided by the number of real tokens, 0 here; NaN replaced by 0 after the softmax, "
        "which leaves NaN in the gradient"
    )
    for names in [[name] for name in sides] + [sides] * (len(sides) > 1):
        blank = {name: array.copy() for name, array in arrays.items()}
        for name in names:
            blank[name][0] = pad_id
        which = f"row 0 of {' and '.join(names)} all padding"
        output = running.run_changed(run, blank, which)
        _require_finite(output, f"The output is not finite with {which}.", causes)
        if gradients and isinstance(model, keras.layers.Layer):
            for path, gradient in _gradients(model, pack(blank)):
                what = f"The gradient of {path} is not finite with {which}; the output is."
                _require_finite(gradient, what, causes)


def _require_finite(array, what, causes):
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        difference = f"{array[where]} at {list(where)}; {(~finite).sum()} of {array.size} values"
        raise AssertionError(running.failure(what, difference, causes))


def _gradients(model, inputs):
    """(path, gradient) of the mean squared output by each trainable weight that it depends on."""
    variables = model.trainable_variables
    if not variables:
        return
    backend = keras.backend.backend()

    def loss(output):
        return ops.mean(ops.square(ops.cast(output, "float32")))

    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss(model(inputs, training=False))
        gradients = tape.gradient(value, [v.value for v in variables])
        gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
    elif backend == "jax":
        import jax

        others = [v.value for v in model.non_trainable_variables]

        def stateless(weights):
            return loss(model.stateless_call(weights, others, inputs, training=False)[0])

        gradients = jax.grad(stateless)([v.value for v in variables])
    else:
        import torch

        value = loss(model(inputs, training=False))
        gradients = torch.autograd.grad(value, [v.value for v in variables], allow_unused=True)
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            yield variable.path, ops.convert_to_numpy(ops.cast(gradient, "float32"))


def assert_honours_implicit_masks(layer, inputs, masks, *, options=None):
    """A mask that a tensor carries does what the same mask does as an argument, which wins.

    ```
    layer(x carrying m, **options) == layer(x, mask=m, **options)      for every choice of options
    layer(x carrying another, mask=m, **options) == the same
    ```

    Keras fills in `mask` while a layer is called with one tensor, and `<argument>_mask` as soon as
    there is a second one; a layer that has only the first loses its mask then, without a word. The
    options are left out, given one by one, and given all together: by plain calls and, with all of
    them, in a compiled functional model.

    Args:
        layer: a Keras layer.
        inputs: `{call argument: floats [B, T, D]}`, what the layer is always called with.
        masks: `{call argument: (the argument of its mask, booleans [B, T])}`, for one or more of
            the inputs.
        options: `{call argument: array}`, further tensors that the layer can be called with.

    Raises:
        AssertionError: with the first value that differs, and what usually causes it; or if the
            masks change nothing, so that the law says nothing.

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
            raise AssertionError(
                f"The masks {', '.join(explicit)} change no output, so the law says nothing.\n"
                "Usual causes: a mask that is True everywhere; a layer that does not read it."
            )
        found = {"its tensor": _first(layer(**_carrying(given, implicit)))}
        if chosen is choices[-1]:
            found["its tensor in a functional model"] = _in_a_model(layer, given, implicit)
        another = {name: np.logical_not(mask) for name, mask in implicit.items()}
        running.require_same(
            _first(layer(**_carrying(given, another), **explicit)),
            expected,
            running.rounding(layer, expected),
            what=f"A mask that is passed gives way, {how}, to another that its tensor carries.",
            causes="`call` prefers the argument that Keras fills in",
        )
        for carrier, actual in found.items():
            running.require_same(
                actual,
                expected,
                running.rounding(layer, expected),
                what=f"A mask is lost: {how}, it does not do what it does as an argument when "
                f"{carrier} carries it.",
                causes="`call` has an argument `mask`, and none that is named after the tensor "
                "(`inputs_mask` for `inputs`), which Keras fills in beside a second tensor; a "
                "layer before that does not set supports_masking; an operation outside of layers, "
                "which drops masks",
            )


class _Carrier(keras.layers.Layer):
    """Hands its input on, carrying the mask that it is given."""

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
    """The first output of the layer as a functional model that Keras compiles for `predict`."""
    symbols, symbolic_masks = (
        {name: keras.Input(x.shape[1:], dtype=x.dtype.name) for name, x in arrays.items()}
        for arrays in (given, masks)
    )
    output = layer(**_carrying(symbols, symbolic_masks))
    model = keras.Model([symbols, symbolic_masks], _first_of(output))
    return model.predict_on_batch([given, masks])


def _first_of(output):
    return output[0] if isinstance(output, list | tuple) else output


def _first(output):
    return np.array(ops.convert_to_numpy(ops.cast(_first_of(output), "float32")))
