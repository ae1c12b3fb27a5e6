"""Attention by the fused kernels of a GPU, under JAX and PyTorch."""

import keras
from keras import ops

from keras_transformer.ops import Tensor
from keras_transformer.ops.exporting import EXPORTING
from keras_transformer.ops.masks import causal_mask, combine_masks


def serves(queries: Tensor, values: Tensor) -> bool:
    """Whether there is a fused kernel here: for heads of one width, on a GPU."""
    if queries.shape[-1] != values.shape[-1] or EXPORTING.get():
        return False
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def attend_fused(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    key_mask: Tensor,
    attention_mask: Tensor,
    causal: bool,
) -> Tensor:
    """Same as `attention`, by `keras.ops.dot_product_attention`: the weights never reach memory.

    Args:
        queries: [B, H, T, K], scaled.
        keys: [B, H, S, K].
        values: [B, H, S, K].
        key_mask, attention_mask, causal: As in `Masks`.

    Returns:
        [B, H, T, K].
    """
    length, key_length = ops.shape(queries)[2], ops.shape(keys)[2]
    permitted = combine_masks(key_mask, attention_mask)
    flash = keras.config.is_flash_attention_enabled()
    if permitted is not None:
        if causal:
            permitted = ops.logical_and(permitted, causal_mask(length, key_length))
        while len(permitted.shape) < 4:
            permitted = permitted[None]
        # cuDNN takes only a mask of every pair, and even lengths.
        shape = (*permitted.shape[:2], length, key_length)
        permitted = ops.broadcast_to(permitted, shape)
        if length % 2 or key_length % 2:
            flash = False
    mixed = ops.dot_product_attention(
        *(ops.transpose(each, (0, 2, 1, 3)) for each in (queries, keys, values)),
        mask=permitted,
        scale=1.0,
        is_causal=causal and permitted is None,
        flash_attention=flash,
    )
    return ops.transpose(mixed, (0, 2, 1, 3))
