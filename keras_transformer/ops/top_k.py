"""The highest of many scores."""

from keras import ops

from keras_transformer.ops import Tensor

_PART = 128  # The greatest number of scores in a part of `top_k`.


def plain_highest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The highest of scores [R, V], and the first index that has it: [R] and [R]."""
    return ops.max(scores, axis=-1), ops.cast(ops.argmax(scores, axis=-1), "int32")


def highest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Same as `plain_highest`, by two reductions that XLA turns into vector instructions.

    It does not do so for `argmax` on the CPU.
    """
    best = ops.max(scores, axis=-1, keepdims=True)
    tokens = ops.arange(scores.shape[-1], dtype="int32")[None, :]
    here = ops.where(ops.equal(scores, best), tokens, scores.shape[-1] - 1)
    return best[:, 0], ops.min(here, axis=-1)


def plain_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of scores [B, M] and their indices, equal scores in the order of the index.

    On PyTorch equal scores come in any order. Use all of the k, by `ops.min` or transposed: XLA
    sorts all M where columns are taken from them.
    """
    found, indices = ops.top_k(scores, k)
    return found, ops.cast(indices, "int32")


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Same as `plain_top_k`; sorts only the parts of the scores that can hold the highest.

    The highest k are in the k parts with the highest maxima. Those parts are kept in order, so that
    equal scores come in the order of their index.
    """
    size = scores.shape[-1]
    part = next((part for part in range(_PART, _PART // 4, -1) if size % part == 0), size)
    if size // part <= 2 * k:
        return plain_top_k(scores, k)
    scores = ops.reshape(scores, (-1, size // part, part))
    _, best = ops.top_k(ops.max(scores, axis=-1), k)
    best = ops.sort(ops.cast(best, "int32"), axis=-1)  # [B, k]
    some = ops.take_along_axis(scores, best[:, :, None], axis=1)  # [B, k, part]
    found, indices = plain_top_k(ops.reshape(some, (-1, k * part)), k)
    return found, ops.take_along_axis(best, indices // part, axis=1) * part + indices % part
