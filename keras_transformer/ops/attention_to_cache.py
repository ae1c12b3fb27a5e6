"""Attention of the newest positions to a cache, of which only the filled part is read.

A compiled search has room for its longest result, and most results fill little of it. On a CPU a
step of many rows spends its time reading that room. So only the filled part is read, in blocks. The
softmax is exact: the sums so far are scaled to the highest score so far before each block is added
(Milakov and Gimelshein, 2018).
"""

import keras
from keras import ops

from keras_transformer.ops import Tensor, masks
from keras_transformer.ops.compilation import runs_on_processor
from keras_transformer.ops.exporting import EXPORTING

_BLOCK = 8  # Positions of a block, times the number of newest positions.


def write(cache: Tensor, new: Tensor, index: Tensor, axis: int) -> Tensor:
    """A cache of rank 4 with `new` at positions index, index + 1, ... of an axis, 2 or 3."""
    length, count = cache.shape[axis], new.shape[axis]
    if isinstance(index, int) and length and count and index + count > length:
        raise ValueError(
            f"A cache of {length} positions has no room for {count} from position {index} on. "
            "Start it with a greater length."
        )
    if length is not None:
        start = [0, 0, 0, 0]
        start[axis] = index
        return ops.slice_update(cache, start, new)
    # The length is unknown only in an exported search. There `slice_update` would be XLA's on
    # TensorFlow, which would compile it for each length.
    before, after = [slice(None)] * axis, index + ops.shape(new)[axis]
    parts = [cache[(*before, slice(None, index))], new, cache[(*before, slice(after, None))]]
    return ops.concatenate(parts, axis=axis)


def serves(queries: Tensor, keys: Tensor, index: Tensor) -> bool:
    """True when `attend_to_cache` applies: static shapes, a traced index, and a CPU.

    On accelerators a loop is slower than reading the whole cache at once.
    """
    known = None not in (*queries.shape, *keys.shape)
    in_search = not isinstance(index, int) and not EXPORTING.get()
    return known and in_search and runs_on_processor()


def attend_to_cache(
    queries: Tensor, keys: Tensor, values: Tensor, permitted: Tensor, index: Tensor
) -> Tensor:
    """Same as `attention` over the positions before `index + T`.

    Args:
        queries: [B, H, T, K], scaled.
        keys: [B, H, K, S].
        values: [B, H, S, V].
        permitted: Booleans that broadcast to [B, H, T, S].
        index: Position of the first query.

    Returns:
        [B, H, T, V].
    """
    batch_size, heads, new, _ = queries.shape
    length, width = values.shape[2:]
    block = min(_BLOCK * new, length)
    bias = masks.attention_bias(permitted)
    while len(bias.shape) < 4:
        bias = bias[None]
    positions = ops.arange(length, dtype="int32")

    def unread(turn, *sums):
        return turn * block < index + new

    def read(turn, highest, total, mixed):
        # The last block begins early enough to be whole. What it then reads again is forbidden.
        first = ops.minimum(turn * block, length - block)

        def part(x, axis):
            start, shape = [0, 0, 0, 0], list(x.shape)
            start[axis], shape[axis] = first, block
            return ops.slice(x, start, shape)

        read_before = part(positions[None, None, None], 3) < turn * block
        again = ops.where(read_before, masks.FORBIDDEN, 0.0)
        scores = _product(queries, part(keys, 3))
        scores = ops.cast(scores, "float32") + (part(bias, 3) + again)
        higher = ops.maximum(highest, ops.max(scores, axis=-1, keepdims=True))
        weights, shrinks = ops.exp(scores - higher), ops.exp(highest - higher)
        total = total * shrinks + ops.sum(weights, axis=-1, keepdims=True)
        weights = ops.cast(weights, values.dtype)
        update = _product(weights, part(values, 2))
        return turn + 1, higher, total, mixed * shrinks + ops.cast(update, "float32")

    start = (
        ops.convert_to_tensor(0, "int32"),
        ops.full((batch_size, heads, new, 1), -float("inf"), dtype="float32"),
        ops.zeros((batch_size, heads, new, 1), dtype="float32"),
        ops.zeros((batch_size, heads, new, width), dtype="float32"),
    )
    _, _, total, mixed = ops.while_loop(unread, read, start)
    return ops.cast(mixed / total, values.dtype)


def _product(x, block):
    """`ops.matmul`: [B, H, T, I] and [B, H, I, O] -> [B, H, T, O].

    TensorFlow's XLA turns a sum of products into one loop that reads the cache where it is, and
    copies the block for a product of matrices. JAX hands the sum to a library that is slower.
    """
    if keras.backend.backend() == "tensorflow":
        return ops.sum(x[..., None] * block[:, :, None], axis=3)
    return ops.matmul(x, block)
