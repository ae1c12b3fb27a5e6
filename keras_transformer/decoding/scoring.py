"""How probable given translations are: the parts of `Translator.score`, as pure functions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_transformer import arguments

# Pairs with more tokens come in smaller batches, because logits take rows x length x V floats.
LONGEST_OF_A_FULL_BATCH = 64


def encode_pairs(
    pairs: Iterable[Any],
    encode_sources: Callable[[list[str]], list[list[int]]],
    target_tokenizer: Any,
) -> list[tuple[list[int], list[int]]]:
    """Pairs of strings -> pairs of ids, without start and end. A blank side has no ids.

    Args:
        pairs: Pairs (source, target) of strings. A target may also be a list of ids.
        encode_sources: Maps a list of texts to lists of ids.
        target_tokenizer: The vocabulary of the target.
    """
    pairs = list(pairs)
    size = target_tokenizer.vocabulary_size
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"score takes a list of (source, target) pairs, got {pair!r}.")
        source, target = pair
        arguments.string(source, "score takes (source, target) pairs, got as a source")
        if target is None or isinstance(target, str | bytes):
            arguments.string(target, "score takes (source, target) pairs, got as a target")
            continue
        for id in target:
            if arguments.whole_number("An id of a target", id, least=0) >= size:
                raise ValueError(f"An id of a target is below the vocabulary of {size}, got {id}.")

    sources = encode_sources([source for source, _ in pairs])
    targets = [
        target_tokenizer.encode(target if target.strip() else "")
        if isinstance(target, str)
        else list(target)
        for _, target in pairs
    ]
    return list(zip(sources, targets, strict=True))


def in_batches(ids: Sequence[tuple[list[int], list[int]]], batch_size: int) -> Iterator[list[int]]:
    """Yields lists of positions in `ids`, longest pairs first, and each position once.

    A batch has `batch_size` pairs, or 1/4, 1/16 ... of that if they are long.
    """
    order = sorted(range(len(ids)), key=lambda i: -max(map(len, ids[i])))
    first = 0
    while first < len(order):
        longest = max(map(len, ids[order[first]])) + 1
        rows = batch_size
        while rows > 1 and rows * longest > batch_size * LONGEST_OF_A_FULL_BATCH:
            rows = max(1, rows // 4)
        yield order[first : first + rows]
        first += rows


def arrays(
    ids: Sequence[tuple[list[int], list[int]]],
    rows: int,
    width: int,
    tokenizer: Any,
    target_tokenizer: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Source ids [rows, width] with the end, and target ids [rows, width + 1] with start and end.

    Rows beyond those of `ids` are padding.
    """
    sources = np.zeros((rows, width), "int32")
    targets = np.zeros((rows, width + 1), "int32")
    for row, (source, target) in enumerate(ids):
        sources[row, : len(source) + 1] = [*source, tokenizer.end_id]
        framed = [target_tokenizer.start_id, *target, target_tokenizer.end_id]
        targets[row, : len(framed)] = framed
    return sources, targets
