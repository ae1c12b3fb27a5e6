"""Bytes to lines of text. All text is read here, from files and from pipes."""

import gzip
import os
import re
import select
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MARK = "\ufeff"
STDIN = "-"  # as a path
# The first bytes of packed files, and the programs that unpack them.
PACKED = {
    b"\x1f\x8b": "gzip (unpack it: gunzip, zcat)",
    b"PK\x03\x04": "zip (unpack it: unzip)",
    b"BZh": "bzip2 (unpack it: bunzip2, bzcat)",
    b"\xfd7zXZ": "xz (unpack it: unxz, xzcat)",
    b"\x28\xb5\x2f\xfd": "zstd (unpack it: unzstd, zstdcat)",
}
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# Korean syllables in EUC-KR, and all pairs of high bytes.
KOREAN, PAIR = re.compile(rb"[\xb0-\xc8][\xa1-\xfe]"), re.compile(rb"[\xa1-\xfe][\xa1-\xfe]")


def read_lines(path: str | os.PathLike) -> list[str]:
    """Reads the lines of a text file, without their ends.

    Only "\\n" ends a line: U+2028 or a vertical tab inside a line stays in it. One "\\r" at the end
    of a line is removed, and one byte order mark (U+FEFF) at its beginning, so that files joined
    by `cat` read like the single files. U+FEFF elsewhere is text.

    Args:
        path: UTF-8 text, one sentence per line; unpacked if the name ends with ".gz" or
            ".zst".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty or not UTF-8.

    Example:

    ```python
    sources = kt.data.read_lines("test.en")
    ```
    """
    return list(stream_lines(path))


def stream_lines(path: str | os.PathLike) -> Iterator[str]:
    """Yields the lines of a text file one by one, as `read_lines` reads them.

    Raises:
        FileNotFoundError: At once, if there is no such file.
        ValueError: As `read_lines` does, when the fault is reached.
    """
    return _decoded(open_text(Path(path)), Path(path))


def given_lines(path: str | os.PathLike) -> Iterator[str]:
    """Yields the lines of a file, or of standard input if `path` is "-".

    Raises:
        FileNotFoundError, ValueError: As `stream_lines`. Standard input is empty, too, if all of it
            was read before.
    """
    if str(path) != STDIN:
        yield from stream_lines(path)
        return
    lines = None
    for lines, _ in arriving_lines(sys.stdin.buffer, 2048):
        yield from lines
    if lines is None:
        raise ValueError(
            "standard input is empty, or was read already. Give UTF-8 text, and only one - for it."
        )


def _decoded(file, path):
    number = 0
    try:
        with file:
            for number, line in enumerate(file, start=1):
                if number == 1 and line == MARK.encode():  # without a line end: there is no more
                    raise _empty(path)
                yield decode_line(line.removesuffix(b"\n"), number, path)
    except _unpacking_errors() as error:
        raise ValueError(
            f"{path} ends with {path.suffix} but is not a whole file of that kind ({error}); "
            "rename it if it is plain text, or fetch it again"
        ) from error
    if number == 0:
        raise _empty(path)


def _empty(path):
    return ValueError(f"{path} is empty. Give UTF-8 text, one sentence per line.")


def decode_line(line: bytes, number: int, path: str | os.PathLike | None = None) -> str:
    """Decodes one line of bytes, given without its "\\n".

    Raises a ValueError if it is not UTF-8, which says what it looks like and how to convert it. The
    error names the line by its `number`, from 1, and its `path`, or standard input.
    """
    place = f"{path or 'standard input'}, line {number}"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        fault = f"byte 0x{line[error.start]:02x} is not UTF-8"
        raise ValueError(f"{place}: {fault}; {_advice(line, path)}") from error
    if "\0" in text and _every_other_is_zero(line):  # Latin letters in UTF-16
        raise ValueError(f"{place}: every other byte is 0; {_advice(line, path)}")
    return text.removesuffix("\r").removeprefix(MARK)


