"""Attention masks: boolean, True = may attend, made here and nowhere else.

A mask says which *keys* a query may look at. Padded queries are computed like any other and
simply never read, so no mask for them is needed (paper, section 3.2.3, masks only illegal keys).
"""

from keras import ops

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
        if len(key_mask.shape) != 2:
            raise ValueError(
                f"A key mask has shape [batch, keys], got rank {len(key_mask.shape)}: "
                f"{tuple(key_mask.shape)}. Pass a mask over pairs as `attention_mask`."
            )
        masks.append(ops.cast(key_mask, "bool")[:, None, None, :])
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
    attention_mask = ops.cast(attention_mask, "bool")
    if rank == 2:
        attention_mask = attention_mask[None]
    return attention_mask if rank == 4 else attention_mask[:, None]


def attention_bias(mask):
    """0 where `mask` is True and a large negative number elsewhere, in float32, to add to scores.

    Adding broadcasts a small tensor; selecting would materialise the mask at [B, H, T, S].
    """
    return (1.0 - ops.cast(mask, "float32")) * FORBIDDEN
