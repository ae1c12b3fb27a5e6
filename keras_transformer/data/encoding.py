"""Text to ids, once, in memory or in a cache file."""

import contextlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_transformer import progress
from keras_transformer.data import id_cache
from keras_transformer.data.corpus import LARGE, Corpus
from keras_transformer.data.digest import in_chunks, text_sha256
from keras_transformer.data.encoded_pairs import EncodedPairs
from keras_transformer.data.id_cache import InMemory, OnDisk
from keras_transformer.text import Tokenizer
from keras_transformer.text.protocol import check_tokenizer
from keras_transformer.text.workers import cores, encoders, flat_ids, in_order

_PAIRS_AT_A_TIME = 10_000  # lists of Python ints are 10 times as large as the arrays they become


def encode_pairs(
    pairs: Iterable[tuple[str, str]],
    tokenizer: Any,
    target_tokenizer: Any = None,
    max_length: int = 256,
    cache: str | os.PathLike | None = None,
) -> EncodedPairs:
    """Encodes a corpus once.

    Pairs with an empty or blank side, or a side longer than `max_length`, are dropped and counted.

    Args:
        pairs: A list of `(source, target)` strings, or for a large corpus any iterable, of which
            only the ids are kept. With a `cache` it is read twice, first for the SHA-256, so it
            must not be a generator.
        tokenizer: A `kt.text.Tokenizer`, or an object with its `encode(list of str)` (lists of ids
            without specials), `pad_id` (0), `start_id`, `end_id` and, for the cache,
            `model_proto` (the vocabulary as bytes).
        target_tokenizer: The target's tokenizer, if it is another.
        max_length: The longest side that is kept, in tokens with its start or end.
        cache: An `.npz` file that keeps the result. It is reused if a SHA-256 over the texts, the
            vocabulary and `max_length` agrees, otherwise written anew.

    Raises:
        ValueError: If no pair is left, `cache` is another kind of file, or `pairs` can be read only
            once and there is a `cache`.

    Example:

    ```python
    train = kt.data.encode_pairs(pairs, tokenizer, max_length=128, cache="train.npz")
    len(train), train.dropped_empty, train.dropped_long
    ```
    """
    target_tokenizer = target_tokenizer or tokenizer
    for each in (tokenizer, target_tokenizer):
        check_tokenizer(each, ("encode", "pad_id", "start_id", "end_id"))
        if each.pad_id != 0:
            raise ValueError(
                f"Batches pad with id 0, but the tokenizer's pad_id is {each.pad_id}. Train one "
                "with kt.text.train_tokenizer."
            )
    if cache is None:
        return _encode(pairs, tokenizer, target_tokenizer, max_length)
    if iter(pairs) is pairs:
        raise ValueError(
            f"With a cache the pairs are read twice, but this {type(pairs).__name__} can be read "
            "only once; give a list or an object whose __iter__ starts anew, or leave cache out."
        )
    path = Path(cache)
    id_cache.refuse_others(path)
    key = _cache_key(pairs, tokenizer, target_tokenizer, max_length)
    try:
        encoded = id_cache.read(path, key)
    except ValueError as error:
        progress.say(f"warning: {error} It is made anew.")
        encoded = None
    if encoded is None:
        encoded = _encode(pairs, tokenizer, target_tokenizer, max_length, path, key)
    id_cache.remove_parts(path)
    return encoded


def _encode(pairs, tokenizer, target_tokenizer, max_length, path=None, key=None):
    tokenizers = [tokenizer, target_tokenizer]
    large = _is_large(pairs)
    with contextlib.ExitStack() as stack:
        collected = _collector(tokenizers, path, key) if large else InMemory()
        stack.callback(collected.close)
        state = collected.progress
        if state.read:
            progress.say(f"{state.read:,} pairs were encoded before, and the rest follows")
        workers = []
        if large and cores() > 1 and all(type(each) is Tokenizer for each in tokenizers):
            workers = stack.enter_context(encoders(tokenizers, cores()))
        total = _count(pairs)
        done = stack.enter_context(progress.work("encoding", total, "pairs"))
        done(state.read)
        for note, sides in _encoded(_requests(pairs, state.read), tokenizers, workers):
            size, filled = note
            keep, empty, long = _kept(sides, max_length)
            state.read += size
            state.dropped_empty += size - filled + empty
            state.dropped_long += long
            collected.add([(ids[np.repeat(keep, n)], n[keep]) for ids, n in sides])
            collected.keep()
            done(size)
        if state.read == state.dropped_empty + state.dropped_long:
            raise ValueError(
                f"There is no pair left: {state.dropped_empty} of {state.read} have an empty side, "
                f"{state.dropped_long} are longer than max_length={max_length} tokens. Give other "
                "text or raise max_length."
            )
        encoded = EncodedPairs(
            **collected.columns(),
            source_end_id=tokenizer.end_id,
            target_start_id=target_tokenizer.start_id,
            target_end_id=target_tokenizer.end_id,
            max_length=max_length,
            dropped_empty=state.dropped_empty,
            dropped_long=state.dropped_long,
        )
        if path is None:
            return encoded
        id_cache.save(encoded, path, key)
    return id_cache.read(path)


