"""Draws ids by their probabilities, and keeps the likeliest of them, without a sort.

XLA sorts slowly on the CPU: 128 rows of 6,000 scores in 0.4 s.
"""

from keras import ops

from keras_transformer.ops import Tensor

_PART = 128  # shares that `draw` adds at once
_HALVINGS = 30  # of `nucleus`


def plain_nucleus(shares: Tensor, p: float | Tensor) -> Tensor:
    """Which of shares [R, V] are the highest that together reach p, as few as possible.

    Equal shares are kept together. Returns booleans [R, V].
    """
    highest_first = -ops.sort(-shares, axis=-1)
    before = ops.cumsum(highest_first, axis=-1) - highest_first
    least = ops.min(ops.where(before < p, highest_first, 1.0), axis=-1, keepdims=True)
    return shares >= least


def nucleus(shares: Tensor, p: float | Tensor) -> Tensor:
    """Same as `plain_nucleus`, by halving the interval that holds the least share to keep.

    Shares that differ by less than 1e-9 of the highest count as equal.
    """
    highest = ops.max(shares, axis=-1, keepdims=True)

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        kept = ops.where(shares >= middle, shares, 0.0)
        enough = ops.sum(kept, axis=-1, keepdims=True) >= p
        return ops.where(enough, middle, low), ops.where(enough, high, middle)

    low, _ = ops.fori_loop(0, _HALVINGS, halve, (ops.zeros_like(highest), highest))
    return shares >= low


def plain_draw(shares: Tensor, uniforms: Tensor) -> Tensor:
    """Draws one id per row, never one whose share is 0.

    Args:
        shares: Floats [R, V], not negative. They need not add up to 1.
        uniforms: Floats [R] in [0, 1). The same number draws the same id.

    Returns:
        Ids [R]: the first at which the shares add up to more than that part of their sum.
    """
    return _place(shares, uniforms * ops.sum(shares, axis=-1))[0]


def draw(shares: Tensor, uniforms: Tensor) -> Tensor:
    """Same as `plain_draw`; adds up parts of the shares first, then one part."""
    size = shares.shape[-1]
    parts = -(-size // _PART)
    shares = ops.pad(shares, ((0, 0), (0, parts * _PART - size)))
    shares = ops.reshape(shares, (-1, parts, _PART))
    sums = ops.sum(shares, axis=-1)
    part, rest = _place(sums, uniforms * ops.sum(sums, axis=-1))
    some = ops.take_along_axis(shares, part[:, None, None], axis=1)[:, 0]
    return part * _PART + _place(some, rest)[0]


def _place(shares, amounts):
    """Where the cumulated shares first exceed the amounts, and each amount without those before."""
    reached = ops.cumsum(shares, axis=-1)
    places = ops.arange(shares.shape[-1], dtype="int32")[None]
    # By rounding, sums may rise where a share is 0, and amounts may lie beyond the last share.
    positive = shares > 0
    last = ops.max(ops.where(positive, places, 0), axis=-1, keepdims=True)
    beyond = ops.logical_and(positive, reached > amounts[:, None])
    place = ops.min(ops.where(beyond, places, last), axis=-1)
    before = ops.take_along_axis(reached - shares, place[:, None], axis=1)[:, 0]
    return place, amounts - before
