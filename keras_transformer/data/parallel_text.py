"""Parallel text in files: two aligned files, or one with tab-separated columns."""

import os
from collections.abc import Sequence

from keras_transformer.data.corpus import open_corpus
from keras_transformer.data.lines import MARK
from keras_transformer.files import replacing


def read_parallel(
    source_path: str | os.PathLike, target_path: str | os.PathLike
) -> list[tuple[str, str]]:
    """Reads two aligned files: line i of one is the translation of line i of the other.

    Lines are read as by `read_lines`. Pairs with an empty side are kept; `encode_pairs` drops and
    counts them.

    Args:
        source_path: UTF-8 text, one sentence per line; unpacked if the name ends with ".gz" or
            ".zst". "-" is standard input.
        target_path: The same for the targets.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is empty or not UTF-8, or the numbers of lines differ.

    Example:

    ```python
    pairs = kt.data.read_parallel("train.en", "train.de.gz")
    pairs[0]     # ("two young men .", "zwei junge männer .")
    ```
    """
    return list(open_corpus(source_path, target_path))


def write_parallel(
    pairs: Sequence[tuple[str, str]],
    source_path: str | os.PathLike,
    target_path: str | os.PathLike,
) -> None:
    """Writes pairs to two aligned files, from which `read_parallel` reads the same pairs.

    Tabs, "\\r", U+2028 and U+FEFF inside a text do not change. Existing files are replaced.

    Args:
        pairs: A list of `(source, target)` strings.
        source_path: The file for the sources: UTF-8 text, one sentence per line.
        target_path: The file for the targets.

    Raises:
        ValueError: If there is no pair, or a text holds "\\n", which ends a line.

    Example:

    ```python
    kt.data.write_parallel([("a b", "c d")], "valid.en", "valid.de")
    ```
    """
    if not pairs:
        raise ValueError("There is nothing to write: pairs is empty.")
    sides = ["".join(map(_as_line, side)).encode() for side in zip(*pairs, strict=True)]
    for path, side in zip((source_path, target_path), sides, strict=True):
        with replacing(path) as file:
            file.write(side)


def _as_line(text):
    """The line that is read as `text`: reading removes one byte order mark and one "\\r"."""
    if "\n" in text:
        raise ValueError(
            f'A text of one line cannot hold "\\n", got {text[:80]!r}. Replace it by a space.'
        )
    return MARK * text.startswith(MARK) + text + "\r" * text.endswith("\r") + "\n"


def read_tsv(
    path: str | os.PathLike, source_column: int = 0, target_column: int = 1
) -> list[tuple[str, str]]:
    """Reads pairs from two columns of a tab-separated file; other columns are ignored.

    A tab always separates (there is no quoting); lines are split as in `read_parallel`.

    Args:
        path: UTF-8 text; unpacked if the name ends with ".gz" or ".zst". "-" is standard input.
        source_column: Column of the source, from 0.
        target_column: Column of the target, from 0.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty or not UTF-8, a line has too few columns, or both columns
            are the same.

    Example:

    ```python
    pairs = kt.data.read_tsv("kor.txt", source_column=1, target_column=0)     # Korean -> English
    ```
    """
    return list(open_corpus(path, source_column=source_column, target_column=target_column))
