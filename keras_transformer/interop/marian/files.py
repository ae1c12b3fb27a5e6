"""Reads the files of a stranger: only plain files of one folder, and nothing that could be code."""

import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_transformer.arguments import whole_number

LARGEST = 10_000_000  # of the ids of a vocabulary
# The types of a safetensors file that models are stored in. BF16 are the upper bits of F32.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Parts(NamedTuple):
    """A model of Marian as read from its files."""

    arrays: dict[str, np.ndarray]  # by Marian's own names; kernels are [inputs, outputs]
    sizes: dict[str, Any]  # arguments of `Transformer`
    frequencies: np.ndarray  # [D / 2] of the sinusoids, in radians per position
    spm: tuple[bytes, bytes]  # the SentencePiece models of source and target
    pieces: tuple[list[str], list[str]]  # by id; one list if both sides share it
    start: int | None  # the id of the decoder's first input; None for a zero vector


def file_in(folder: Path, name: str) -> Path:
    """The path of a plain file directly in the folder.

    A symbolic link may lead elsewhere, as in the cache of Hugging Face, but to a plain file: a
    device or a pipe would never end.

    Raises:
        ValueError: If `name` is a path to another folder, or there is no such file.
    """
    if not name or name != os.path.basename(name) or name in (".", ".."):
        raise ValueError(
            f"{folder} names the file {name!r}, which is not directly in it. Put all files of the "
            "model into one folder, and their names without folders into decoder.yml."
        )
    path = folder / name
    try:
        plain = stat.S_ISREG(path.stat().st_mode)
    except OSError:
        plain = False
    if not plain:
        raise ValueError(f"{folder} lacks the file {name}: copy the model as a whole.")
    return path


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}): copy it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object: copy it again.")
    return found


def by_id(ids: dict[str, Any], path: Path) -> list[str]:
    """The pieces of a vocabulary {piece: id} in the order of their ids."""
    numbers = [whole_number(f"{path}: the id of {piece!r}", ids[piece], 0) for piece in ids]
    if len(set(numbers)) != len(numbers) or max(numbers, default=0) > LARGEST:
        raise ValueError(f"{path} gives an id to several pieces, or one above {LARGEST:,}.")
    pieces = [""] * (max(numbers, default=-1) + 1)
    for piece, number in zip(ids, numbers, strict=True):
        pieces[number] = piece
    return pieces


def read_yaml(data: bytes, name: object) -> dict[str, Any]:
    """The mapping in a YAML text: all keys and scalars are strings.

    YAML's other types would make True of the piece "on", and other tags could be code.
    """
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        found = yaml.load(data.decode(), loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no YAML ({error}): copy it again.") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{name} holds no YAML mapping from strings: copy it again.")
    return found


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.safetensors` file, as float32.

    The format: the length of a JSON header in 8 bytes, the header, then the numbers. The header
    gives the type, the shape and the place of each array.
    """
    data = np.fromfile(path, "uint8")
    try:
        size = int.from_bytes(data[:8].tobytes(), "little")
        if len(data) < 8 or size > len(data) - 8:
            raise ValueError(f"a header of {size} bytes in a file of {len(data)}")
        header = json.loads(data[8 : 8 + size].tobytes())
        header.pop("__metadata__", None)
        return {name: _array(data[8 + size :], **entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged, or no safetensors file ({error}): copy it again."
        ) from error


def _array(numbers, dtype, shape, data_offsets):
    begin, end = data_offsets
    kind = np.dtype(DTYPES[dtype])
    if not all(isinstance(each, int) and each >= 0 for each in (*shape, begin, end)):
        raise ValueError(f"shape {shape} at {data_offsets}")
    array = np.frombuffer(numbers[begin:end].tobytes(), kind).reshape(shape)  # checks the size
    if dtype == "BF16":
        return (array.astype("uint32") << 16).view("float32")
    return array.astype("float32")


def refuse_others(where: object, found: dict[str, Any], wanted: dict[str, tuple]) -> None:
    """Raises an error for the first option that has another value than the wanted ones.

    Args:
        where: The file.
        found: Its options. An option that is missing has the first of the wanted values.
        wanted: {option: (a value, another, ..., what the model would need)}.
    """
    for name, (*values, need) in wanted.items():
        if found.get(name, values[0]) not in values:
            raise ValueError(
                f"{where} has {name}: {found[name]!r}, expected {' or '.join(map(repr, values))}. "
                f"It needs {need}, which a Transformer of this package does not have."
            )
