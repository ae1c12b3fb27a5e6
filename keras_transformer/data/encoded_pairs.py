"""A corpus as ids."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from keras_transformer.ops.labels import check_special_ids

_IDS_AT_A_TIME = 1 << 22


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """A corpus as ids: pair i is `.source(i)` and `.target(i)`, without start and end.

    Attributes:
        source_ids, target_ids: All sentences one after another; int32, or uint16 in a cache of a
            vocabulary of at most 65,536 ids. Those of a cache are read from its file when used.
        source_offsets, target_offsets: int64 [len + 1]; sentence i is
            `ids[offsets[i]:offsets[i + 1]]`.
        source_end_id, target_start_id, target_end_id: The ids that batches add to sentences.
        max_length: The limit for the length of pairs, in tokens with start or end.
        dropped_empty, dropped_long: How many pairs `encode_pairs` left out.

    Raises:
        ValueError: If the target's start or end has id 0, which is padding.
    """

    source_ids: np.ndarray
    source_offsets: np.ndarray
    target_ids: np.ndarray
    target_offsets: np.ndarray
    source_end_id: int
    target_start_id: int
    target_end_id: int
    max_length: int
    dropped_empty: int
    dropped_long: int

    def __post_init__(self):
        check_special_ids(self.target_start_id, self.target_end_id)

    def __len__(self) -> int:
        return len(self.source_offsets) - 1

    @property
    def source_lengths(self) -> np.ndarray:
        """int32 [len]: tokens of each source, without its end."""
        return lengths_of(self.source_offsets)

    @property
    def target_lengths(self) -> np.ndarray:
        """int32 [len]: tokens of each target, without start and end."""
        return lengths_of(self.target_offsets)

    def source(self, i: int) -> np.ndarray:
        """Integers [source_lengths[i]]: the ids of source i."""
        return self.source_ids[self.source_offsets[i] : self.source_offsets[i + 1]]

    def target(self, i: int) -> np.ndarray:
        """Integers [target_lengths[i]]: the ids of target i."""
        return self.target_ids[self.target_offsets[i] : self.target_offsets[i + 1]]


def lengths_of(offsets: np.ndarray) -> np.ndarray:
    """int32 [len - 1]: the differences of neighbours, without a larger array in between."""
    lengths = np.empty(len(offsets) - 1, np.int32)
    return np.subtract(offsets[1:], offsets[:-1], out=lengths, casting="unsafe")


def in_slices(ids: np.ndarray) -> Iterator[np.ndarray]:
    """Yields a long array in parts, because NumPy's counts make int64 of what they count."""
    for begin in range(0, len(ids), _IDS_AT_A_TIME):
        yield ids[begin : begin + _IDS_AT_A_TIME]


def counts_of(ids: np.ndarray, size: int = 0) -> np.ndarray:
    """int64 [at least size]: how often each id occurs."""
    largest = max((int(part.max()) for part in in_slices(ids)), default=0)
    counts = np.zeros(max(size, largest + 1), np.int64)
    for part in in_slices(ids):
        counts += np.bincount(part, minlength=len(counts))
    return counts
