"""Files and folders that are written whole or not at all, and JSON."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

_MAPPED = 1 << 20  # bytes of an array from which on `map_npz` leaves it in the file


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
    if temporary.is_dir() and not temporary.is_symlink():  # of a killed process of that number
        shutil.rmtree(temporary)
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
    temporary.unlink(missing_ok=True)
    try:
        # "x" follows no link that somebody has put there.
        with open(temporary, "xb") as file:
            yield file
            flush(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def remove_left_overs(folder: str | os.PathLike) -> None:
    """Removes what `replacing` left in a folder, at any depth, in processes that were killed.

    Call it where no other process writes there.
    """
    for path in Path(folder).rglob("*.tmp"):
        if re.search(r"\.\d+\.tmp$", path.name) and path.is_file():
            path.unlink()


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
        text = to_json(value, indent=1)
        # Surrogates stand for bytes of a file's name that are no UTF-8.
        file.write(re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text).encode())


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns JSON, also of paths and NumPy scalars."""

    def plain(other):
        return other.item() if isinstance(other, np.generic) else os.fspath(other)

    return json.dumps(value, default=plain, ensure_ascii=False, indent=indent)


def json_sha256(value: Any) -> str:
    """Returns the SHA-256 of a value as `to_json` writes it."""
    return hashlib.sha256(to_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def read_json(path: str | os.PathLike, kind: type = object) -> Any:
    """Reads a JSON file whose value is of this kind, such as `dict`.

    Raises:
        ValueError: If it is no JSON, or of another kind.
    """
    try:
        found = json.loads(Path(path).read_bytes())
        if not isinstance(found, kind):
            raise ValueError(f"expected a {kind.__name__}, got a {type(found).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is broken or half-written ({error}): restore a copy or use another run."
        ) from error
    return found


def read_npz(path: str | os.PathLike, keys: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file, or those of some `keys`; never runs code from it.

    They need no more memory than the file has bytes: arrays that are compressed, or that lie over
    one another, are refused, so that a small file cannot fill the memory.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds other things than plain arrays.
    """
    with _npz(path) as archive:
        return {
            name: _read_array(archive, entry)
            for name, entry in _entries(archive).items()
            if keys is None or name in keys
        }


def map_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """As `read_npz`, but large arrays stay in the file, which is read where they are used.

    All bytes are read once, and compared with their checksums.
    """
    with _npz(path) as archive:
        arrays = {}
        for name, entry in _entries(archive).items():
            large = entry.file_size >= _MAPPED
            arrays[name] = (_map_array if large else _read_array)(archive, entry)
        return arrays


def npz_keys(path: str | os.PathLike) -> list[str]:
    """The names of the arrays of an `.npz` file; raises as `read_npz` does."""
    with _npz(path) as archive:
        return list(_entries(archive))


@contextlib.contextmanager
def _npz(path):
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            sizes = [entry.file_size for entry in archive.infolist()]
            if sum(sizes) > os.fstat(file.fileno()).st_size:
                raise ValueError("its arrays are longer than the file, expected np.savez")
            yield archive
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # zipfile and NumPy raise ten kinds for a damaged file
        raise ValueError(
            f"{path} is damaged, or no .npz file of plain arrays ({error}): copy it again."
        ) from error


def _entries(archive):
    return {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}


def _read_array(archive, entry):
    with archive.open(entry) as file:
        _read_header(file, entry)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def _map_array(archive, entry):
    with archive.open(entry) as file:
        shape, fortran, dtype = _read_header(file, entry)
        if dtype.hasobject:
            raise ValueError(f"{entry.filename} is no plain array")
        header = file.tell()
        while file.read(1 << 20):  # up to the end, where zipfile compares the checksum
            pass
    archive.fp.seek(entry.header_offset + 26)
    names = sum(struct.unpack("<HH", archive.fp.read(4)))
    begin = entry.header_offset + 30 + names + header
    order = "F" if fortran else "C"
    return np.memmap(archive.fp, dtype, "r", begin, shape, order).view(np.ndarray)


def _read_header(file, entry):
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read_header(file)
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed != entry.file_size - file.tell():
        raise ValueError(f"{entry.filename} has the wrong size")
    return shape, fortran, dtype


def refuse_links(folder: str | os.PathLike) -> None:
    """Refuses a folder that holds anything but files and folders, at any depth.

    Writing to a link would change a file elsewhere, and reading a pipe would never end. `folder`
    itself may be a link.

    Raises:
        ValueError: If there is a link, a pipe, a socket or a device.
    """
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    folders.append(entry.path)
                elif not stat.S_ISREG(mode):
                    raise ValueError(
                        f"{entry.path} is a link or no plain file, which a run may not hold: "
                        "replace it by a copy, or remove it."
                    )


def flush(file: IO) -> None:
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: str | os.PathLike) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
