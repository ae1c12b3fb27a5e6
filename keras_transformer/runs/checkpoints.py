"""Checkpoints as files: variables are saved and loaded exact to the bit, each file as a whole.

No pickle anywhere: a stranger's file can be read without running its code.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np

from keras_transformer import progress
from keras_transformer.files import flush, flush_folder, json_sha256, read_json, read_npz, to_json
from keras_transformer.ops import backend, processes
from keras_transformer.runs import identity

# Beside state.json.
FILES = "weights.npz", "state.npz"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint on disk."""

    path: Path  # its folder
    update: int  # the number of optimizer updates before it
    state: dict  # the caller's state that was saved with it


def save_checkpoint(folder: Path, model: keras.Model, update: int, state: dict) -> Checkpoint:
    """Writes `folder/update-NNNNNNNN`; a reader sees the whole of it or nothing."""
    final = folder / f"update-{update:08d}"
    if not processes.is_first():
        for variables in _variables(model).values():
            for variable in variables:
                processes.whole(variable)  # the first process needs the parts that are here
        return Checkpoint(final, update, json.loads(to_json(state)))
    folder.mkdir(exist_ok=True)
    remove_left_overs(folder)
    temporary = folder / f".tmp-{final.name}"
    temporary.mkdir()
    files = {}
    for name, variables in _variables(model).items():
        with open(temporary / name, "wb+") as file:
            write_arrays(file, [(v.path, processes.whole(v)) for v in variables])
            flush(file)
            files[name] = {"size": os.fstat(file.fileno()).st_size, "sha256": _sha256(file)}
    record = {
        "update": update,
        "backend": backend.name(),
        "files": files,
        "run": identity.of(folder.parent),
        "state": state,
    }
    record["sha256"] = json_sha256(record)
    with open(temporary / "state.json", "wb") as file:  # last: it vouches for the others
        file.write(to_json(record, indent=1).encode())
        flush(file)
    flush_folder(temporary)
    if final.exists():  # a damaged one, or the same update saved twice
        discard(final)
    os.rename(temporary, final)
    flush_folder(folder)
    return Checkpoint(final, update, json.loads(to_json(state)))


def complete(folders: Iterable[Path], contents: bool = True) -> Iterator[Checkpoint]:
    """Yields the complete checkpoints among `folders`; names the damaged ones on stderr.

    With `contents=False` it compares only the sizes, no SHA-256.

    Raises:
        ValueError: If a complete checkpoint belongs to another run.
    """
    for folder in folders:
        try:
            record = _read_state(folder)
            for name in FILES:
                expected = record["files"][name]
                with open(folder / name, "rb") as file:
                    if os.fstat(file.fileno()).st_size != expected["size"]:
                        raise ValueError(f"{name} has the wrong size")
                    if contents and _sha256(file) != expected["sha256"]:
                        raise ValueError(f"{name} has the wrong SHA-256")
        except (OSError, ValueError, KeyError, TypeError) as error:
            progress.say(f"warning: skipping damaged checkpoint {folder}: {error}")
        else:
            if contents:
                identity.check(folder.parent.parent, record.get("run", {}), folder)
            yield Checkpoint(folder, record["update"], record["state"])


def _read_state(folder):
    """The record that `save_checkpoint` wrote. In version 0.1.0 it had no SHA-256 of its own."""
    record = read_json(folder / "state.json", dict)
    if "run" in record and record.pop("sha256", None) != json_sha256(record):
        raise ValueError("state.json has the wrong SHA-256")
    kinds = {"update": int, "backend": str, "files": dict, "state": dict}
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"state.json has no {name}")
    if folder.name != f"update-{record['update']:08d}":
        raise ValueError(f"state.json is of update {record['update']}")
    return record


def remove_left_overs(folder: Path) -> None:
    """Removes what a process left that was killed while it saved or removed a checkpoint."""
    for left_over in folder.glob(".tmp-*"):
        shutil.rmtree(left_over)


def discard(folder: Path) -> None:
    """Removes a checkpoint; killed half-way, the rest is cleared at the next save."""
    hidden = folder.with_name(f".tmp-removed-{folder.name}")
    os.rename(folder, hidden)
    shutil.rmtree(hidden)


def restore_checkpoint(model: keras.Model, checkpoint: Checkpoint) -> dict:
    """Puts weights, seed states and optimizer back; see `RunDirectory.restore`."""
    saved_on = read_json(checkpoint.path / "state.json")["backend"]
    if saved_on != backend.name():
        raise ValueError(
            f"{checkpoint.path} was saved on the {saved_on} backend, this is {backend.name()}, and "
            f"their random numbers differ: resume with KERAS_BACKEND={saved_on}."
        )
    variables = _variables(model)
    saved = {name: read_arrays(checkpoint.path / name) for name in variables}
    for name in variables:  # all of it is checked before anything of the model changes
        _check_fit(variables[name], saved[name], checkpoint.path / name)
    for name in variables:
        _assign(variables[name], saved[name])
    return checkpoint.state


