"""Files and folders that are written whole or not at all, and JSON."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np


def refuse_existing(path: str | os.PathLike) -> None:
    """Raises an error if `path` cannot be newly written. Call it before the work.

    Raises:
        ValueError: If there is something at `path`.
        FileNotFoundError: If the folder does not exist.
        PermissionError: If the folder cannot be written to.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise ValueError(f"{path} exists and is not overwritten: give another name or remove it.")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"No folder {parent} to write {path.name} in: make it first.")
    if not os.access(parent, os.W_OK):
        raise PermissionError(f"{parent} cannot be written to: write {path.name} elsewhere.")


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` at the end. On an error it is removed.

    Raises:
        ValueError, FileNotFoundError, PermissionError: See `refuse_existing`.

    Example:

    ```python
    with new_folder("exports/en-de") as folder:
        (folder / "README.txt").write_text("...")
    ```
    """
    refuse_existing(path)
    path = Path(path).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        refuse_existing(path)  # a rename would replace an empty folder made in between
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary)
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Yields a temporary file that replaces `path` at the end. On an error it is removed."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            flush(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_new_file(path: str | os.PathLike, text: str) -> None:
    """Writes a result to a new file. If that fails, keeps it in a temporary file.

    Call `refuse_existing` before the work, so that it rarely fails here.

    Raises:
        OSError: If the file could not be written. The message says where the text is.
    """
    data, path = text.encode(), Path(path)
    try:
        refuse_existing(path)
        with replacing(path) as file:
            file.write(data)
    except (OSError, ValueError) as error:
        handle, kept = tempfile.mkstemp(prefix=f"{path.name}.")
        with open(handle, "wb") as file:
            file.write(data)
        raise OSError(f"{path} could not be written ({error}). The text is in {kept}.") from error


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Writes a text file, one line per string, whole or not at all."""
    with replacing(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    with replacing(path) as file:
        file.write(to_json(value, indent=1).encode())


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns JSON, also of paths and NumPy scalars."""

    def plain(other):
        return other.item() if isinstance(other, np.generic) else os.fspath(other)

    return json.dumps(value, default=plain, ensure_ascii=False, indent=indent)


def read_json(path: str | os.PathLike) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is broken or half-written ({error}): restore a copy or use another run."
        ) from error


def flush(file: IO) -> None:
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: str | os.PathLike) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
