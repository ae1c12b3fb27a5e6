"""Beams that share a cache: the N hypotheses of a source stand in one row, and none is ever copied.

Position p of beam n stands in slot p * N + n of the row. A search that goes on from other beams
chooses among their `origins` alone: integers [B, N, P], the beam in whose slot each position of a
hypothesis stands. A sequence is a beam of a source; R = B * N of them.
"""

from keras import ops, tree


def start(sources, beams, length):
    """The origins of hypotheses that have no positions yet: [B, N, P]."""
    return ops.zeros((sources, beams, length), dtype="int32")


def grown(origins, index, new):
    """`origins` once every beam has written `new` positions from `index` on in its own slots."""
    positions = ops.arange(ops.shape(origins)[2], dtype="int32")
    own = ops.arange(origins.shape[1], dtype="int32")[:, None]  # [N, 1]
    here = ops.logical_and(positions >= index, positions < index + new)
    return ops.where(here, own, origins)


def mask(origins, new):
    """Which slots hold a hypothesis, beside causality: [B, N, P] -> [B, new * N, P * N]."""
    beams = origins.shape[1]
    held = ops.equal(origins[..., None], ops.arange(beams, dtype="int32"))  # [B, N, P, N]
    held = ops.reshape(held, (-1, beams, ops.shape(origins)[2] * beams))
    return ops.tile(held, (1, new, 1))


def together(x, beams):
    """The newest positions of all beams as those of one row: [R, T, D] -> [B, T * N, D]."""
    length, width = ops.shape(x)[1], x.shape[2]
    x = ops.transpose(ops.reshape(x, (-1, beams, length, width)), (0, 2, 1, 3))
    return ops.reshape(x, (-1, length * beams, width))


def apart(x, beams):
    """What `together` has put together: [B, T * N, D] -> [R, T, D]."""
    length, width = ops.shape(x)[1] // beams, x.shape[2]
    x = ops.transpose(ops.reshape(x, (-1, length, beams, width)), (0, 2, 1, 3))
    return ops.reshape(x, (-1, length, width))


def weights_apart(weights, beams, own):
    """Attention weights [B, H, T * N, K] as those of each sequence, [R, H, T, K].

    With `own` the keys are the slots, of which a hypothesis has one a position: [R, H, T, P].
    """
    heads = weights.shape[1]
    length, keys = ops.shape(weights)[2] // beams, ops.shape(weights)[3]
    weights = ops.reshape(weights, (-1, heads, length, beams, keys))
    weights = ops.reshape(ops.transpose(weights, (0, 3, 1, 2, 4)), (-1, heads, length, keys))
    if not own:
        return weights
    return ops.sum(ops.reshape(weights, (-1, heads, length, keys // beams, beams)), axis=-1)


def take_rows(nest, rows):
    """The rows [R] of every tensor of a nest."""
    return tree.map_structure(lambda x: ops.take(x, rows, axis=0), nest)


def sequences_of(sources, beams):
    """All beams of the sources [B']: [B' * N]."""
    return ops.reshape(sources[:, None] * beams + ops.arange(beams, dtype=sources.dtype), (-1,))


def of_sequences(cache, sequences):
    """A decoder's cache with the `sequences` of it, integers [R], each of its place's own source.

    Args:
        cache: a dictionary with `"self"`, a nest of [R, ...]. With `"origins"`, those alone move.
    """
    if "origins" not in cache:
        return {**cache, "self": take_rows(cache["self"], sequences)}
    shape = ops.shape(cache["origins"])
    origins = ops.reshape(cache["origins"], (-1, shape[2]))
    return {**cache, "origins": ops.reshape(take_rows(origins, sequences), shape)}


def of_sources(cache, sources, beams):
    """A decoder's cache with all beams of the `sources`, integers [B'], and of no other."""
    if "origins" in cache:  # a row of every part is a source
        return take_rows(cache, sources)
    kept = take_rows(cache["self"], sequences_of(sources, beams))
    memory = {part: each for part, each in cache.items() if part != "self"}
    return {"self": kept, **take_rows(memory, sources)}
