"""Attention that never holds all its weights at once, on the TensorFlow backend.

The weights of T queries over S keys are T * S numbers per head, and so are their gradients. Here
the queries are processed in blocks of `ROWS`, each with all keys, so a block's softmax is exact.
The gradient computes the weights of a block again. Only queries, keys, values and the result are
kept, so memory grows with T + S. If XLA compiles for a CPU and the lengths are not known when it
traces, everything is computed in one piece. There is no second derivative.
"""

import functools
import math

import keras

from keras_transformer.ops import Tensor, masks
from keras_transformer.ops.compilation import compiled_by_xla, compiles_each_shape
from keras_transformer.ops.exporting import EXPORTING
from keras_transformer.ops.random_bits import kept_share

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

ROWS = 128  # The greatest number of queries in a block.
# Up to this many weights, B * H * T * S (128 MiB), are computed in one piece and kept.
ONE_PIECE = 2**25


def serves(queries: Tensor, keys: Tensor, training: bool | None) -> bool:
    """True when `attend_in_blocks` is worth it: in training, or with many weights.

    In training its gradient needs less memory, and takes less time, than the automatic one.
    """
    if EXPORTING.get():
        return False
    sizes = (*queries.shape[:3], keys.shape[2])
    return bool(training) or None in sizes or math.prod(sizes) > ONE_PIECE


def attend_in_blocks(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    key_mask: Tensor,
    attention_mask: Tensor,
    causal: bool,
    rate: float,
    seed: Tensor,
) -> Tensor:
    """Same as `attention`, in blocks or in one piece, with the gradient written out.

    Args:
        queries: [B, H, T, K], scaled.
        keys: [B, H, S, K].
        values: [B, H, S, V].
        key_mask, attention_mask, causal: As in `Masks`.
        rate: Share of the weights that is dropped.
        seed: Two integers, or None if `rate` is 0. Block i draws from the first and the second plus
            i, so that blocks and one piece drop the same weights.

    Returns:
        [B, H, T, V].
    """
    if attention_mask is not None:
        attention_mask = masks.over_heads(attention_mask)
    sizes = (*queries.shape[:3], keys.shape[2])
    arguments = (queries, keys, values, key_mask, attention_mask, causal, rate, seed)
    if None not in sizes:
        return _attend(*arguments, one_piece=math.prod(sizes) <= ONE_PIECE)
    if compiled_by_xla():
        # XLA would compile both ways. On a CPU its blocks are slow: a whole training step took
        # three times as long at 18 positions.
        return _attend(*arguments, one_piece=not compiles_each_shape())
    return _one_function()(*arguments)


@functools.cache
def _one_function():
    """Attention over unknown lengths, traced once and optimised once for all layers."""
    return tf.function(
        _of_unknown_size,
        autograph=False,
        reduce_retracing=True,
        experimental_attributes={"_noinline": True},
    )


def _of_unknown_size(queries, keys, *arguments):
    sizes = tf.concat([tf.shape(queries, "int64")[:3], tf.shape(keys, "int64")[2:3]], axis=0)
    one_piece = tf.reduce_prod(sizes) <= ONE_PIECE
    return _attend(queries, keys, *arguments, one_piece=one_piece)


