"""Files and folders that are written whole or not at all, and JSON."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def refuse_existing(path):
    """Raises an error if an export cannot be written to `path`, before any work is done.

    Raises:
        ValueError: there is something at `path`.
        FileNotFoundError: there is no folder to put it in.
        PermissionError: the folder to put it in cannot be written to.
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
def new_folder(path):
    """A new folder beside `path` that takes its name at the end; on an error it is removed.

    Args:
        path: the folder to make, in an existing one.

    Raises:
        ValueError, FileNotFoundError: see `refuse_existing`.

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


def write_new_file(path, text):
    """Writes a result to a new file. Where that fails, it is kept in a temporary file.

    Call `refuse_existing` before the work, so that it rarely fails here.

    Raises:
        OSError: the file could not be written; says where the text is.
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


@contextlib.contextmanager
def replacing(path: Path):
    """Opens a temporary file beside `path` that takes its place when all is written."""
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as file:
        yield file
        flush(file)
    os.replace(temporary, path)
    flush_folder(path.parent)


def write_json(path: Path, value):
    with replacing(path) as file:
        file.write(to_json(value, indent=1).encode())


def to_json(value, indent: int | None = None) -> str:
    """JSON that also takes paths and NumPy scalars."""

    def plain(other):
        return other.item() if isinstance(other, np.generic) else os.fspath(other)

    return json.dumps(value, default=plain, ensure_ascii=False, indent=indent)


def read_json(path: Path):
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is broken or half-written ({error}): restore a copy or use another run."
        ) from error


def flush(file):
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path):
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Writes a text file, one line per string, whole or not at all."""
    with replacing(Path(path)) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
