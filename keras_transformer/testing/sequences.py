"""What an output may depend on: not the future, not the neighbours in the batch, but the source."""

from typing import Any

import numpy as np

from keras_transformer.testing import running

SWAPPED = "the inputs of encoder and decoder are swapped"


def assert_causal(
    model: Any,
    inputs: Any,
    *,
    target: str | int | None = None,
    training: bool = False,
    jit: bool = False,
    tolerance: float = 0.0,
) -> None:
    """Requires that no output depends on a later token (section 3.2.3).

    ```
    outputs[:, :t] is the same whatever target_ids[:, t] is, for every t
    ```

    With `training=True` all calls draw the same dropout, so a mask that is lost only in training is
    found too.

    Args:
        model: A Keras model or layer, or any function of `inputs`, with one output [B, T, ...].
        inputs: Example inputs: an array, or a list or a dictionary of arrays. Each holds ids
            [B, T], padded or not, or floats [B, T, D].
        target: The causal input, a key or an index. Unless given it is `"target_ids"`, or the last
            input.
        training: Whether the model is called with `training=True`.
        jit: Whether XLA compiles the model, on backends that have it.
        tolerance: The largest difference that is accepted. It is 0, because all calls have one
            shape.

    Raises:
        AssertionError: If a position depends on a later one. The message says which one is first,
            and what usually causes it.

    Example:

    ```python
    ids = kt.testing.random_inputs(vocabulary_size=100)
    kt.testing.assert_causal(model, ids, training=True)

    attention = kt.layers.MultiHeadAttention(num_heads=2, d_model=8)
    kt.testing.assert_causal(lambda x: attention(x, causal=True), np.random.normal(size=(2, 5, 8)))
    ```
    """
    run = running.Runner(model, inputs, training, jit, tolerance)
    target = run.choose(target, "target")
    length = run.arrays[target].shape[1]
    if run.expected.shape[1:2] != (length,):
        running.fail(
            "The output's positions are not those of the causal input.",
            f"{SWAPPED}; an output without positions, which cannot be causal",
            f"{target} has {length} positions, the output has shape {run.expected.shape}",
        )
    for t in range(length):
        actual = run.run_changed(run.changed(target, t), f"{target}[:, {t}] changed")
        running.require_same(
            actual[:, :t],
            run.expected[:, :t],
            tolerance=tolerance,
            what=f"The model is not causal: changing {target}[:, {t}] changed the output before "
            f"position {t}" + (", in training." if training else "."),
            causes="no causal mask, or one that is lost in training, under dropout or in a fused "
            f"kernel; {SWAPPED}{_swapped_with(run, target)}; a normalisation or "
            "pooling over positions; another mask made from the target (the source's mask)",
        )
        # A model that shifts its target itself does not read the last position.
        if t < max(length - 1, 1) and (actual == run.expected).all():
            running.fail(
                f"The model ignores {target}: changing {target}[:, {t}] changed no output at all, "
                "so causality says nothing.",
                "the input is not connected; its embedding is multiplied by a mask that is 0 "
                "everywhere",
            )


def _swapped_with(run: running.Runner, target: str) -> str:
    """Which other input the model is causal in, in words: evidence for swapped inputs."""
    for name, array in run.arrays.items():
        if name != target and array.shape[:2] == run.arrays[target].shape[:2]:
            outputs = [run(run.changed(name, t)) for t in range(array.shape[1])]
            early = any(
                (output[:, :t] != run.expected[:, :t]).any() for t, output in enumerate(outputs)
            )
            if not early and any((output != run.expected).any() for output in outputs):
                return f" (likely: the model is causal in {name})"
    return ""