def _attend(queries, keys, values, key_mask, attention_mask, causal, rate, seed, one_piece):
    length, key_length = tf.shape(queries)[2], tf.shape(keys)[2]
    rows = tf.minimum(length, ROWS)

    def bias(first, count):
        """0 or a large negative number, to be added to the scores of `count` queries."""
        some = attention_mask
        if some is not None:
            # A mask of one row serves all queries; rows past the end are never used.
            chosen = tf.minimum(first + tf.range(count), tf.shape(some)[-2] - 1)
            some = tf.gather(some, chosen, axis=-2)
        causal_mask = masks.causal_mask(count, key_length, first) if causal else None
        permitted = masks.combine_masks(key_mask, some, causal_mask)
        return None if permitted is None else masks.attention_bias(permitted)

    def kept(block):
        """1 / (1 - rate) where a block's weight is kept and 0 where not."""
        shape = tf.stack([tf.shape(queries)[0], tf.shape(queries)[1], rows, key_length])
        return kept_share(shape, rate, tf.stack([seed[0], seed[1] + block]), queries.dtype)

    def kept_in_one_piece():
        found = tf.map_fn(kept, tf.range(_count(length, rows)), fn_output_signature=queries.dtype)
        return _joined(found, length)

    @tf.custom_gradient
    def attended(queries, keys, values):
        def in_one_piece():
            weights = _weights(queries, keys, bias(0, length))
            drop = kept_in_one_piece() if rate else None
            return tf.matmul(_dropped(weights, drop, values.dtype), values), weights

        def in_blocks():
            def mix(first, queries):
                weights = _weights(queries, keys, bias(first, rows))
                drop = kept(first // rows) if rate else None
                return (tf.matmul(_dropped(weights, drop, values.dtype), values),)

            [mixed] = _over_blocks(mix, rows, [queries])
            return mixed, tf.zeros((0, 0, 0, 0), "float32")

        mixed, weights = _either(one_piece, in_one_piece, in_blocks)
        mixed.set_shape([*queries.shape[:3], values.shape[3]])

        def gradient(upstream):
            # The sum over keys of each weight times its gradient, computed from the result.
            share = tf.reduce_sum(
                tf.cast(upstream, "float32") * tf.cast(mixed, "float32"), axis=-1, keepdims=True
            )

            def in_one_piece():
                drop = kept_in_one_piece() if rate else None
                return _gradients(queries, keys, values, weights, drop, upstream, share)

            def in_blocks():
                def step(first, of_keys, of_values, queries, upstream, share):
                    again = _weights(queries, keys, bias(first, rows))
                    drop = kept(first // rows) if rate else None
                    parts = _gradients(queries, keys, values, again, drop, upstream, share)
                    of_keys += tf.cast(parts[1], "float32")
                    of_values += tf.cast(parts[2], "float32")
                    # With one head TensorFlow cannot rule out that the addition broadcasts.
                    of_keys.set_shape(keys.shape)
                    of_values.set_shape(values.shape)
                    return parts[0], of_keys, of_values

                of_queries, of_keys, of_values = _over_blocks(
                    step,
                    rows,
                    [queries, upstream, share],
                    [tf.zeros(tf.shape(each), "float32") for each in (keys, values)],
                )
                return (
                    of_queries,
                    tf.cast(of_keys, keys.dtype),
                    tf.cast(of_values, values.dtype),
                )

            return _either(one_piece, in_one_piece, in_blocks)

        return mixed, gradient

    return attended(queries, keys, values)


def _either(condition, one, other):
    if isinstance(condition, bool):
        return one() if condition else other()
    return tf.cond(condition, one, other)


def _weights(queries, keys, bias):
    scores = tf.cast(tf.matmul(queries, keys, transpose_b=True), "float32")
    return tf.nn.softmax(scores if bias is None else scores + bias)


def _dropped(weights, drop, dtype):
    weights = tf.cast(weights, dtype)
    return weights if drop is None else weights * drop


def _gradients(queries, keys, values, weights, drop, upstream, share):
    """Gradients of queries, keys and values; `share`: the sum over keys of weight * gradient."""
    of_values = tf.matmul(_dropped(weights, drop, values.dtype), upstream, transpose_a=True)
    of_weights = tf.matmul(upstream, values, transpose_b=True)
    if drop is not None:
        of_weights *= drop
    of_scores = tf.cast(weights * (tf.cast(of_weights, "float32") - share), queries.dtype)
    return tf.matmul(of_scores, keys), tf.matmul(of_scores, queries, transpose_a=True), of_values


def _count(length, rows):
    return (length + rows - 1) // rows


def _over_blocks(step, rows, tensors, sums=()):
    """`step(first, *sums, *blocks) -> (result, *sums)` on blocks of rows, one after another.

    `tensors` are [B, H, T, ...]. A block is [B, H, rows, ...]; the last one is filled with zeros.
    The results are joined to [B, H, T, ...].
    """
    length = tf.shape(tensors[0])[2]
    count = _count(length, rows)
    padding = [(0, 0), (0, 0), (0, count * rows - length), (0, 0)]
    padded = [tf.pad(each, padding) for each in tensors]

    def one(block, results, *sums):
        first = block * rows
        blocks = [tf.slice(each, [0, 0, first, 0], [-1, -1, rows, -1]) for each in padded]
        result, *sums = step(first, *sums, *blocks)
        return block + 1, results.write(block, result), *sums

    results = tf.TensorArray(tensors[0].dtype, size=count)
    # One block at a time, or the weights of several blocks would be in memory.
    _, results, *sums = tf.while_loop(
        lambda block, *_: block < count, one, (0, results, *sums), parallel_iterations=1
    )
    return _joined(results.stack(), length), *sums


def _joined(blocks, length):
    """[count, B, H, rows, K] -> [B, H, length, K]."""
    shape = tf.shape(blocks)
    shape = tf.stack([shape[1], shape[2], shape[0] * shape[3], shape[4]])
    return tf.reshape(tf.transpose(blocks, (1, 2, 0, 3, 4)), shape)[:, :, :length]
