"""Attention that never holds all its weights at once, on the TensorFlow backend.

The weights of T queries over S keys take T * S numbers a head, and their gradients as many. Here
the queries go through in blocks of `ROWS`, each with all its keys, so that a block's softmax is
whole and exact; the gradient computes a block's weights again. What is kept is queries, keys,
values and result: memory grows with T + S. Where XLA compiles for a processor and no length is
known when it is traced, all goes in one piece, see `attend`.

There is no second derivative.
"""

import functools
import math

import keras

from keras_transformer.ops import Tensor, masks
from keras_transformer.ops.compilation import compiled_by_xla, compiles_each_shape
from keras_transformer.ops.random_bits import kept_share

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

ROWS = 128  # most queries of a block
# Most weights, B * H * T * S, that are computed in one piece and kept for the gradient: 128 MiB.
ONE_PIECE = 2**25


def serves(queries: Tensor, keys: Tensor, training: bool | None) -> bool:
    """True when `attend_in_blocks` is worth it: in training, or with many weights.

    In training its gradient needs less memory, and takes less time, than the automatic one.
    """
    sizes = (*queries.shape[:3], keys.shape[2])
    return bool(training) or None in sizes or math.prod(sizes) > ONE_PIECE


def attend_in_blocks(queries, keys, values, key_mask, attention_mask, causal, rate, seed):
    """`softmax(Q K^T) V` for scaled queries.

    Args:
        queries: [B, H, T, K].
        keys: [B, H, S, K].
        values: [B, H, S, V].
        key_mask, attention_mask, causal: as of `MultiHeadAttention`.
        rate: share of the weights dropped.
        seed: two integers that `rate` > 0 draws from; block i draws from the second plus i, so
            that what is dropped does not depend on the path taken.

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
        # It would compile both ways. On processors it makes blocks slow: three times the time of a
        # whole training step at 18 positions.
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
            # A mask of one row is one for all queries; rows past the end are never used.
            chosen = tf.minimum(tf.range(first, first + count), tf.shape(some)[-2] - 1)
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
            # The sum over keys of weight times its gradient, by what the weights made.
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
                    # With one head the addition may broadcast, for all that its shape tells.
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
    """Gradients of queries, keys and values; `share` is the sum of weights times theirs."""
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

    `tensors` are [B, H, T, ...] and a block [B, H, rows, ...], the last one filled up with zeros;
    the results are joined to [B, H, T, ...].
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
    # One at a time: blocks at work side by side would hold their weights side by side.
    _, results, *sums = tf.while_loop(
        lambda block, *_: block < count, one, (0, results, *sums), parallel_iterations=1
    )
    return _joined(results.stack(), length), *sums


def _joined(blocks, length):
    """[count, B, H, rows, K] -> [B, H, length, K]."""
    shape = tf.shape(blocks)
    shape = tf.stack([shape[1], shape[2], shape[0] * shape[3], shape[4]])
    return tf.reshape(tf.transpose(blocks, (1, 2, 0, 3, 4)), shape)[:, :, :length]
