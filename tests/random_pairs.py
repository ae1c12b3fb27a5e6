"""Encoded text of a small made-up vocabulary, for tests that train or plan batches."""

import numpy as np

from keras_transformer import data


def random_pairs(count, vocabulary_size, longest=6, same_source=True, seed=0):
    """Returns pairs of 1 to `longest` tokens per side.

    With `same_source` all sources have `longest` tokens, so that all batches have one shape. Id 2
    is the start, 3 is the end, and words begin at 4.
    """
    random = np.random.default_rng(seed)
    full = np.full(count, longest)
    lengths = full if same_source else random.integers(1, longest + 1, count)
    lengths = lengths, random.integers(1, longest + 1, count)
    offsets = [np.concatenate([[0], np.cumsum(each)]) for each in lengths]
    ids = [random.integers(4, vocabulary_size, each[-1]).astype("int32") for each in offsets]
    return data.EncodedPairs(
        source_ids=ids[0],
        source_offsets=offsets[0],
        target_ids=ids[1],
        target_offsets=offsets[1],
        source_end_id=3,
        target_start_id=2,
        target_end_id=3,
        max_length=longest + 1,
        dropped_empty=0,
        dropped_long=0,
    )
