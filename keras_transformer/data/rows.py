"""Sentences as the rows of a padded array."""

import numpy as np


def spread(count: int, rows: int) -> np.ndarray:
    """Returns the rows of `count` members, the same number in each replica's contiguous part."""
    return np.arange(count) * rows // count


def filled_rows(
    ids: np.ndarray,
    offsets: np.ndarray,
    end_id: int,
    members: np.ndarray,
    places: np.ndarray,
    shape: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns sentences with their ends in an int32 array of `shape`, and a mask, True = a token.

    Sentence i is `ids[offsets[i] : offsets[i + 1]]`. `members` are the numbers of the sentences,
    and `places` the row of each.
    """
    begins, lengths = np.zeros(shape[0], np.int64), np.full(shape[0], -1)
    begins[places] = offsets[members]
    lengths[places] = offsets[members + 1] - offsets[members]
    columns = np.arange(shape[1])
    inside = columns < lengths[:, None]
    filled = np.zeros(shape, np.int32)
    filled[inside] = ids[(begins[:, None] + columns)[inside]]
    filled[places, lengths[places]] = end_id
    return filled, columns <= lengths[:, None]
