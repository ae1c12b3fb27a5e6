"""Attention: its formula, and the ways in which it is computed."""

from typing import Any

import keras
from keras import ops

from keras_transformer.ops import (
    Tensor,
    attention_fused,
    attention_in_blocks,
    attention_to_cache,
)
from keras_transformer.ops.attention_fused import attend_fused
from keras_transformer.ops.attention_in_blocks import attend_in_blocks
from keras_transformer.ops.attention_to_cache import attend_to_cache
from keras_transformer.ops.masks import Masks, attention_bias, causal_mask, combine_masks
from keras_transformer.ops.products import batched


def attention(
    queries: Tensor,  # [B, H, T, K]
    keys: Tensor,  # [B, H, S, K]
    values: Tensor,  # [B, H, S, V]
    permitted: Tensor = None,  # booleans that broadcast to [B, H, T, S]
    dropout: Any = None,  # a Dropout layer, in training
    multiply: Any = ops.matmul,
) -> tuple[Tensor, Tensor]:
    """`softmax(Q K^T / sqrt(d_k)) V` (section 3.2.1), and the weights [B, H, T, S]."""
    queries = queries * keys.shape[-1] ** -0.5
    scores = multiply(queries, ops.transpose(keys, (0, 1, 3, 2)))  # [B, H, T, S]
    scores = ops.cast(scores, "float32")
    if permitted is not None:
        scores = scores + attention_bias(permitted)
    weights = ops.cast(ops.softmax(scores, axis=-1), values.dtype)
    dropped = weights if dropout is None else dropout(weights, training=True)
    return multiply(dropped, values), weights


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    masks: Masks,
    *,
    cached: bool = False,
    dropout: Any = None,
    training: bool | None = False,
    return_weights: bool = False,
) -> tuple[Tensor, Tensor]:
    """Same as `attention`, in the way that takes the least memory or time.

    | way | when | why |
    |---|---|---|
    | to a cache | a compiled step with a cache on a CPU | reads only the filled part of the cache |
    | in blocks | TensorFlow: training, and long sequences | memory grows with T + S, not T x S |
    | fused | JAX and PyTorch on a GPU, without dropout | the weights never reach memory |
    | plain | all else, and always if the weights are asked for | it is the formula |

    Args:
        queries: [B, H, T, K].
        keys: [B, H, S, K]; with `cached` [B, H, K, S].
        values: [B, H, S, V].
        masks: What may be attended to.
        cached: Whether keys and values are those of a cache.
        dropout: A `Dropout` layer of the weights, used in training.
        training: Whether gradients will be asked for.
        return_weights: Whether the weights are asked for.

    Returns:
        [B, H, T, V], and the weights [B, H, T, S]: None if they were not asked for and not made.
    """
    scale = queries.shape[-1] ** -0.5
    if not training or dropout is None or not dropout.rate:
        dropout = None
    if not cached and not return_weights:
        on_tensorflow = keras.backend.backend() == "tensorflow"
        if on_tensorflow and attention_in_blocks.serves(queries, keys, training):
            rate = 0.0 if dropout is None else dropout.rate
            seed = ops.cast(dropout.seed_generator.next(), "int32") if rate else None
            return attend_in_blocks(queries * scale, keys, values, *masks[:3], rate, seed), None
        if not on_tensorflow and dropout is None and attention_fused.serves(queries, values):
            return attend_fused(queries * scale, keys, values, *masks[:3]), None

    length, key_length = ops.shape(queries)[2], ops.shape(values)[2]
    index = 0 if masks.index is None else masks.index
    causal = causal_mask(length, key_length, index) if masks.causal else None
    permitted = combine_masks(masks.key_mask, masks.attention_mask, causal)
    if not cached:
        return attention(queries, keys, values, permitted, dropout)
    newest = masks.index is not None and not return_weights and not training
    if newest and attention_to_cache.serves(queries, keys, index):
        return attend_to_cache(queries * scale, keys, values, permitted, index), None
    keys = ops.transpose(keys, (0, 1, 3, 2))
    return attention(queries, keys, values, permitted, dropout, multiply=batched)
