"""The shapes that a `Translator` compiles for: few of them, with little padding."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from keras_transformer.ops.compilation import runs_on_processor

# Source widths are rounded up to SOURCE_LENGTHS, so a file compiles only a few shapes. If few
# sentences share a width, COARSE_LENGTHS are used instead: less compilation, more padding.
SOURCE_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
COARSE_LENGTHS = (16, 32, 64, 128, 256, 512)
ROWS = (1, 4, 16, 64, 128, 256)
# Initial room for a target: at least 32 tokens, or 1.5 times the source width if that is more.
ROOM = 32
# Above this many multiplications per width, extra compilation pays off: an exact width, and a
# search that drops finished rows. That is about 30,000 sentences of 16 tokens for `tiny`, or 700 of
# 24 for `base` (greedy), counted over the translator's lifetime.
REPAYS_FROM = 1e12


def rows_for(count: int) -> int:
    """Returns how many rows a batch of `count` sentences has."""
    return next((rows for rows in ROWS if rows >= count), count)


def batches(
    widths: Sequence[int], batch_size: int, tokens_per_batch: int | None = None
) -> Iterator[slice]:
    """Yields the ranges of the batches of rows with these widths, the widest first.

    Args:
        widths: The width of each row, in falling order.
        batch_size: The greatest number of rows.
        tokens_per_batch: The greatest number of rows, rounded up as they are compiled, times their
            width. A wider row is alone. None sets no limit.
    """
    first = 0
    while first < len(widths):
        count = batch_size
        if tokens_per_batch is not None:
            fitting = max(1, tokens_per_batch // widths[first])
            count = min(count, max(rows for rows in ROWS if rows <= fitting))
        yield slice(first, first + count)
        first += count


def width_for(
    longest: int, learned: int | None = None, lengths: Sequence[int] = SOURCE_LENGTHS
) -> int:
    """Returns the width of rows with up to `longest` tokens, the end included.

    Args:
        longest: Tokens of the longest row.
        learned: How many positions the model has learned; None for no limit.
        lengths: The widths to choose from, ascending. Longer rows get a multiple of 256.

    Raises:
        ValueError: If a row has more tokens than learned positions.
    """
    width = next((each for each in lengths if each >= longest), -(-longest // 256) * 256)
    if learned is None:
        return width
    if longest > learned:
        raise ValueError(
            f"A sentence of {longest} tokens is longer than the {learned} positions that the model "
            "has learned: shorten it."
        )
    return min(width, learned)


def room_for(width: int) -> int:
    """Returns the room for targets of sources of this width, enough for most of them."""
    return max(ROOM, width + width // 2)


def repays(weights: int, sequences: int, width: int) -> bool:
    """Whether so many sequences of one width make extra compilation pay off (`REPAYS_FROM`).

    The multiplications are estimated as if a target were as long as its source.

    Args:
        weights: How many weights the models have.
    """
    return sequences * width * weights >= REPAYS_FROM and runs_on_processor()


def count_weights(models: Sequence[Any]) -> int:
    """Returns how many weights the models have together."""
    return sum(math.prod(weight.shape) for model in models for weight in model.weights)
