"""The file that keeps a corpus as ids, and how it is written piece by piece.

While a corpus is encoded, its columns grow in the folder `NAME.parts`. Every so often they are
flushed to the disk, and `state.json` says how far they are valid. Whoever starts again after a kill
continues there. At the end they become one `.npz` file, whose arrays training reads from the disk.
"""

import contextlib
import dataclasses
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_transformer.data.encoded_pairs import EncodedPairs
from keras_transformer.files import flush, map_npz, read_json, replacing, write_json
from keras_transformer.text.workers import Flat

FORMAT = "keras_transformer.EncodedPairs.1"
PAIRS_AT_A_TIME = 250_000  # between two flushes
_BYTES_AT_A_TIME = 1 << 22
_COLUMNS = "source_ids", "source_lengths", "target_ids", "target_lengths"
_OFFSETS = {"source_lengths": "source_offsets", "target_lengths": "target_offsets"}


@dataclasses.dataclass
class Progress:
    """How far a corpus is encoded."""

    read: int = 0  # pairs, with those that were dropped
    dropped_empty: int = 0
    dropped_long: int = 0


class InMemory:
    """Collects the ids of a corpus in arrays."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._columns: tuple[list[np.ndarray], ...] = ([], [], [], [])

    def add(self, sides: Sequence[Flat]) -> None:
        """Adds the ids of the next pairs."""
        for column, array in zip(self._columns, [*sides[0], *sides[1]], strict=True):
            column.append(array)

    def keep(self) -> None:
        """Does nothing: what is in memory is lost with the process."""

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the arrays of `EncodedPairs`, and forgets them here."""
        arrays = {}
        for name, column in zip(_COLUMNS, self._columns, strict=True):
            joined = np.concatenate(column)
            column.clear()  # so that at most one column is in memory twice
            if name in _OFFSETS:
                joined = _summed(joined, np.empty(len(joined) + 1, np.int64))
            arrays[_OFFSETS.get(name, name)] = joined
        return arrays

    def close(self) -> None:
        """Does nothing."""


class OnDisk:
    """Collects the ids of a corpus in files, and continues where an earlier process stopped.

    Args:
        path: The cache that shall be written.
        key: What it is made from. Parts that were made from something else are removed.
        dtype: Of the ids.

    Raises:
        OSError: If another process encodes the same, or the file system has no locks.
    """

    def __init__(self, path: Path, key: str, dtype: np.dtype) -> None:
        self._folder = parts_of(path)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self._folder / "lock", "wb")
        _take(self._lock)
        self._made_from = {"key": key, "dtype": str(dtype)}
        self._dtypes = [dtype, np.dtype(np.int32)] * 2
        self._begin()
        if not self._resume():
            self._begin()
        self._files: list[IO[bytes]] = [open(self._folder / name, "ab") for name in _COLUMNS]
        for file, (size, _) in zip(self._files, self._sums, strict=True):
            file.truncate(size)
        self._kept = self.progress.read

    def _begin(self):
        self.progress = Progress()
        self._sums = [(0, 0)] * len(_COLUMNS)  # bytes and CRC-32 of each column

    def _resume(self):
        try:
            state = read_json(self._folder / "state.json", dict)
            if any(state[name] != value for name, value in self._made_from.items()):
                return False
            self.progress = Progress(**state["progress"])
            self._sums = [(int(size), int(crc)) for size, crc in state["columns"]]
            return all(
                _checksum(self._folder / name, size) == crc
                for name, (size, crc) in zip(_COLUMNS, self._sums, strict=True)
            )
        except (OSError, ValueError, KeyError, TypeError):  # missing or damaged
            return False

    def add(self, sides: Sequence[Flat]) -> None:
        """Adds the ids of the next pairs."""
        arrays = [*sides[0], *sides[1]]
        for column, (array, dtype) in enumerate(zip(arrays, self._dtypes, strict=True)):
            data = array.astype(dtype).tobytes()
            self._files[column].write(data)
            size, crc = self._sums[column]
            self._sums[column] = size + len(data), zlib.crc32(data, crc)

    def keep(self) -> None:
        """Every so often makes sure that the pairs so far survive a kill or a power cut."""
        if self.progress.read - self._kept >= PAIRS_AT_A_TIME:
            for file in self._files:
                flush(file)
            state = {"columns": self._sums, "progress": vars(self.progress)}
            write_json(self._folder / "state.json", self._made_from | state)
            self._kept = self.progress.read

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the arrays of `EncodedPairs`, which are read from the disk when used."""
        arrays = {}
        for name, dtype, file in zip(_COLUMNS, self._dtypes, self._files, strict=True):
            file.flush()
            array = _on_disk(self._folder / name, dtype, "r")
            if name in _OFFSETS:
                name = _OFFSETS[name]
                empty = _on_disk(self._folder / name, np.dtype(np.int64), "w+", len(array) + 1)
                array = _summed(array, empty)
            arrays[name] = array
        return arrays

    def close(self) -> None:
        """Lets other processes go on, and leaves the files."""
        for file in [*self._files, self._lock]:
            file.close()


def remove_parts(path: Path) -> None:
    """Removes the parts, also those of a killed process, unless another process writes them."""
    with contextlib.suppress(OSError), open(parts_of(path) / "lock", "wb") as lock:
        _take(lock)
        shutil.rmtree(parts_of(path))


def parts_of(path: Path) -> Path:
    """The folder in which a cache grows."""
    return path.with_name(f"{path.name}.parts")


def save(encoded: EncodedPairs, path: Path, key: str) -> None:
    """Writes the cache, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, format=FORMAT, key=key, **vars(encoded))