def load_weights(model: keras.Model, source: Checkpoint | Path) -> None:
    """Loads only the weights, for translation; the model needs no optimizer.

    Args:
        model: A built model of the same architecture. Its variables keep their own float type.
        source: A checkpoint, or a file such as `averaged.npz`.
    """
    path = weights_path(source)
    arrays = read_arrays(path)
    _check_fit(model.weights, arrays, path, same_dtype=False)
    _assign(model.weights, arrays)


def weights_path(source: Checkpoint | Path) -> Path:
    """The file of the weights of a checkpoint; a file is returned as it is."""
    return source.path / "weights.npz" if isinstance(source, Checkpoint) else source


def average(checkpoints: Sequence[Checkpoint]) -> list[np.ndarray]:
    """The arithmetic mean of the weights of several checkpoints (paper sec. 6.1).

    Summed in float64 and cast back to each variable's type; integers come from the last one.

    Returns:
        Arrays in the order of `model.weights`.
    """
    if not checkpoints:
        raise ValueError("Cannot average: no checkpoint was given, expected one or more.")
    sums: list[np.ndarray] = []
    with progress.work("averaging", len(checkpoints), "checkpoints") as done:
        for checkpoint in checkpoints:
            arrays = [array for _, array in read_arrays(checkpoint.path / "weights.npz")]
            if not sums:
                sums = [np.zeros(array.shape) for array in arrays]
            if [total.shape for total in sums] != [array.shape for array in arrays]:
                raise ValueError(
                    f"Cannot average: {checkpoint.path} holds other shapes than "
                    f"{checkpoints[0].path}; average checkpoints of one run."
                )
            sums = [
                total + array.astype("float64") for total, array in zip(sums, arrays, strict=True)
            ]
            done()
    return [
        last if last.dtype.kind in "iub" else (total / len(checkpoints)).astype(last.dtype)
        for total, last in zip(sums, arrays, strict=True)
    ]


# --- variables ---


def _variables(model: keras.Model) -> dict[str, list]:
    """What training changes, by file: the weights; the seed states and the optimizer."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            "The model has no optimizer, so it can be neither saved for resuming nor resumed: "
            "call model.compile(optimizer=...) first."
        )
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    weights = {id(variable) for variable in model.weights}
    seeds = [variable for variable in model.variables if id(variable) not in weights]
    return dict(zip(FILES, (model.weights, seeds + optimizer.variables), strict=True))


def _check_fit(variables, saved, path: Path, same_dtype: bool = True):
    """Compares in order and without numbers: `dense_3` is another dense in another process."""
    if len(variables) != len(saved):
        raise ValueError(
            f"{path} does not fit the model: it holds {len(saved)} variables, the model has "
            f"{len(variables)}; build it (and its optimizer) with the settings of that run."
        )
    for variable, (name, array) in zip(variables, saved, strict=True):
        here = (tuple(variable.shape), same_dtype and variable.dtype)
        there = (array.shape, same_dtype and array.dtype.name)
        names = _kind(variable.path), _kind(name)
        if here != there or not (names[0].endswith(names[1]) or names[1].endswith(names[0])):
            raise ValueError(
                f"{path} does not fit the model: it holds {name} {array.shape} {array.dtype}, the "
                f"model has {variable.path} {tuple(variable.shape)} {variable.dtype} in its place; "
                "build it (and its optimizer) with the settings of that run."
            )


def _kind(path: str) -> str:
    """`model_1/dense_3/kernel` -> `dense_kernel`: scopes further out depend on who built it.

    The same for the variables of version 0.1, whose attention had a `query_kernel`, and no
    `query/kernel`.
    """
    name = re.sub(r"_\d+(?=_|$)", "", "_".join(path.split("/")[-2:]))
    return name.replace("patches_", "").replace("embeddings", "embedding")


def _assign(variables, saved):
    for variable, (_, array) in zip(variables, saved, strict=True):
        variable.assign(array)


# --- arrays ---


def write_arrays(
    file: IO[bytes], named_arrays: Iterable[tuple[str, np.ndarray]], **notes: Any
) -> None:
    """Writes arrays as `.npz`, in order, under the keys `00000/name:dtype`; notes beside them."""
    entries = dict(notes)
    for index, (name, array) in enumerate(named_arrays):
        # .npy knows no bfloat16 or float8 (kind V): their bits go as unsigned integers.
        bits = array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array
        entries[f"{index:05d}/{name}:{array.dtype.name}"] = bits
    np.savez(file, **entries)


def read_arrays(path: Path) -> list[tuple[str, np.ndarray]]:
    """Reads what `write_arrays` wrote: (name, array) in order."""
    named = []
    for key, bits in sorted(read_npz(path).items()):
        name, _, dtype = key.partition("/")[2].rpartition(":")
        if name:
            try:
                named.append((name, bits if bits.dtype.name == dtype else bits.view(dtype)))
            except TypeError as error:
                raise ValueError(f"{path} is damaged ({key!r}: {error}): copy it again.") from error
    return named


def read_note(path: Path, name: str) -> list:
    """Reads one of the notes that were given to `write_arrays`, as a list; empty without it."""
    notes = read_npz(path, [name])
    return notes[name].tolist() if name in notes else []


def _sha256(file) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