def assert_batch_invariant(
    model: Any,
    inputs: Any,
    *,
    training: bool = False,
    jit: bool = False,
    tolerance: float | None = None,
) -> None:
    """Requires that a row of the output depends only on the same row of the inputs.

    ```
    changing the other rows changes nothing; permuting or splitting the batch permutes or splits
    ```

    Args:
        model, inputs, jit: As in `assert_causal`, with an output [B, ...] of at least two rows.
        training: Whether the model is called with `training=True`. Then the batch is neither
            permuted nor split, because dropout depends on the place in the batch.
        tolerance: The largest difference that is accepted. Unless given it is what rounding in the
            model's compute dtype explains, and 0 between calls of one shape.

    Raises:
        AssertionError: If a row depends on its neighbours; with the first difference.
        ValueError: If there is only one row.

    Example:

    ```python
    ids = np.array([[5, 6, 3], [7, 4, 0]])
    kt.testing.assert_batch_invariant(encoder, ids, training=True)
    ```
    """
    run = running.Runner(model, inputs, training, jit, tolerance)
    arrays, rows = run.arrays, len(run.expected)
    if rows < 2:
        raise ValueError(f"The output has {rows} row, and only two or more can be mixed up.")
    causes = (
        "a normalisation over the batch (BatchNormalization); attention or pooling over the "
        "flattened batch; a mask or a maximum taken over all rows; a state kept between calls"
    )
    others = {name: running.other_values(array) for name, array in arrays.items()}
    for row in range(rows):
        mixed = {name: array.copy() for name, array in others.items()}
        for name in arrays:
            mixed[name][row] = arrays[name][row]
        run.require_same(
            run(mixed),
            tolerance=tolerance or 0.0,
            real=np.arange(rows) == row,
            what=f"The batch matters: changing all other rows changed row {row}"
            + (", in training." if training else "."),
            causes=causes,
        )
    if training:
        return
    order = np.roll(np.arange(rows), 1)
    running.require_same(
        run({name: array[order] for name, array in arrays.items()}),
        run.expected[order],
        tolerance=run.tolerance,
        what=f"The batch matters: its rows in the order {order.tolist()} gave other outputs.",
        causes=causes,
    )
    alone = [
        run.run_changed({name: array[[row]] for name, array in arrays.items()}, f"row {row} alone")
        for row in range(rows)
    ]
    run.require_same(
        np.concatenate(alone),
        what="The batch matters: a row alone gave another output than in the batch.",
        causes=causes,
    )


def assert_source_sensitive(
    model: Any,
    inputs: Any,
    *,
    source: str | int | None = None,
    target: str | int | None = None,
    pad_id: int = 0,
    jit: bool = False,
) -> None:
    """Requires that every real source token reaches the output at every real target position.

    ```
    outputs[row, t] changes with source_ids[row, s], for every real s and t
    ```

    Args:
        model, inputs, jit: As in `assert_causal`, with two inputs or more.
        source, target: The two inputs, keys or indices. Unless given they are `"source_ids"` and
            `"target_ids"`, or the first and the last of a list.
        pad_id: The id of padding, which need not reach anything.

    Raises:
        AssertionError: If a token does not reach a position; with the first such pair.

    Example:

    ```python
    kt.testing.assert_source_sensitive(model, kt.testing.random_inputs(vocabulary_size=100))
    ```
    """
    run = running.Runner(model, inputs, jit=jit)
    source, target = run.choose(source, "source"), run.choose(target, "target")
    ids, expected = run.arrays[source], run.expected
    real = run.real_positions(target, pad_id)
    real = np.broadcast_to(
        real.reshape(*real.shape, *[1] * (2 - real.ndim)), expected.shape[:2]
    )  # [B, T]
    tokens = ids != pad_id if running.is_ids(ids) else np.ones(ids.shape[:2], bool)  # [B, S]
    length = ids.shape[1]
    outputs = [run(run.changed(source, s)) for s in range(length)]
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
    running.fail(
        f"{what}\nFirst: batch row {row}, {source}[{row}, {s}] does not reach position {t}, where "
        f"the output stayed {np.ravel(expected[row, t])[0]:.7g} ({deaf.sum()} such pairs).",
        causes,
    )
