"""Text to ids, once: flat arrays for a whole corpus, kept in a cache file."""

import hashlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_transformer import progress
from keras_transformer.files import read_npz, replacing
from keras_transformer.ops.labels import check_special_ids
from keras_transformer.text.protocol import check_tokenizer

_PAIRS_AT_A_TIME = 10_000  # lists of Python ints are 10 times as large as the arrays they become
_FORMAT = "keras_transformer.EncodedPairs.1"


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """A corpus as ids: pair i is `.source(i)` and `.target(i)`, without start and end.

    Attributes:
        source_ids, target_ids: int32, all sentences one after another.
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
        """int64 [len]: tokens of each source, without its end."""
        return np.diff(self.source_offsets)

    @property
    def target_lengths(self) -> np.ndarray:
        """int64 [len]: tokens of each target, without start and end."""
        return np.diff(self.target_offsets)

    def source(self, i: int) -> np.ndarray:
        """int32 [source_lengths[i]]: the ids of source i."""
        return self.source_ids[self.source_offsets[i] : self.source_offsets[i + 1]]

    def target(self, i: int) -> np.ndarray:
        """int32 [target_lengths[i]]: the ids of target i."""
        return self.target_ids[self.target_offsets[i] : self.target_offsets[i + 1]]


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
    _refuse_others(Path(cache))
    key = _cache_key(pairs, tokenizer, target_tokenizer, max_length)
    try:
        encoded = _read(Path(cache), key)
    except ValueError as error:
        progress.say(f"warning: {error} It is made anew.")
        encoded = None
    if encoded is None:
        encoded = _encode(pairs, tokenizer, target_tokenizer, max_length)
        _save(encoded, Path(cache), key)
    return encoded


def _encode(pairs, tokenizer, target_tokenizer, max_length):
    remaining = iter(pairs)
    count = dropped_empty = dropped_long = 0
    columns = [], [], [], []  # ids and lengths of the sources, of the targets
    total = characters(pairs) if hasattr(pairs, "__len__") else None
    with progress.work("encoding", total, "characters") as done:
        while chunk := list(itertools.islice(remaining, _PAIRS_AT_A_TIME)):
            _, sides, keep, empty, long = _sorted_out(
                chunk, tokenizer, target_tokenizer, max_length
            )
            count += len(chunk)
            dropped_empty += empty
            dropped_long += long
            for number, (ids, lengths) in enumerate(sides):
                columns[2 * number].append(ids[np.repeat(keep, lengths)])
                columns[2 * number + 1].append(lengths[keep])
            done(characters(chunk))
    if count == dropped_empty + dropped_long:
        raise ValueError(
            f"There is no pair left: {dropped_empty} of {count} have an empty side, {dropped_long} "
            f"are longer than max_length={max_length} tokens. Give other text or raise max_length."
        )
    source_ids, source_lengths, target_ids, target_lengths = map(_joined, columns)
    return EncodedPairs(
        source_ids=source_ids,
        source_offsets=np.concatenate([[0], np.cumsum(source_lengths)]),
        target_ids=target_ids,
        target_offsets=np.concatenate([[0], np.cumsum(target_lengths)]),
        source_end_id=tokenizer.end_id,
        target_start_id=target_tokenizer.start_id,
        target_end_id=target_tokenizer.end_id,
        max_length=max_length,
        dropped_empty=dropped_empty,
        dropped_long=dropped_long,
    )


def _sorted_out(pairs, tokenizer, target_tokenizer, max_length):
    """Encodes pairs, and finds those that are kept.

    Returns the pairs without a blank side; for each side their ids and lengths; booleans, True = a
    pair is kept; and how many of `pairs` are empty, and too long.
    """
    filled = [(source, target) for source, target in pairs if source.strip() and target.strip()]
    sides = [
        _flat_ids(tokenizer, [source for source, _ in filled]),
        _flat_ids(target_tokenizer, [target for _, target in filled]),
    ]
    lengths = np.stack([lengths for _, lengths in sides])
    empty = (lengths == 0).any(axis=0)
    long = ~empty & (lengths.max(axis=0) + 1 > max_length)
    dropped = len(pairs) - len(filled) + int(empty.sum()), int(long.sum())
    return filled, sides, ~(empty | long), *dropped


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
    filled, _, keep, empty, long = _sorted_out(
        pairs, tokenizer, target_tokenizer or tokenizer, max_length
    )
    kept = list(itertools.compress(filled, keep))
    if empty or long:
        progress.say(
            f"validation leaves out {empty + long:,} of {len(pairs):,} pairs: {empty:,} with an "
            f"empty side, {long:,} longer than {max_length} tokens"
        )
    return kept


def characters(pairs: Iterable[tuple[str, str]]) -> int:
    """Returns the number of characters in all pairs, to measure the work."""
    return sum(map(len, itertools.chain.from_iterable(pairs)))


def _flat_ids(tokenizer, texts):
    encoded = tokenizer.encode(texts)
    ids = np.fromiter(itertools.chain.from_iterable(encoded), np.int32)
    return ids, np.fromiter(map(len, encoded), np.int64)


def _joined(arrays):
    """Concatenates and empties the list, so that at most one column is in memory twice."""
    joined = np.concatenate(arrays)
    arrays.clear()
    return joined


def _cache_key(pairs, tokenizer, target_tokenizer, max_length):
    digest = hashlib.sha256()
    settings = f"{_FORMAT} {max_length}".encode()
    vocabularies = tokenizer.model_proto, target_tokenizer.model_proto
    texts = (text.encode() for pair in pairs for text in pair)
    with progress.work("comparing the text with what is kept"):
        for data in itertools.chain([settings, *vocabularies], texts):
            digest.update(len(data).to_bytes(8, "little"))  # so that ("ab", "c") is not ("a", "bc")
            digest.update(data)
    return digest.hexdigest()


def read_encoded(path: str | os.PathLike) -> EncodedPairs | None:
    """Reads the pairs that `encode_pairs` kept in its `cache`, without their text.

    Returns None if there is no such file. Raises a ValueError if the file is damaged or of another
    kind.
    """
    _refuse_others(Path(path))
    return _read(Path(path))


def _read(path, key=None):
    if not path.exists():
        return None
    arrays = read_npz(path)
    if key is not None and str(arrays.get("key")) != key:
        return None
    names = EncodedPairs.__dataclass_fields__
    try:
        values = {name: arrays[name] for name in names}
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it has no {error}.") from error
    return EncodedPairs(**{name: v if v.ndim else int(v) for name, v in values.items()})


def _refuse_others(path):
    """Refuses a file that `_save` never wrote. One that is damaged, cut or empty passes."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        beginning = file.read(1000)
    signs = b"format.npy", _FORMAT.encode("utf-32-le")  # damage may have hit one of them
    cut = len(beginning) < 50 and beginning[:4] == b"PK\3\4"[: len(beginning)]
    zeros = not beginning.strip(b"\0")  # or nothing: as a power cut leaves it
    if not (cut or zeros or any(sign in beginning for sign in signs)):
        raise ValueError(
            f"{path} exists and is not a cache of encoded pairs. Give another path, or move it "
            "away."
        )


def _save(encoded, path, key):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, format=_FORMAT, key=key, **vars(encoded))