def read(path: Path, key: str | None = None) -> EncodedPairs | None:
    """Reads a cache. Returns None if the file is missing or has another `key`.

    Raises:
        ValueError: If the file is damaged or of another kind.
    """
    if not path.exists():
        return None
    refuse_others(path)
    arrays = map_npz(path)
    if key is not None and str(arrays.get("key")) != key:
        return None
    values: dict[str, Any] = {}
    for name in EncodedPairs.__dataclass_fields__:
        if name not in arrays:
            raise ValueError(f"{path} is damaged: it has no {name}.")
        values[name] = arrays[name] if arrays[name].ndim else int(arrays[name])
    return EncodedPairs(**values)


def refuse_others(path: Path) -> None:
    """Refuses a file that `save` never wrote. One that is damaged, cut or empty passes."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        beginning = file.read(1000)
    signs = b"format.npy", FORMAT.encode("utf-32-le")  # damage may have hit one of them
    cut = len(beginning) < 50 and beginning[:4] == b"PK\3\4"[: len(beginning)]
    zeros = not beginning.strip(b"\0")  # or nothing: as a power cut leaves it
    if not (cut or zeros or any(sign in beginning for sign in signs)):
        raise ValueError(
            f"{path} exists and is not a cache of encoded pairs. Give another path, or move it "
            "away."
        )


def _take(file):
    """Locks a file against other processes."""
    try:
        import fcntl
    except ImportError as error:  # on Windows
        raise OSError("There are no locks.") from error
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _summed(lengths, offsets):
    """Fills `offsets`, which has one place more than there are lengths."""
    offsets[0] = 0
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _on_disk(path, dtype, mode, length=None):
    if length is None and not path.stat().st_size:
        return np.empty(0, dtype)  # which cannot be mapped
    return np.memmap(path, dtype, mode, shape=length).view(np.ndarray)


def _checksum(path, size):
    """CRC-32 of the first `size` bytes; None if there are fewer."""
    checksum = 0
    with open(path, "rb") as file:
        while size:
            data = file.read(min(size, _BYTES_AT_A_TIME))
            if not data:
                return None
            checksum, size = zlib.crc32(data, checksum), size - len(data)
    return checksum
