"""Parallel text of any size: pairs that are read anew in each pass and never held in memory."""

import glob
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_transformer.data.lines import STDIN, given_lines, open_text, stream_lines

# From so many pairs, or bytes of files, a corpus is encoded by several processes and kept piece by
# piece. Starting a process costs as much time as encoding some 10,000 pairs.
LARGE, _LARGE_BYTES = 50_000, 5_000_000

Pair = tuple[str, str]
Paths = str | os.PathLike | Sequence[str | os.PathLike]


class Part(NamedTuple):
    """One source of a corpus, and how often each pass holds its pairs."""

    read: Callable[[], Iterator[Pair]]
    weight: int
    files: tuple[Path, ...] = ()
    columns: tuple = ()


class Corpus:
    """Pairs `(source, target)` of strings, which every `for` loop reads anew from their files.

    `open_corpus` makes one. Corpora can be added, and multiplied by a weight: in
    `small * 3 + large` each pass holds every pair of `small` three times. `len` is not known before
    a pass, so a corpus has none.

    Args:
        parts: Where the pairs come from.
        sha256: The `text_sha256` of the pairs, if it is known.
        count: The number of pairs in a pass, if it is known.

    Example:

    ```python
    corpus = kt.data.open_corpus("ours.tsv") * 3 + kt.data.open_corpus("web-*.tsv.gz")
    tokenizer = kt.text.train_tokenizer(corpus.sample(1_000_000), vocabulary_size=290)
    encoded = kt.data.encode_pairs(corpus, tokenizer, cache="ids.npz")
    ```
    """

    def __init__(
        self, parts: Sequence[Part], sha256: str | None = None, count: int | None = None
    ) -> None:
        self.parts, self.sha256, self.count = tuple(parts), sha256, count

    def __iter__(self) -> Iterator[Pair]:
        for part in self.parts:
            for _ in range(part.weight):
                yield from part.read()

    def once(self) -> Iterator[Pair]:
        """Yields every pair once and ignores the weights."""
        for part in self.parts:
            yield from part.read()

    def __add__(self, other: "Corpus") -> "Corpus":
        return Corpus(self.parts + other.parts)

    def __mul__(self, weight: int) -> "Corpus":
        if not isinstance(weight, int) or weight < 1:
            raise ValueError(
                f"A weight says how often each pass holds a pair: expected a whole number from 1, "
                f"got {weight!r}. To halve one corpus, double the others."
            )
        return Corpus([part._replace(weight=part.weight * weight) for part in self.parts])

    def sample(self, count: int) -> Iterator[Pair]:
        """Yields at most `count` pairs, evenly spread over the whole corpus and always the same.

        The corpus is read twice if its `count` is not known.
        """
        total = sum(1 for _ in self) if self.count is None else self.count
        return evenly(self, total, count)

    def identity(self) -> str | None:
        """What a cache of this corpus is recognised by: its SHA-256, or the state of its files."""
        found = self.fingerprint()
        return self.sha256 or (None if found is None else json.dumps(found))

    def is_large(self) -> bool:
        """Whether reading it is worth several processes."""
        if self.count is not None:
            return self.count > LARGE
        files = [path for part in self.parts for path in part.files]
        return not files or sum(os.stat(path).st_size for path in files) > _LARGE_BYTES

    def fingerprint(self) -> list | None:
        """Names, sizes and times of the files and how they are read, as JSON has them.

        It changes when a file changes, and costs no reading. None if something else than files is
        read.
        """
        if not all(part.files for part in self.parts):
            return None
        return [[_state(part.files), list(part.columns), part.weight] for part in self.parts]


def open_corpus(
    source: Any,
    target: Paths | None = None,
    *,
    source_column: int | str = 0,
    target_column: int | str = 1,
) -> Corpus:
    """Opens parallel text, to be read in passes and never held in memory.

    Args:
        source: The text. Either files with one sentence per line, beside `target`. Or TSV files.
            Or an object that yields pairs anew in each loop: a list, a `datasets.Dataset` of
            Hugging Face, a `tf.data.Dataset`. Files are a path, a pattern such as
            `"web-*.tsv.gz"`, or a list of those. ":3" behind a path is a weight: each pass holds
            its pairs three times. Files that end with ".gz" or ".zst" are unpacked as they are
            read. "-" is standard input, once.
        target: The files with the translations, as many as of `source` and in their order.
        source_column, target_column: Of TSV files, numbers from 0. Of other objects the index or
            the name of a field; "translation.de" is a field inside a field.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the columns are the same, or the numbers of files differ. While reading: if a
            file is empty or not UTF-8, or a line has too few columns.

    Example:

    ```python
    corpus = kt.data.open_corpus(["ours.tsv:3", "web-*.tsv.gz"], source_column=1, target_column=0)
    for korean, english in corpus:
        ...
    ```
    """
    if target is None:
        _check_columns(source_column, target_column)
    columns = source_column, target_column
    if target is not None:
        return Corpus(_aligned(_files(source), _files(target)))
    if _names_files(source):
        return Corpus([_tsv(path, weight, *columns) for path, weight in _files(source)])
    if iter(source) is source:
        raise ValueError(
            f"A corpus is read several times, but this {type(source).__name__} can be read only "
            "once. Give a list, or an object whose __iter__ starts anew."
        )
    return Corpus([Part(lambda: _pairs_of(source, *columns), 1)])


