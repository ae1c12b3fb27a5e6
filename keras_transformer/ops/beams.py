"""Beams that share a cache: the N hypotheses of a source are one row, and no key is ever copied.

Position p of beam n is in slot p * N + n of the row. When the search reorders beams, the cache
stays where it is. Only `origins` [B, N, P] is reordered: for every hypothesis and position, the
beam whose slot holds that key. R = B * N is the number of hypotheses.
"""

from collections.abc import Callable
from typing import Any

from keras import ops, tree

from keras_transformer.ops import Tensor


def start(sources: int, beams: int, length: int) -> Tensor:
    """The origins of hypotheses that have no positions yet: [B, N, P]."""
    return ops.zeros((sources, beams, length), dtype="int32")


def grown(origins: Tensor, index: Tensor, new: int) -> Tensor:
    """`origins` after every beam has written `new` positions from `index` on in its own slots."""
    positions = ops.arange(ops.shape(origins)[2], dtype="int32")
    own = ops.arange(origins.shape[1], dtype="int32")[:, None]  # [N, 1]
    here = ops.logical_and(positions >= index, positions < index + new)
    return ops.where(here, own, origins)


def mask(origins: Tensor, new: int) -> Tensor:
    """Which slots hold a hypothesis, beside causality: [B, N, P] -> [B, new * N, P * N]."""
    beams = origins.shape[1]
    held = ops.equal(origins[..., None], ops.arange(beams, dtype="int32"))  # [B, N, P, N]
    held = ops.reshape(held, (-1, beams, ops.shape(origins)[2] * beams))
    return ops.tile(held, (1, new, 1))


def step_together(
    step: Callable[..., tuple], x: Tensor, cache: dict[str, Any], index: Tensor, **shared: Any
) -> tuple:
    """Runs one step of beams that share a cache, as T * N new positions of one row per source.

    Args:
        step: `(x, cache, index, attention_mask=..., **shared) -> (x, *weights, cache)`, where
            `weights` are empty, or two lists over the layers: of self- and of cross-attention.
        x: The newest positions of all hypotheses, [R, T, D].
        cache: A cache with `"origins"`.
        index: Position of the first of `x`.
        **shared: Passed on to `step`.

    Returns:
        What `step` returns, per hypothesis: [R, T, D], weights [R, H, T, ...] and the cache.
    """
    beams, new = cache["origins"].shape[1], ops.shape(x)[1]
    origins = grown(cache["origins"], index, new)
    shared["attention_mask"] = mask(origins, new)
    x, *weights, cache = step(together(x, beams), cache, index * beams, **shared)
    weights = [
        [weights_apart(layer, beams, own=kind == 0) for layer in layers]
        for kind, layers in enumerate(weights)
    ]
    return apart(x, beams), *weights, {**cache, "origins": origins}


def together(x: Tensor, beams: int) -> Tensor:
    """The newest positions of all beams as those of one row: [R, T, D] -> [B, T * N, D]."""
    length, width = ops.shape(x)[1], x.shape[2]
    x = ops.transpose(ops.reshape(x, (-1, beams, length, width)), (0, 2, 1, 3))
    return ops.reshape(x, (-1, length * beams, width))


def apart(x: Tensor, beams: int) -> Tensor:
    """The inverse of `together`: [B, T * N, D] -> [R, T, D]."""
    length, width = ops.shape(x)[1] // beams, x.shape[2]
    x = ops.transpose(ops.reshape(x, (-1, length, beams, width)), (0, 2, 1, 3))
    return ops.reshape(x, (-1, length, width))


def weights_apart(weights: Tensor, beams: int, own: bool) -> Tensor:
    """Attention weights [B, H, T * N, K] as those of each hypothesis, [R, H, T, K].

    With `own` the keys are slots. A hypothesis has one slot per position: [R, H, T, P].
    """
    heads = weights.shape[1]
    length, keys = ops.shape(weights)[2] // beams, ops.shape(weights)[3]
    weights = ops.reshape(weights, (-1, heads, length, beams, keys))
    weights = ops.reshape(ops.transpose(weights, (0, 3, 1, 2, 4)), (-1, heads, length, keys))
    if not own:
        return weights
    return ops.sum(ops.reshape(weights, (-1, heads, length, keys // beams, beams)), axis=-1)


def take_rows(nest: Any, rows: Tensor) -> Any:
    """The rows [R] of every tensor of a nest."""
    return tree.map_structure(lambda x: ops.take(x, rows, axis=0), nest)


def repeat_rows(nest: Any, beams: int) -> Any:
    """Repeats each row of the tensors [B, ...] of a nest for its hypotheses: [B * N, ...]."""
    return tree.map_structure(lambda each: ops.repeat(each, beams, axis=0), nest)


def sequences_of(sources: Tensor, beams: int) -> Tensor:
    """All beams of the sources [B']: [B' * N]."""
    return ops.reshape(sources[:, None] * beams + ops.arange(beams, dtype=sources.dtype), (-1,))


def of_sequences(cache: dict[str, Any], sequences: Tensor) -> dict[str, Any]:
    """Reorders the hypotheses of a cache: row r becomes the old row `sequences[r]`.

    Args:
        cache: A decoder's cache, with `"self"` of [R, ...]. With `"origins"`, only they move.
        sequences: Integers [R]. Each must belong to the source of its row.
    """
    if "origins" not in cache:
        return {**cache, "self": take_rows(cache["self"], sequences)}
    shape = ops.shape(cache["origins"])
    origins = ops.reshape(cache["origins"], (-1, shape[2]))
    return {**cache, "origins": ops.reshape(take_rows(origins, sequences), shape)}


def of_sources(cache: dict[str, Any], sources: Tensor, beams: int) -> dict[str, Any]:
    """A decoder's cache with all beams of only the `sources`, integers [B']."""
    if "origins" in cache:  # a row of every part is a source
        return take_rows(cache, sources)
    kept = take_rows(cache["self"], sequences_of(sources, beams))
    memory = {part: each for part, each in cache.items() if part != "self"}
    return {"self": kept, **take_rows(memory, sources)}