def arriving_lines(stream: BinaryIO, most: int) -> Iterator[tuple[list[str], int]]:
    """Yields lists of up to `most` lines as they arrive, and the number of their bytes.

    Lines are read as by `read_lines`. The lines before one that is not UTF-8 are yielded before the
    error. No other thread reads: a thread that waits for input would hold the lock of `stream` when
    Python ends, which aborts the process. So `stream`, which is `sys.stdin.buffer`, is read through
    its file descriptor if it has one.
    """
    lines: list[str] = []
    size = number = 0
    for line in _arriving(stream):
        if line is not None:
            number += 1
            try:
                lines.append(decode_line(line, number))
            except ValueError:
                if lines:
                    yield lines, size
                raise
            size += len(line) + 1
        if lines and (line is None or len(lines) == most):
            yield lines, size
            lines, size = [], 0
    if lines:
        yield lines, size


def _arriving(stream):
    """Yields lines of bytes, without their "\\n", and None where no more has arrived yet."""
    try:
        descriptor = stream.fileno()
    except OSError:  # a stream of Python's, not of the operating system
        yield from (line.removesuffix(b"\n") for line in stream)
        return
    rest = b""
    while data := os.read(descriptor, 2**16):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
        if not _has_more(descriptor):
            yield None
    if rest:
        yield rest


def _has_more(descriptor):
    """Whether there is more to read within a twentieth of a second, or the end."""
    if os.name == "nt":  # select takes only sockets there
        return False
    return bool(select.select([descriptor], [], [], 0.05)[0])


def _advice(line, path):
    """What a line that is not UTF-8 looks like, and how to convert its file."""
    for beginning, packed in PACKED.items():
        if line.startswith(beginning):
            return f"it begins like {packed}; a file that gzip packed may also be named .gz"
    convert = "iconv -f {} -t UTF-8 " + f"{path or 'FILE'} > converted.txt"
    if line.startswith(UTF16_MARKS):
        return f"it begins like UTF-16; convert it: {convert.format('UTF-16')}"
    if b"\0" in line:
        return (
            "its zero bytes look like UTF-16 without a byte order mark; convert it: "
            f"{convert.format('UTF-16LE')} (or UTF-16BE)"
        )
    if _looks_korean(line):
        korean = "it may be Korean in CP949 (EUC-KR)"
        return f"{korean}; convert it: {convert.format('CP949')} (-f: its encoding)"
    return f"convert it, for example: {convert.format('ISO-8859-1')} (-f: its encoding)"


def _every_other_is_zero(line):
    halves = line[::2], line[1::2]
    return len(line) > 2 and any(
        all(letters) and not any(zeros) for letters, zeros in (halves, halves[::-1])
    )


def _looks_korean(line):
    """Whether it can be CP949, and most pairs of its high bytes are Korean syllables there."""
    try:
        line.decode("cp949")
    except UnicodeDecodeError:
        return False
    return 2 * len(KOREAN.findall(line)) > len(PAIR.findall(line))


def open_text(path: Path) -> Any:
    """Opens a file as bytes, unpacked if its name ends with ".gz" or ".zst"."""
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path} (looked in {Path.cwd()} if it is relative)")
    if path.is_dir():
        raise ValueError(f"{path} is a directory. Give a text file, one sentence per line.")
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".zst":
        return _zstd(path).open(path, "rb")
    return open(path, "rb")


def _zstd(path: Path) -> Any:
    try:
        from backports import zstd
    except ImportError as error:
        raise ImportError(
            f"{path} is read by the package backports.zstd: pip install backports.zstd, or unpack "
            "the file by unzstd."
        ) from error
    return zstd


def _unpacking_errors() -> tuple[type[Exception], ...]:
    """What is raised for a damaged packed file. A module that was not imported raised nothing."""
    zstd = sys.modules.get("backports.zstd")
    return gzip.BadGzipFile, EOFError, zlib.error, *((zstd.ZstdError,) if zstd else ())
