"""Reading parallel text: two aligned files, or one of tab-separated columns."""

import gzip
import zlib
from pathlib import Path


def read_parallel(source_path, target_path):
    """Read two aligned files: line i of one is the translation of line i of the other.

    Lines end with "\\n" and nothing else: U+2028 or a vertical tab inside a line stays in it. One
    "\\r" at the end is removed. Pairs with an empty side are kept here; `encode_pairs` drops and
    counts them.

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
    sources, targets = _read_lines(source_path), _read_lines(target_path)
    if len(sources) != len(targets):
        raise ValueError(
            f"parallel files need the same number of lines, but {source_path} has {len(sources)} "
            f"and {target_path} has {len(targets)}; align them line by line"
        )
    return list(zip(sources, targets, strict=True))


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
    for number, line in enumerate(_read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) < needed:
            raise ValueError(
                f"{path}, line {number}: found {len(columns)} tab-separated column(s), but "
                f"source_column={source_column} and target_column={target_column} (counted from "
                f"0) need {needed}; mend the line or give other columns"
            )
        pairs.append((columns[source_column], columns[target_column]))
    return pairs


def _read_lines(path):
    data = _read_bytes(Path(path)).removeprefix(b"\xef\xbb\xbf")  # a UTF-8 byte order mark
    if not data:
        raise ValueError(f"{path} is empty; expected UTF-8 text, one sentence a line")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file, "
            f"for example: iconv -f ISO-8859-1 -t UTF-8 {path} > converted.txt (-f: its encoding)"
        ) from error
    # str.splitlines would also split at U+2028, \x0b and others, and misalign the two files.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _read_bytes(path):
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path} (looked in {Path.cwd()} if it is relative)")
    if path.is_dir():
        raise ValueError(f"{path} is a directory; expected a text file, one sentence a line")
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} ends with .gz but is not a whole gzip file ({error}); "
            "rename it if it is plain text, or fetch it again"
        ) from error
