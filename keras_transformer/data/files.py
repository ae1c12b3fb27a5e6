"""Reading parallel text: two aligned files, or one of tab-separated columns."""

from pathlib import Path

from keras_transformer.data.lines import MARK, read_lines
from keras_transformer.files import replacing


def read_parallel(source_path, target_path):
    """Read two aligned files: line i of one is the translation of line i of the other.

    Lines are read as by `read_lines`. Pairs with an empty side are kept here; `encode_pairs` drops
    and counts them.

    Args:
        source_path: UTF-8 text, a sentence a line; unpacked if the name ends with ".gz".
        target_path: The same for the other side.

    Returns:
        A list of `(source, target)` strings.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is empty or not UTF-8, or the numbers of lines differ.

    Example:

    ```python
    pairs = kt.data.read_parallel("train.en", "train.de.gz")
    pairs[0]     # ("two young men .", "zwei junge männer .")
    ```
    """
    sources, targets = read_lines(source_path), read_lines(target_path)
    if len(sources) != len(targets):
        raise ValueError(
            f"parallel files need the same number of lines, but {source_path} has {len(sources)} "
            f"and {target_path} has {len(targets)}; align them line by line"
        )
    return list(zip(sources, targets, strict=True))


def write_parallel(pairs, source_path, target_path):
    """Write pairs to two aligned files, from which `read_parallel` reads the same pairs.

    Tabs, "\\r", U+2028 and U+FEFF inside a text all come back as they were. Existing files are
    replaced.

    Args:
        pairs: A list of `(source, target)` strings.
        source_path: The file for the sources: UTF-8 text, a sentence a line.
        target_path: The file for the targets.

    Raises:
        ValueError: If there is no pair, or a text holds "\\n", which ends a line.

    Example:

    ```python
    kt.data.write_parallel([("a b", "c d")], "valid.en", "valid.de")
    ```
    """
    if not pairs:
        raise ValueError("there is nothing to write: pairs is empty")
    sides = ["".join(map(_as_line, side)).encode() for side in zip(*pairs, strict=True)]
    for path, side in zip((source_path, target_path), sides, strict=True):
        with replacing(Path(path)) as file:
            file.write(side)


def _as_line(text):
    """The line that reads as `text`: reading removes one byte order mark and one "\\r"."""
    if "\n" in text:
        raise ValueError(
            f'a text of one line cannot hold "\\n", got {text[:80]!r}; replace it by a space'
        )
    return MARK * text.startswith(MARK) + text + "\r" * text.endswith("\r") + "\n"


def read_tsv(path, source_column=0, target_column=1):
    """Read pairs from two columns of a tab-separated file; other columns are ignored.

    A tab always separates (there is no quoting); lines are split as in `read_parallel`.

    Args:
        path: UTF-8 text; unpacked if the name ends with ".gz".
        source_column: Column of the source, from 0.
        target_column: Column of the target, from 0.

    Returns:
        A list of `(source, target)` strings.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty or not UTF-8, or a line has too few columns.

    Example:

    ```python
    pairs = kt.data.read_tsv("kor.txt", source_column=1, target_column=0)     # Korean -> English
    ```
    """
    if min(source_column, target_column) < 0:
        raise ValueError(
            f"columns are counted from 0, got source_column={source_column}, "
            f"target_column={target_column}"
        )
    needed = max(source_column, target_column) + 1
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) < needed:
            raise ValueError(
                f"{path}, line {number}: found {len(columns)} tab-separated column(s), but "
                f"source_column={source_column} and target_column={target_column} (counted from "
                f"0) need {needed}; mend the line or give other columns"
            )
        pairs.append((columns[source_column], columns[target_column]))
    return pairs
