"""Runs from a stranger: links, pipes, bombs, code, and values that no run has."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np

from campaign import cases
from campaign.damage import COPIES, command, load_each, start, wrong
from campaign.trainings import small, write_pairs

VALUES = (None, True, -1, 0, 2**70, 1e308, float("nan"), "", "../../outside", "/dev/zero", [], {})
VALUES += ("\x1b[31m", "a" * 70_000, [[[]]], {"class_name": "Lambda", "config": {}}, "__lambda__")


class Code:
    """What pickle runs when it reads one of these."""

    def __reduce__(self):
        return os.system, ("true",)


def link(path, rng, outside):
    path.unlink()
    path.symlink_to(outside)


def link_to_nothing(path, rng, outside):
    path.unlink()
    path.symlink_to(outside.with_name("nothing"))


def folder_link(path, rng, outside):
    shutil.rmtree(path.parent / "samples", ignore_errors=True)
    (path.parent / "samples").symlink_to(outside.parent)


def pipe(path, rng, outside):
    path.unlink()
    os.mkfifo(path)


def folder(path, rng, outside):
    path.unlink()
    path.mkdir()


def deep(path, rng, outside):
    path.write_text("[" * 100_000)


def names(path, rng, outside):
    """Neighbours with names that no run has."""
    for name in (f"{path.name} (copy)", "\x1b[31mred", "update-00000001 (copy)", "update-99999999"):
        (path.parent / name).mkdir(exist_ok=True)
    (path.parent / "line\nbreak.json").write_text("{}")


def value(path, rng, outside):
    """A JSON file with another value somewhere."""
    files = sorted(path.parents[_depth(path)].rglob("*.json"))
    path = files[rng.integers(len(files))]
    record = json.loads(path.read_text())
    places = list(_places(record))
    if not places:
        return
    holder, key = places[rng.integers(len(places))]
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = VALUES[rng.integers(len(VALUES))]
    path.write_text(json.dumps(record))


def bomb(path, rng, outside):
    """Arrays that claim 8 TB, or that take more memory than the file is long."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1048576, 1048576), }"
    header += b" " * (117 - len(header)) + b"\n"
    content = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(2**24, "u1"))
    how = int(rng.integers(2))
    with zipfile.ZipFile(path, "w", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[how]) as archive:
        archive.writestr("00000/w:float32.npy", (content, zeros.getvalue())[how])


def code(path, rng, outside):
    """Arrays that pickle would read."""
    np.savez(path.with_suffix(".npz"), **{"00000/w:float32": np.array([Code()], object)})
    path.with_suffix(".npz").rename(path)


KINDS = (link, link_to_nothing, folder_link, pipe, folder, deep, names, bomb, code)
KINDS += (value,) * 6


class Hostile:
    """Each method is a turn: it returns what went wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir()
        write_pairs(folder)
        end = cases.run(lambda: small(folder / "run"), folder, watched=False)
        if end.status:
            raise RuntimeError(f"a training on good files fails:\n{end.output}")
        names = (path for path in (folder / "run").rglob("*") if path.is_file())
        self.names = sorted(path.relative_to(folder / "run") for path in names)

    def runs(self, rng: np.random.Generator, number: int) -> str | None:
        """50 hostile copies of the run are loaded; training continues in five."""
        copies, outside = self.folder / "copies", self.folder / "outside" / "file"
        shutil.rmtree(copies, ignore_errors=True)
        outside.parent.mkdir(exist_ok=True)
        outside.write_text("nobody writes here")
        copies.mkdir()
        kinds = []
        for place in range(COPIES):
            copy = shutil.copytree(self.folder / "run", copies / str(place))
            kind = KINDS[(number * COPIES + place) % len(KINDS)]
            name = self.names[rng.integers(len(self.names))]
            kind(copy / name, rng, outside)
            kinds.append(f"{place} {kind.__name__} {name}")
        self.count += COPIES
        trained = [int(place) for place in rng.integers(COPIES, size=5)]

        def load():
            for place in range(COPIES):
                print(kinds[place], flush=True)
                load_each([copies / str(place)])
                if place in trained:
                    start(copies / str(place), small)
                    command(f"average {copies}/{place}", statuses=(0, 1))

        end = cases.run(load, copies)
        if outside.read_text() != "nobody writes here" or len(os.listdir(outside.parent)) > 1:
            return f"something was written to {outside.parent}\n{end.output[-3000:]}"
        if "\x1b" in end.output:
            return f"an escape reached the terminal: {end.output[-3000:]!r}"
        return wrong(end, "hostile runs")


def _depth(path):
    """How many folders above a file of a copied run the run is."""
    return next(i for i, parent in enumerate(path.parents) if parent.parent.name == "copies")


def _places(record):
    """Yields (holder, key) of every value in a JSON value."""
    keys = record.keys() if isinstance(record, dict) else range(len(record))
    for key in list(keys):
        yield record, key
        if isinstance(record[key], dict | list):
            yield from _places(record[key])
