"""Attention of the newest positions to a cache, of which only what is written is read.

A compiled search has room for its longest result, and most results fill little of it. On processors
a step of many rows mostly reads that room, so there the written part alone is read, block by block.
The softmax is the exact one: each block is added to a sum that is scaled to the highest score so
far (Milakov and Gimelshein, 2018).
"""

import keras
from keras import ops

from keras_transformer.ops import masks
from keras_transformer.ops.compilation import runs_on_processor

# Slots of a block, for each of the newest positions.
_BLOCK = 8


def serves(queries, keys, index):
    """Whether `attend` serves: the shapes are known and the index is not, as in a compiled search.

    On accelerators every turn of a loop waits for the one before, and the room is read at once.
    """
    known = None not in (*queries.shape, *keys.shape)
    return known and not isinstance(index, int) and runs_on_processor()


def attend(queries, keys, values, permitted, index):
    """`softmax(Q K^T) V` over the slots up to `index + T`.

    Args:
        queries: [B, H, T, K], scaled.
        keys: [B, H, K, S].
        values: [B, H, S, V].
        permitted: booleans that broadcast to [B, H, T, S], from `masks.combine_masks`.
        index: slot of the first query.

    Returns:
        [B, H, T, V].
    """
    rows, heads, new, _ = queries.shape
    slots, width = values.shape[2:]
    block = min(_BLOCK * new, slots)
    bias = masks.attention_bias(permitted)
    while len(bias.shape) < 4:
        bias = bias[None]
    places = ops.arange(slots, dtype="int32")

    def unread(turn, *sums):
        return turn * block < index + new

    def read(turn, highest, total, mixed):
        # The last block may not begin behind the last place for a whole one: what it then reads
        # again counts for nothing.
        first = ops.minimum(turn * block, slots - block)

        def part(x, axis):
            start = [0, 0, 0, 0]
            start[axis] = first
            shape = list(x.shape)
            shape[axis] = block
            return ops.slice(x, start, shape)

        again = ops.where(part(places[None, None, None], 3) < turn * block, masks.FORBIDDEN, 0.0)
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
        ops.full((rows, heads, new, 1), -float("inf"), dtype="float32"),
        ops.zeros((rows, heads, new, 1), dtype="float32"),
        ops.zeros((rows, heads, new, width), dtype="float32"),
    )
    _, _, total, mixed = ops.while_loop(unread, read, start)
    return ops.cast(mixed / total, values.dtype)


def _product(x, block):
    """`x M` of every row and head: [B, H, T, I] and [B, H, I, O] -> [B, H, T, O].

    TensorFlow's XLA makes one loop of a sum of products, which reads the cache where it lies, and
    copies the block for a product of matrices. JAX's hands the sum to a library that is slower.
    """
    if keras.backend.backend() == "tensorflow":
        return ops.sum(x[..., None] * block[:, :, None], axis=3)
    return ops.matmul(x, block)
