"""What an output may depend on: not the future, not the neighbours in the batch, but the source."""

import numpy as np

from keras_transformer.testing import running

SWAPPED = "the inputs of encoder and decoder are swapped"


def assert_causal(model, inputs, *, target=None, training=False, jit=False, tolerance=0.0):
    """No output depends on a later token (paper, section 3.2.3).

    ```
    outputs[:, :t] is the same whatever target_ids[:, t] is, for every t
    ```

    With `training=True` every call draws the same dropout, so a mask that is lost in training
    alone is seen too.

    Args:
        model: a Keras model or layer, or any function of `inputs`, with one output [B, T, ...].
        inputs: example inputs: an array, or a list or a dictionary of them. Ids [B, T], padded
            or not, or floats [B, T, D].
        target: the causal input, a key or an index. By default `"target_ids"`, the last of a list,
            or the only one.
        training: whether the model is called with `training=True`.
        jit: whether the model is compiled by XLA, where the backend has it.
        tolerance: the largest difference that is none; all calls have one shape, hence 0.

    Raises:
        AssertionError: with the first position that saw its future, and what usually causes it.

    Example:

    ```python
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7, 4, 9]])}
    kt.testing.assert_causal(model, ids, training=True)

    attention = kt.layers.MultiHeadAttention(num_heads=2, d_model=8)
    kt.testing.assert_causal(lambda x: attention(x, causal=True), np.random.normal(size=(2, 5, 8)))
    ```
    """
    run, arrays, expected = running.runner(model, inputs, training, jit)
    target = running.choose(arrays, target, "target")
    length = arrays[target].shape[1]
    if expected.shape[1:2] != (length,):
        raise AssertionError(
            running.failure(
                "The output's positions are not those of the causal input.",
                f"{target} has {length} positions, the output has shape {expected.shape}",
                f"{SWAPPED}; an output without positions, which cannot be causal",
            )
        )
    for t in range(length):
        actual = running.run_changed(
            run, running.changed(arrays, target, t), f"{target}[:, {t}] changed"
        )
        running.require_same(
            actual[:, :t],
            expected[:, :t],
            tolerance,
            what=f"The model is not causal: changing {target}[:, {t}] changed the output before "
            f"position {t}" + (", in training." if training else "."),
            causes="no causal mask, or one that is lost in training, under dropout or in a fused "
            f"kernel; {SWAPPED}{_swapped_with(run, arrays, target, expected)}; a normalisation or "
            "pooling over positions; another mask made from the target (the source's mask)",
        )
        # The last one is heard by nobody in a model that shifts its target itself.
        if t < max(length - 1, 1) and (actual == expected).all():
            raise AssertionError(
                f"The model ignores {target}: changing {target}[:, {t}] changed no output at all, "
                "so causality says nothing.\nUsual causes: the input is not connected; its "
                "embedding is multiplied by a mask that is 0 everywhere."
            )


def _swapped_with(run, arrays, target, expected):
    """Which other input the model is causal in, in words: evidence for swapped inputs."""
    for name, array in arrays.items():
        if name != target and array.shape[:2] == arrays[target].shape[:2]:
            outputs = [run(running.changed(arrays, name, t)) for t in range(array.shape[1])]
            early = any(
                (output[:, :t] != expected[:, :t]).any() for t, output in enumerate(outputs)
            )
            if not early and any((output != expected).any() for output in outputs):
                return f" (likely: the model is causal in {name})"
    return ""


