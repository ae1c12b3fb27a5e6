"""Attention masks: booleans, True = may attend, made here and nowhere else.

A mask says which *keys* a query may attend to. Padded queries are computed like any other and their
result is not used, so they need no mask (section 3.2.3 masks only illegal keys).
"""

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_transformer.ops import Tensor
from keras_transformer.ops.compilation import values_of

# Added to the scores of forbidden keys. It is finite, so that a row without any permitted key gives
# an average of values instead of NaN. Scores are float32, where adding it absorbs them.
FORBIDDEN = -1e9


class Masks(NamedTuple):
    """What queries may attend to, before it is written out for every pair of query and key."""

    key_mask: Tensor = None  # booleans [B, S], True = real key
    attention_mask: Tensor = None  # booleans of rank 4 that broadcast to [B, H, T, S]
    causal: bool = False  # whether a query sees only keys up to its own position
    index: Tensor = None  # position of the first query among the keys; None is 0


def padding_mask(ids: Tensor, pad_id: int = 0) -> Tensor:
    """True where `ids` hold a real token: [B, S] integers -> [B, S] booleans.

    Example:

    >>> padding_mask([[7, 4, 0]])  # [[True, True, False]]
    """
    return ops.not_equal(ids, pad_id)


def causal_mask(length: int, key_length: int | None = None, index: Tensor = 0) -> Tensor:
    """Query position i may attend to key positions up to `index + i` (section 3.2.3): [T, S].

    Args:
        length: Number of query positions T.
        key_length: Number of key positions S; T unless given.
        index: Position of the first query among the keys, an integer or an integer scalar.

    Example:

    >>> causal_mask(3)  # [[True, False, False], [True, True, False], [True, True, True]]
    """
    queries = ops.arange(length, dtype="int32") + ops.cast(index, "int32")
    keys = ops.arange(length if key_length is None else key_length, dtype="int32")
    return ops.expand_dims(keys, 0) <= ops.expand_dims(queries, 1)


def combine_masks(
    key_mask: Tensor = None, attention_mask: Tensor = None, causal: Tensor = None
) -> Tensor:
    """What all given masks permit: one mask that broadcasts to the scores [B, H, T, S].

    Args:
        key_mask: [B, S], the real keys of each row.
        attention_mask: [T, S], [B, T, S] or [B, H, T, S]; a size of 1 broadcasts.
        causal: [T, S] from `causal_mask`.

    Returns:
        Booleans of rank 2 to 4, or None if every key may be attended to.
    """
    given = []
    if key_mask is not None:
        given.append(ops.expand_dims(checked_key_mask(key_mask), (1, 2)))
    if attention_mask is not None:
        given.append(over_heads(attention_mask))
    if causal is not None:
        given.append(causal)
    return functools.reduce(ops.logical_and, given) if given else None


def attention_bias(mask: Tensor) -> Tensor:
    """0 where `mask` is True and a large negative number elsewhere, in float32, to add to scores.

    Adding broadcasts a small tensor; selecting would write the mask out at [B, H, T, S].
    """
    return (1.0 - ops.cast(mask, "float32")) * FORBIDDEN


def checked_key_mask(mask: Tensor, batch_size: Any = None, keys: Any = None) -> Tensor:
    """A mask of the real keys as booleans, if it fits.

    Args:
        mask: Booleans [B, S], True = real key; integers, 0 = padding; or floats, see `booleans`.
        batch_size, keys: B and S; None, or a symbol under JAX, if they are unknown.

    Raises:
        ValueError: If the mask has another shape, or holds floats that are no mask.
    """
    if len(mask.shape) != 2:
        raise ValueError(
            f"A key mask has shape [batch, keys], got rank {len(mask.shape)}: "
            f"{tuple(mask.shape)}. Pass a mask over pairs as `attention_mask`."
        )
    if not _fits(mask.shape, (batch_size, keys)):
        raise ValueError(
            f"A key mask has shape [batch, keys], here {(batch_size, keys)}, got "
            f"{tuple(mask.shape)}. It says which keys are real: the tokens of `key`, or of the "
            "memory in cross-attention."
        )
    return booleans(mask)


def checked_attention_mask(mask: Tensor, scores: tuple[Any, ...]) -> Tensor:
    """A mask over pairs of query and key as booleans of rank 4, if it fits.

    Args:
        mask: Booleans [T, S], [B, T, S] or [B, H, T, S], True = may attend; a size of 1 broadcasts.
            Integers are True unless 0; for floats see `booleans`.
        scores: `(B, H, T, S)`; None, or a symbol under JAX, for an unknown size.

    Raises:
        ValueError: If the mask has another shape, or holds floats that are no mask.
    """
    pairs = over_heads(mask)
    if not _fits(pairs.shape, scores):
        batch_size, _, queries, keys = scores
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, which does not fit {queries} queries "
            f"and {keys} keys. Its shape is [T, S] = {(queries, keys)}, [B, T, S] = "
            f"{(batch_size, queries, keys)} or [B, H, T, S] = {scores}; a size of 1 broadcasts. A "
            "mask [B, S] of the real tokens, as tokenizers return it, is passed as `mask=` "
            "(`key_mask=` in MultiHeadAttention, `memory_mask=` for a decoder's memory)."
        )
    return pairs


def booleans(mask: Tensor) -> Tensor:
    """A mask as booleans: True where it is not 0.

    Floats must be known to be 0 and 1, and not only when a compiled function runs. The cast would
    turn a mask that is to be added to scores (0 = may attend, -1e9 = may not) upside down.
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


def over_heads(attention_mask: Tensor) -> Tensor:
    """An attention mask of rank 2 to 4 as booleans of rank 4, which broadcast to [B, H, T, S]."""
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


def _fits(shape, expected):
    """Whether a mask broadcasts to the expected shape, as far as both are known."""
    return all(
        size in (1, wanted)
        for size, wanted in zip(shape, expected, strict=True)
        if isinstance(size, int) and isinstance(wanted, int)
    )