def _is_large(pairs):
    """Whether a corpus is worth several processes; an iterator is not, as it has no length."""
    if isinstance(pairs, Corpus):
        return pairs.is_large()
    return hasattr(pairs, "__len__") and len(pairs) > LARGE


def _count(pairs):
    return pairs.count if isinstance(pairs, Corpus) else getattr(pairs, "__len__", lambda: None)()


def _collector(tokenizers, path, key):
    if path is None:
        return InMemory()
    sizes = [getattr(each, "vocabulary_size", None) for each in tokenizers]
    small = None not in sizes and max(sizes) <= 1 << 16
    try:
        return OnDisk(path, key, np.dtype(np.uint16 if small else np.int32))
    except OSError as error:
        progress.say(f"the ids are collected in memory, because parts cannot be kept ({error})")
        return InMemory()


def _requests(pairs, skipped):
    """Yields ((sources, targets), (number of pairs, number of these)) without blank pairs."""
    for number, chunk in enumerate(in_chunks(pairs, _PAIRS_AT_A_TIME)):
        if number * _PAIRS_AT_A_TIME >= skipped:
            filled = _filled(chunk)
            yield _sides(filled), (len(chunk), len(filled))


def _encoded(requests, tokenizers, workers):
    if workers:
        return in_order(workers, requests)
    return ((note, list(map(flat_ids, tokenizers, sides))) for sides, note in requests)


def _filled(pairs):
    return [(source, target) for source, target in pairs if source.strip() and target.strip()]


def _sides(pairs):
    return [source for source, _ in pairs], [target for _, target in pairs]


def _kept(sides, max_length):
    """Booleans, True = a pair is kept; how many pairs are empty, and how many too long."""
    lengths = np.stack([lengths for _, lengths in sides])
    empty = (lengths == 0).any(axis=0)
    long = ~empty & (lengths.max(axis=0) + 1 > max_length)
    return ~(empty | long), int(empty.sum()), int(long.sum())


def kept_pairs(
    pairs: list[tuple[str, str]],
    tokenizer: Any,
    target_tokenizer: Any = None,
    max_length: int = 256,
) -> list[tuple[str, str]]:
    """Returns the pairs that `encode_pairs` keeps, which are those that the validation loss counts.

    Translate these for a validation score, so that loss and score are of the same pairs. A pair
    that is longer than learned positions would end the training. A line on stderr says how many
    pairs are left out.

    Args:
        pairs: A list of `(source, target)` strings.
        tokenizer, target_tokenizer, max_length: As for `encode_pairs`.

    Example:

    ```python
    sources, references = zip(*kt.data.kept_pairs(valid, tokenizer))
    ```
    """
    filled = _filled(pairs)
    sides = map(flat_ids, (tokenizer, target_tokenizer or tokenizer), _sides(filled))
    keep, empty, long = _kept(list(sides), max_length)
    empty += len(pairs) - len(filled)
    kept = list(itertools.compress(filled, keep))
    if empty or long:
        progress.say(
            f"validation leaves out {empty + long:,} of {len(pairs):,} pairs: {empty:,} with an "
            f"empty side, {long:,} longer than {max_length} tokens"
        )
    return kept


def _cache_key(pairs, tokenizer, target_tokenizer, max_length):
    vocabularies = [each.model_proto.hex() for each in (tokenizer, target_tokenizer)]
    known = pairs.identity() if isinstance(pairs, Corpus) else None
    if known is None:
        with progress.work("comparing the text with what is kept"):
            known = text_sha256(pairs)
    return text_sha256(id_cache.FORMAT, str(max_length), *vocabularies, known)


def read_encoded(path: str | os.PathLike) -> EncodedPairs | None:
    """Reads the pairs that `encode_pairs` kept in its `cache`, without their text.

    Returns None if there is no such file. Raises a ValueError if the file is damaged or of another
    kind.
    """
    id_cache.refuse_others(Path(path))
    return id_cache.read(Path(path))
