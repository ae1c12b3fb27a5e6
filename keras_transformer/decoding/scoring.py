"""How probable given translations are: the parts of `Translator.score`, as pure functions."""

import numpy as np

from keras_transformer import arguments

# Of a batch of `batch_size` pairs. The logits of longer ones would take rows x length x V floats.
LONGEST_OF_A_FULL_BATCH = 64


def encode_pairs(pairs, encode_sources, target_tokenizer):
    """Pairs of strings to pairs of ids, without start and end; a blank side has none.

    `encode_sources` maps a list of texts to lists of ids. A target may also be a list of ids.
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


def in_batches(ids, batch_size):
    """Yields lists of positions in `ids`, longest pairs first, and each once.

    A batch has `batch_size` pairs, or 1/4, 1/16 ... of that where they are long.
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


def arrays(ids, rows, width, tokenizer, target_tokenizer):
    """Source ids [rows, width] with the end, and target ids [rows, width + 1] with start and end.

    Rows past those of `ids` are padding.
    """
    sources = np.zeros((rows, width), "int32")
    targets = np.zeros((rows, width + 1), "int32")
    for row, (source, target) in enumerate(ids):
        sources[row, : len(source) + 1] = [*source, tokenizer.end_id]
        framed = [target_tokenizer.start_id, *target, target_tokenizer.end_id]
        targets[row, : len(framed)] = framed
    return sources, targets


def logits(model, sources, targets):
    """Logits [rows, width, V] for all of `targets` but their start, teacher-forced."""
    # The end is an input too, which changes nothing before it.
    return model.decode(targets[:, :-1], *model.encode(sources))
