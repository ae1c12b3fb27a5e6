"""Attention masks: boolean, True = may attend, made here and nowhere else.

A mask says which *keys* a query may look at. Padded queries are computed like any other and
simply never read, so no mask for them is needed (paper, section 3.2.3, masks only illegal keys).
"""

import keras
import numpy as np
from keras import ops

from keras_transformer.ops.compilation import values_of

# Added to the scores of forbidden keys. Finite, so that a row without a single permitted key gives
# an average of values and not NaN; in float32, where scores are always normalised, it is absorbing.
FORBIDDEN = -1e9


def padding_mask(ids, pad_id=0):
    """True where `ids` hold a real token: [B, S] integers -> [B, S] booleans.

    Example:

    >>> padding_mask([[7, 4, 0]])  # [[True, True, False]]
    """
    return ops.not_equal(ids, pad_id)


def causal_mask(length, key_length=None, index=0):
    """Query position i may attend to key positions up to `index + i` (section 3.2.3).

    Args:
        length: number of query positions T.
        key_length: number of key positions S; T where not given.
        index: position of the first query among the keys (an integer or a scalar tensor).

    Returns:
        [T, S] booleans.

    Example:

    >>> causal_mask(3)  # [[True, False, False], [True, True, False], [True, True, True]]
    """
    queries = ops.arange(length, dtype="int32")[:, None] + ops.cast(index, "int32")
    keys = ops.arange(length if key_length is None else key_length, dtype="int32")[None, :]
    return keys <= queries


def checked_key_mask(mask, rows, keys):
    """A mask of the real keys as booleans, if it fits.

    Args:
        mask: booleans [B, S], True = real key; integers, 0 = padding; or floats, see `booleans`.
        rows, keys: B and S; None, or under JAX a symbol, where they are not known.

    Raises:
        ValueError: for a mask of another shape, or for floats that are no mask.
    """
    _check_key_mask_rank(mask)
    if not _fits(mask.shape, (rows, keys)):
        raise ValueError(
            f"A key mask has shape [batch, keys], here {(rows, keys)}, got {tuple(mask.shape)}. It "
            "says which keys are real: the tokens of `key` or of the memory in cross-attention."
        )
    return booleans(mask)


def checked_attention_mask(mask, scores):
    """A mask over pairs of query and key as booleans of rank 4, if it fits.

    Args:
        mask: booleans [T, S], [B, T, S] or [B, H, T, S], True = may attend, where a size of 1
            serves all; integers, 0 = may not; or floats, see `booleans`.
        scores: `(B, H, T, S)`; None, or under JAX a symbol, for a size that is not known.

    Raises:
        ValueError: for a mask of another shape, or for floats that are no mask.
    """
    mask_of_pairs = over_heads(mask)
    if not _fits(mask_of_pairs.shape, scores):
        batch, heads, queries, keys = scores
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, which does not fit {queries} queries "
            f"and {keys} keys. Its shape is [T, S] = {(queries, keys)}, [B, T, S] = "
            f"{(batch, queries, keys)} or [B, H, T, S] = {scores}; a size of 1 serves all. A mask "
            "[B, S] of the real tokens, as tokenizers return it, is passed as `mask=` (`key_mask=` "
            "in MultiHeadAttention, `memory_mask=` for a decoder's memory)."
        )
    return mask_of_pairs


def booleans(mask):
    """A mask as booleans: True where it is not 0.

    Floats are taken if they are seen to be 0 and 1. A mask to be added to scores (0 = may attend,
    -1e9 = may not) would be turned round by the cast, so other floats are an error, and so are
    floats that are known only when a compiled function runs.

    Raises:
        ValueError: for such floats.
    """
    mask = ops.convert_to_tensor(mask)
    dtype = keras.backend.standardize_dtype(mask.dtype)
    if "float" in dtype:
        values = values_of(mask)
        if values is None or not np.isin(values, (0, 1)).all():
            which = "not known yet" if values is None else f"from {values.min()} to {values.max()}"
            raise ValueError(
                f"A mask holds booleans, True = may attend, got {dtype}, its values {which}. Cast "
                "a mask of 0 and 1 by keras.ops.cast(mask, 'bool'). Of a mask to be added to "
                "scores, 0 = may attend and a large negative number = may not, pass `mask == 0`."
            )
    return ops.cast(mask, "bool")


def _fits(shape, expected):
    """Whether a mask broadcasts to the expected shape, as far as both are known."""
    return all(
        size in (1, wanted)
        for size, wanted in zip(shape, expected, strict=True)
        if isinstance(size, int) and isinstance(wanted, int)
    )


def _check_key_mask_rank(mask):
    if len(mask.shape) != 2:
        raise ValueError(
            f"A key mask has shape [batch, keys], got rank {len(mask.shape)}: "
            f"{tuple(mask.shape)}. Pass a mask over pairs as `attention_mask`."
        )


def combine_masks(key_mask=None, attention_mask=None, causal=None):
    """One mask that broadcasts to the scores [B, H, T, S]: what all given masks permit.

    Args:
        key_mask: [B, S] booleans, the real keys of each row.
        attention_mask: [T, S], [B, T, S] or [B, H, T, S] booleans (a 1 broadcasts).
        causal: [T, S] booleans from `causal_mask`.

    Returns:
        Booleans of rank 2 to 4, or None where every key may be attended to.

    Raises:
        ValueError: for a mask of another rank.
    """
    masks = []
    if key_mask is not None:
        _check_key_mask_rank(key_mask)
        masks.append(booleans(key_mask)[:, None, None, :])
    if attention_mask is not None:
        masks.append(over_heads(attention_mask))
    if causal is not None:
        masks.append(causal)
    if not masks:
        return None
    combined = masks[0]
    for mask in masks[1:]:
        combined = ops.logical_and(combined, mask)
    return combined


def over_heads(attention_mask):
    """An attention mask of rank 2 to 4 as one of rank 4, which broadcasts to [B, H, T, S].

    Raises:
        ValueError: for a mask of another rank.
    """
    rank = len(attention_mask.shape)
    if rank not in (2, 3, 4):
        raise ValueError(
            "An attention mask has shape [T, S], [B, T, S] or [B, H, T, S], got rank "
            f"{rank}: {tuple(attention_mask.shape)}."
        )
    attention_mask = booleans(attention_mask)
    if rank == 2:
        attention_mask = attention_mask[None]
    return attention_mask if rank == 4 else attention_mask[:, None]


def attention_bias(mask):
    """0 where `mask` is True and a large negative number elsewhere, in float32, to add to scores.

    Adding broadcasts a small tensor; selecting would materialise the mask at [B, H, T, S].
    """
    return (1.0 - ops.cast(mask, "float32")) * FORBIDDEN
