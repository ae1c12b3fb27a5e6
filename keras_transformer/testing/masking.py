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
