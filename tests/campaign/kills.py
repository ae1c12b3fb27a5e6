"""Trainings that are killed, at any time or at every call that writes, end as if never stopped."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np

from campaign import cases

UPDATES, EVERY = 6, 2
# The calls between which a crash may leave something half done.
CALLS = ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir", "open")


def train(path: Path) -> None:
    """A training that writes all that a run has, in a second."""
    from noisy_line import Lines, build

    from keras_transformer import files
    from keras_transformer.runs import RunDirectory

    with RunDirectory.start(path, {"seed": 1}) as run:
        if not (path / "tokenizer.model").exists():
            with files.replacing(path / "tokenizer.model") as file:
                file.write(b"pieces")
        run.fit(
            build(),
            Lines(),
            updates=UPDATES,
            validate_every=EVERY,
            log_every=1,
            average=2,
            keep_checkpoints=2,
        )


def contents(path: Path) -> dict:
    """What must be equal in the end: every array, and the names of all files but TensorBoard's."""
    from keras_transformer.runs.checkpoints import read_arrays

    found = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if "events.out" in name:
            continue
        found[name] = read_arrays(file) if file.suffix == ".npz" else None
    return found


def equal(one: dict, other: dict) -> bool:
    if one.keys() != other.keys():
        return False
    return all(
        np.array_equal(a, b)
        for name in one
        for (_, a), (_, b) in zip(one[name] or (), other[name] or (), strict=True)
    )


def crash_at(number: int, path: Path) -> None:
    """Trains, and dies without a word before its n-th call that writes."""
    left = number

    def counting(call):
        def counted(*arguments, **options):
            nonlocal left
            if str(path) in str(arguments[0]) or call is os.fsync:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counted

    for name in CALLS:
        setattr(os, name, counting(getattr(os, name)))
    train(path)


class Kills:
    """Kills one training after another. `kill` returns what went wrong, or None."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder, self.rng = folder, rng
        self.count = self.point = 0
        whole = folder / "whole"
        end = cases.run(lambda: train(whole), whole, watched=False)
        if end.status:
            raise RuntimeError(f"a training that nobody kills fails:\n{end.output}")
        self.expected = contents(whole)

    def at_any_time(self) -> str | None:
        return self._case(lambda path: train(path), self.rng.uniform(0.2, 2.0))

    def at_the_next_call(self) -> str | None:
        """Crashes at call 0, 1, 2, ...; from the beginning again after the last one."""
        point, self.point = self.point, self.point + 1
        before = self.count
        wrong = self._case(lambda path: crash_at(point, path), None)
        if self.count == before:  # the training ended before this call
            self.point = 0
        return wrong

    def _case(self, work, seconds):
        path = self.folder / "killed"
        shutil.rmtree(path, ignore_errors=True)
        end = cases.run(lambda: work(path), path, watched=False, kill_after=seconds)
        self.count += end.status == -signal.SIGKILL
        if end.status not in (0, -signal.SIGKILL):
            return f"ended with {end.status}:\n{end.output}"
        again = cases.run(lambda: train(path), path)
        if again.status or again.traceback or again.forbidden:
            return f"the next start ended with {again.status}:\n{again.output}"
        if not equal(contents(path), self.expected):
            names = sorted(set(contents(path)) ^ set(self.expected)) or "numbers"
            return f"the end differs: {names}"
        return None