def assert_batch_invariant(model, inputs, *, training=False, jit=False, tolerance=None):
    """A row of the output depends on the same row of the inputs alone.

    ```
    changing the other rows changes nothing; permuting or splitting the batch permutes or splits
    ```

    Args:
        model: a Keras model or layer, or any function of `inputs`, with one output [B, ...].
        inputs: example inputs with at least two rows: an array, or a list or dictionary of them.
        training: whether the model is called with `training=True`. Dropout is drawn for a place in
            the batch, so then the other rows are changed, and nothing is permuted or split.
        jit: whether the model is compiled by XLA, where the backend has it.
        tolerance: the largest difference that is none; by default what rounding in the model's
            compute dtype explains (0 where the shapes are equal).

    Raises:
        AssertionError: with the first value that a neighbour changed, and what usually causes it.

    Example:

    ```python
    ids = np.array([[5, 6, 3], [7, 4, 0]])
    kt.testing.assert_batch_invariant(encoder, ids, training=True)
    ```
    """
    run, arrays, expected = running.runner(model, inputs, training, jit)
    rows = len(expected)
    if rows < 2:
        raise ValueError(f"Rows can be mixed up from two on, the output has {rows}: give more.")
    causes = (
        "a normalisation over the batch (BatchNormalization); attention or pooling over the "
        "flattened batch; a mask or a maximum taken over all rows; a state kept between calls"
    )
    others = {name: running.other_values(array) for name, array in arrays.items()}
    for row in range(rows):
        mixed = {name: array.copy() for name, array in others.items()}
        for name in arrays:
            mixed[name][row] = arrays[name][row]
        running.require_same(
            run(mixed),
            expected,
            tolerance or 0.0,
            np.arange(rows) == row,
            what=f"The batch matters: changing all other rows changed row {row}"
            + (", in training." if training else "."),
            causes=causes,
        )
    if training:
        return
    tolerance = running.rounding(model, expected) if tolerance is None else tolerance
    order = np.roll(np.arange(rows), 1)
    permuted = run({name: array[order] for name, array in arrays.items()})
    what = f"The batch matters: its rows in the order {order.tolist()} gave other outputs."
    running.require_same(permuted, expected[order], tolerance, what=what, causes=causes)
    alone = [
        running.run_changed(
            run, {name: array[row : row + 1] for name, array in arrays.items()}, f"row {row} alone"
        )
        for row in range(rows)
    ]
    what = "The batch matters: a row alone gave another output than in the batch."
    running.require_same(np.concatenate(alone), expected, tolerance, what=what, causes=causes)


def assert_source_sensitive(model, inputs, *, source=None, target=None, pad_id=0, jit=False):
    """Every real source token reaches the output at every real target position.

    ```
    outputs[row, t] changes with source_ids[row, s], for every real s and t
    ```

    Args:
        model: a Keras model, or any function of `inputs`, with one output [B, T, ...].
        inputs: example inputs, a list or a dictionary of arrays.
        source, target: the two inputs, keys or indices. By default `"source_ids"` and
            `"target_ids"`, or the first and the last of a list.
        pad_id: the id of padding, which is not to reach anything.
        jit: whether the model is compiled by XLA, where the backend has it.

    Raises:
        AssertionError: with the source tokens that are not heard, and what usually causes it.

    Example:

    ```python
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7, 4, 9]])}
    kt.testing.assert_source_sensitive(model, ids)
    ```
    """
    run, arrays, expected = running.runner(model, inputs, jit=jit)
    source = running.choose(arrays, source, "source")
    target = running.choose(arrays, target, "target")
    real = running.real_positions(arrays, target, expected, pad_id)
    real = np.broadcast_to(
        real.reshape(*real.shape, *[1] * (2 - real.ndim)), expected.shape[:2]
    )  # [B, T]
    length = arrays[source].shape[1]
    tokens = np.ones(arrays[source].shape[:2], bool)
    if running.is_ids(arrays[source]):
        tokens = arrays[source] != pad_id  # [B, S]
    outputs = [run(running.changed(arrays, source, s)) for s in range(length)]
    reached = np.stack(
        [(output != expected).reshape(*real.shape, -1).any(-1) for output in outputs], axis=1
    )  # [B, S, T]
    deaf = tokens[:, :, None] & real[:, None, :] & ~reached
    if not deaf.any():
        return
    row, s, t = (int(i) for i in np.argwhere(deaf)[0])
    if not reached.any():
        what = f"The model ignores {source}: changing any of it changed no output at all."
        causes = "no cross-attention, or one that reads the target; the memory masked everywhere"
    elif not any(reached[:, i, :i].any() for i in range(length)):
        what = f"The model reads {source} causally: its tokens reach no position before theirs."
        causes = SWAPPED
    else:
        what = f"Some tokens of {source} do not reach some positions of the output."
        causes = (
            "the source's mask made from the target, or from another row; a source cut short; a "
            "causal mask on the memory"
        )
    raise AssertionError(
        f"{what}\nFirst: batch row {row}, {source}[{row}, {s}] does not reach position {t}, where "
        f"the output stayed {np.ravel(expected[row, t])[0]:.7g} ({deaf.sum()} such pairs).\n"
        f"Usual causes: {causes}."
    )
