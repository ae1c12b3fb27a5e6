"""Files of a run and inputs of the command that are damaged, as by disks, copies and editors."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mutations import mutations

from campaign import cases, trainings

COPIES = 50  # of a turn


class Damage:
    """Damages one file after another. Each method is a turn: it returns what went wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.copies = folder / "copies"
        folder.mkdir()
        trainings.write_pairs(folder)
        end = cases.run(lambda: trainings.small(folder / "run"), folder, watched=False)
        if end.status:
            raise RuntimeError(f"a training on good files fails:\n{end.output}")
        names = (path for path in (folder / "run").rglob("*") if path.is_file())
        self.names = sorted(path for path in names if "events" not in path.name)

    def files(self, rng: np.random.Generator, number: int) -> str | None:
        """A file of the run, damaged in 50 ways: 50 copies are loaded, one is trained on."""
        original = self.names[number % len(self.names)]
        name = original.relative_to(self.folder / "run")
        for place, data in enumerate(self._kinds(original, rng, COPIES)):
            copy = shutil.copytree(self.folder / "run", self.copies / str(place))
            (copy / name).write_bytes(data)
        chosen = int(rng.integers(COPIES))
        end = cases.run(lambda: self._load(COPIES, chosen), self.copies)
        return wrong(end, f"damage to {name}")

    def _load(self, count, chosen):
        load_each(self.copies / str(place) for place in range(count))
        # One of them by a verb, which also writes.
        start(self.copies / str(chosen), trainings.small, "--updates 6")

    def inputs(self, rng: np.random.Generator, number: int) -> str | None:
        """Text for `score` and `evaluate`, garbled in 50 ways; files for `average`."""
        kinds = self._kinds(self.folder / "pairs.tsv", rng, COPIES - 10)
        kinds += [rng.bytes(int(rng.integers(1, 300))) for _ in range(10)]
        self.count += 10

        def read():
            for place, data in enumerate(kinds):
                path = self.copies / f"{place}.tsv"
                path.write_bytes(data)
                verbs = f"score {self.folder}/run --tsv {path}", f"average {path}"
                verbs += (f"evaluate --hypotheses {path} --reference {path}",)
                command(verbs[place % len(verbs)], statuses=(0, 1))

        return wrong(cases.run(read, self.copies), "inputs")

    def source(self, rng: np.random.Generator, number: int) -> str | None:
        """A damaged run is the source of `--init-from`, 5 times; nothing of it changes."""
        original = self.names[number % len(self.names)]
        name = original.relative_to(self.folder / "run")
        for place, data in enumerate(self._kinds(original, rng, 5)):
            copy = shutil.copytree(self.folder / "run", self.copies / "from" / str(place))
            (copy / name).write_bytes(data)
        out = self.copies / "new"

        def train():
            for place in range(5):
                init = f"--init-from {self.copies}/from/{place}"
                start(out / str(place), trainings.by_command, init)

        out.mkdir()
        return wrong(cases.run(train, out), f"--init-from with damage to {name}")

    def _kinds(self, original, rng, count):
        """A new folder for copies, and the damaged bytes."""
        shutil.rmtree(self.copies, ignore_errors=True)
        self.copies.mkdir()
        self.count += count
        seed = int(rng.integers(2**31))
        return [*mutations(original.read_bytes(), count - 1, seed), b""]


def start(path: Path, train: Callable, *options: str) -> None:
    """Trains. It may end with an error in one line."""
    if not (path.parent / "pairs.tsv").exists():
        trainings.write_pairs(path.parent)
    try:
        train(path, *options)
    except SystemExit as end:
        if end.code != 1:
            raise


def command(line: str, statuses: tuple[int, ...]) -> None:
    """Runs the command. It may end with these statuses."""
    from keras_transformer import cli

    with open(os.devnull) as sys.stdin:
        status = cli.main(line.split())
    if status not in statuses:
        raise AssertionError(f"{line}: status {status}")


def load_each(runs) -> None:
    """Loads runs; errors that users can mend are printed."""
    from keras_transformer.cli import program
    from keras_transformer.runs.loading import load_translator

    for run in runs:
        try:
            with program("load"):
                load_translator(run)
        except SystemExit as end:
            print(end.code, file=sys.stderr)


def wrong(end: cases.End, what: str) -> str | None:
    """What went wrong in a case that ended so, or None."""
    for name in ("hung", "forbidden", "traceback"):
        if getattr(end, name):
            return f"{what}: {name}\n{end.output[-3000:]}"
    return None if end.status == 0 else f"{what}: status {end.status}\n{end.output[-3000:]}"