def evenly(items: Iterable[Any], total: int, count: int) -> Iterator[Any]:
    """Yields `count` of `total` items at even distances, or all if there are no more."""
    if total <= count:
        yield from items
        return
    taken = 0
    for number, item in enumerate(items, start=1):
        if number * count // total > taken:
            taken += 1
            yield item


def _check_columns(source_column, target_column):
    numbers = [each for each in (source_column, target_column) if isinstance(each, int)]
    if min(numbers, default=0) < 0:
        raise ValueError(f"Columns are counted from 0, got {source_column=}, {target_column=}.")
    if source_column == target_column:
        raise ValueError(
            f"Source and target are two columns, got {source_column=}, {target_column=}. Give "
            "another for one of them."
        )


def _names_files(source):
    if isinstance(source, str | os.PathLike):
        return True
    first = source[0] if isinstance(source, list | tuple) and source else None
    return isinstance(first, str | os.PathLike)


def _files(paths):
    """Returns (path, weight) of every file that paths and patterns name. Opens none."""
    found = []
    for each in [paths] if isinstance(paths, str | os.PathLike) else paths:
        name, weight = _weighted(os.fspath(each))
        names = [name] if os.path.lexists(name) else sorted(glob.glob(name))
        if not names and glob.has_magic(name):
            raise FileNotFoundError(f"no file fits the pattern {name}. Give another.")
        found += [(path, weight) for path in map(Path, names or [name])]
    return found


def _lines(path):
    """Returns a function that yields the lines of a file anew, and whether it reads the file."""
    pipe = path.exists() and not (path.is_file() or path.is_dir())
    if pipe or str(path) == STDIN:  # read only once
        kept = list(given_lines(path))
        return lambda: iter(kept), False
    open_text(path).close()  # says now what is missing
    return lambda: stream_lines(path), True


def _weighted(name):
    """Splits "a.tsv:3" into path and weight, unless there is a file of that name."""
    match = re.fullmatch(r"(.+):(\d+)", name)
    if match is None or os.path.lexists(name):
        return name, 1
    if int(match[2]) < 1:
        raise ValueError(f"{name}: a weight is a whole number from 1. Leave the file out for 0.")
    return match[1], int(match[2])


def _aligned(sources, targets):
    if len(sources) != len(targets):
        raise ValueError(
            f"Sources and targets need the same number of files, but there are {len(sources)} and "
            f"{len(targets)}: {_listed(sources)} and {_listed(targets)}."
        )
    parts = []
    for (source, weight), (target, other) in zip(sources, targets, strict=True):
        if other not in (1, weight):
            raise ValueError(
                f"{source} has the weight {weight}, its translation {target} {other}. Give one."
            )
        parts.append(_parallel(source, target, weight))
    return parts


def _parallel(source, target, weight):
    (sources, read_anew), (targets, both_anew) = _lines(source), _lines(target)
    files = (source, target) if read_anew and both_anew else ()
    names = _named(source), _named(target)
    return Part(lambda: _zipped(*names, sources(), targets()), weight, files)


def _named(path):
    return "standard input" if str(path) == STDIN else path


def _listed(files):
    return ", ".join(str(path) for path, _ in files)


def _zipped(source_path, target_path, *lines):
    count = 0
    for pair in itertools.zip_longest(*lines):
        if None in pair:
            counts = [count + (pair[side] is not None) for side in (0, 1)]
            counts = [counts[side] + sum(1 for _ in lines[side]) for side in (0, 1)]
            raise ValueError(
                f"Parallel files need the same number of lines, but {source_path} has {counts[0]} "
                f"and {target_path} has {counts[1]}. Align them line by line."
            )
        count += 1
        yield pair


def _tsv(path, weight, *columns):
    if not all(isinstance(column, int) for column in columns):
        raise ValueError(f"{path}: columns of a TSV file are numbers from 0, got {columns}.")
    lines, read_anew = _lines(path)
    files = (path,) if read_anew else ()
    return Part(lambda: _columns_of(_named(path), lines(), *columns), weight, files, columns)


def _columns_of(path, lines, source_column, target_column):
    needed = max(source_column, target_column) + 1
    for number, line in enumerate(lines, start=1):
        columns = line.split("\t")
        if len(columns) < needed:
            raise ValueError(
                f"{path}, line {number}: found {len(columns)} tab-separated column(s), but "
                f"source_column={source_column} and target_column={target_column} (counted from "
                f"0) need {needed}. Mend the line or give other columns."
            )
        yield columns[source_column], columns[target_column]


def _pairs_of(source, *columns):
    """The pairs of a list or a dataset, whose items are sequences or mappings."""
    items = source.as_numpy_iterator() if hasattr(source, "as_numpy_iterator") else iter(source)
    for number, item in enumerate(items):
        try:
            first, second = (_string(_field(item, column)) for column in columns)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"Item {number} of the {type(source).__name__} has no texts at {columns}: it is "
                f"{str(item)[:200]!r}. Give source_column and target_column."
            ) from error
        yield first, second


def _field(item, column):
    if isinstance(item, str | bytes):
        raise TypeError
    if not isinstance(item, Mapping) or column in item:
        return item[column]
    for name in str(column).split("."):
        item = item[name]
    return item


def _string(value):
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError
    return value


def _state(files):
    states = [(path, os.stat(path)) for path in files]
    return [[os.path.abspath(path), state.st_size, state.st_mtime_ns] for path, state in states]
