"""Sentences as the rows of a padded array."""

import numpy as np


def spread(count: int, rows: int) -> np.ndarray:
    """Returns the rows of `count` members, the same number in each replica's contiguous part."""
    return np.arange(count) * rows // count


def check_devices(devices: int) -> None:
    """Raises an error unless there is at least one."""
    if devices < 1:
        raise ValueError(f"devices is at least 1, got {devices}.")


def filled_up(devices: int, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Adds rows of zeros, so that the devices get equally many rows, and members to within one."""
    return filled_up_to(-(-len(arrays[0]) // devices) * devices, *arrays)


def filled_up_to(rows: int, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Adds rows of zeros, spread evenly, until there are `rows`."""
    count = len(arrays[0])
    if rows == count:
        return arrays
    places, filled = spread(count, rows), []
    for array in arrays:
        filled.append(np.zeros((rows, *array.shape[1:]), array.dtype))
        filled[-1][places] = array
    return tuple(filled)


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
