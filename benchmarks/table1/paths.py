"""How many times a layer is applied until position 1 of its input reaches position n."""

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
    """The fewest applications after which the last output changes with the first input.

    Followed by derivatives, application by application: which positions of the result have one that
    is not 0 by those reached so far. Of a layer that sees all inputs at once the stack of layers is
    as high as that. Of a recurrent layer it is the steps between, its cell applied at all positions
    at once to what the application before left one position earlier (`recurrence`).

    Args:
        row: one of `ROWS`.
        n: positions.
        d: width.
        neighbourhood, kernel: r and k.
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
        # New random numbers, since products of many derivatives would be too small for float32.
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
    """A convolution that sees every `rate`-th position up to its own.

    Causal, since with kernels that reach both ways some last steps would lead past the ends.
    """
    layer = keras.layers.Conv1D(d, kernel, padding="causal", dilation_rate=rate)
    return lambda x: [layer(x)]


def recurrence(cell):
    """`apply(x, *states) -> x, *states`: the cell everywhere, on the states one position before.

    Starting from zeros the states are right at one more position after each application, and after
    n of them all are those of the recurrent layer. The last is what the layer returns.
    """

    def apply(x, *states):
        before = [ops.pad(each[0, :-1], [(1, 0), (0, 0)]) for each in reversed(states)]
        _, after = cell(x[0], before)
        return [x, *(each[None] for each in reversed(keras.tree.flatten(after)))]

    return apply
