"""Counts how often a layer is applied until position 1 of its input reaches position n."""

import functools

import jax
import keras
from jax import numpy as jnp
from keras import ops
from table1 import layers

ROWS = {
    **{row: row for row in layers.ROWS if not row.endswith("core")},
    "convolution, dilated": "convolution",
}


def path_length(row, n, d, neighbourhood, kernel):
    """Returns how many applications the last output needs before it depends on the first input.

    It follows derivatives through the applications: a position is reached if its derivative by a
    reached position is not 0. For a layer that sees all inputs at once the result is the height of
    the stack of layers. For a recurrent layer it is the number of steps in between. There the cell
    is applied at all positions at once, to the states of the position before (`recurrence`).

    Args:
        row: One of `ROWS`.
        n: Number of positions.
        d: Width.
        neighbourhood, kernel: r and k.

    Raises:
        ValueError: If n applications are not enough.
    """
    carried = [keras.random.normal((1, n, d))]
    reached = [jnp.zeros((1, n, 1)).at[:, 0].set(1.0)]
    layer = layers.make(ROWS[row], d, neighbourhood, kernel)
    if row in ("recurrent", "LSTM"):
        apply = recurrence(layer.cell)
        for state in keras.tree.flatten(layer.cell.get_initial_state(n)):
            carried.append(state[None])
            reached.append(jnp.zeros((1, n, 1)))
    else:

        def apply(x):
            return [layer(x)]

    @functools.partial(jax.jit, static_argnums=0)
    def follow(apply, carried, reached):
        # New random numbers, because products of many derivatives would be too small for float32.
        moved = [each * keras.random.normal((1, n, d), seed=1) for each in reached]
        carried, moved = jax.jvp(apply, carried, moved)
        return carried, [jnp.any(each != 0, axis=-1, keepdims=True) * 1.0 for each in moved]

    for applied in range(n):
        if row == "convolution, dilated":
            apply = dilated(d, kernel, kernel**applied)
        carried, reached = follow(apply, carried, reached)
        if reached[-1][0, -1, 0]:
            return applied + 1
    raise ValueError(f"{row}: position 1 does not reach position {n} in {n} applications.")


def dilated(d, kernel, rate):
    """Returns a convolution that sees every `rate`-th position up to its own.

    It is causal: with kernels that reach both ways, some last steps would lead past the ends.
    """
    layer = keras.layers.Conv1D(d, kernel, padding="causal", dilation_rate=rate)
    return lambda x: [layer(x)]


def recurrence(cell):
    """Returns `apply(x, *states) -> x, *states`: the cell at all positions, on the states before.

    The states start as zeros. Every application makes them right at one more position, so after n
    applications all equal those of the recurrent layer. The layer returns the last one.
    """

    def apply(x, *states):
        before = [ops.pad(each[0, :-1], [(1, 0), (0, 0)]) for each in reversed(states)]
        _, after = cell(x[0], before)
        return [x, *(each[None] for each in reversed(keras.tree.flatten(after)))]

    return apply
