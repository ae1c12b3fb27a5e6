"""Trainings that are killed, stopped or pre-empted end as if nobody had touched them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from campaign import cases, trainings

# The calls between which a crash may leave something half done.
CALLS = ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir", "open")
# Files that say when and where a run was trained.
OF_A_START = {"versions.json", "settings.json", "lock", "state.json", "report.txt"}


def contents(path: Path) -> dict:
    """What must be equal in the end: arrays, validations, and the other files' bytes."""
    from keras_transformer.runs.checkpoints import read_arrays

    found: dict = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if "events.out" in name:
            continue
        if file.suffix == ".npz":
            found[name] = [
                (key, array) for key, array in read_arrays(file) if not key.startswith("run")
            ]
        elif file.name == "log.jsonl":
            records = map(json.loads, file.read_text(encoding="utf-8").splitlines())
            keys = ("event", "update", "val_loss", "validation_bleu")
            found[name] = [
                [record.get(key) for key in keys]
                for record in records
                if record["event"] != "interval"
            ]
        else:
            known = file.is_dir() or file.name in OF_A_START
            found[name] = None if known else file.read_bytes()
    return found


def snapshot(path: Path) -> dict[str, bytes]:
    """The bytes of all files."""
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def differences(one: dict, other: dict) -> list[str]:
    """The names of what differs between two `contents`."""
    names = set(one) ^ set(other)
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        if name.endswith(".npz"):
            same = [key for key, _ in a] == [key for key, _ in b] and all(
                np.array_equal(x, y) for (_, x), (_, y) in zip(a, b, strict=True)
            )
        else:
            same = a == b
        names |= set() if same else {name}
    return sorted(names)


def crash_at(number: int, path: Path, train, deadly: int = signal.SIGKILL) -> int:
    """Trains, and sends itself a signal before its n-th call that writes. Returns their number."""
    calls = 0

    def counting(call):
        def counted(*arguments, **options):
            nonlocal calls
            if call is fsync or "dir_fd" in options or str(path) in str(arguments[0]):
                if calls == number:
                    os.kill(os.getpid(), deadly)
                calls += 1
            return call(*arguments, **options)

        return counted

    fsync = os.fsync
    for name in CALLS:
        setattr(os, name, counting(getattr(os, name)))
    train(path)
    return calls


class Kills:
    """Kills one of `trainings.TRAININGS`. Each method is a turn: it returns what went wrong."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.train = folder, name, trainings.TRAININGS[name]
        self.count = 0  # of processes that a signal has ended
        folder.mkdir()
        trainings.write_pairs(folder)
        if name == "init_from":
            self._whole(folder / "source", trainings.TRAININGS["train"])
        warm = folder / "warm"
        self._whole(warm, self.train)  # JAX keeps what it compiles
        start = time.monotonic()
        end = self._whole(folder / "whole", lambda path: crash_at(-1, path, self.train))
        self.seconds, self.calls = time.monotonic() - start, end
        self.expected = contents(folder / "whole")
        if different := differences(contents(warm), self.expected):
            raise RuntimeError(f"two trainings that nobody kills differ: {different}")

    def _whole(self, path, train):
        end = cases.run(lambda: print("returned", train(path)), path, watched=False)
        if end.status:
            raise RuntimeError(f"a training that nobody kills fails:\n{end.output}")
        calls = re.search(r"^returned (\d+)", end.output, re.MULTILINE)
        return int(calls[1]) if calls else 0

    def at_any_time(self, rng: np.random.Generator, number: int) -> str | None:
        """SIGKILL at a random moment."""
        return self._signalled(rng, signal.SIGKILL, {-signal.SIGKILL, 0})

    def by_sigterm(self, rng: np.random.Generator, number: int) -> str | None:
        """SIGTERM at a random moment: it saves and ends with 143, or dies before it trains."""
        return self._signalled(rng, signal.SIGTERM, {-signal.SIGTERM, 128 + signal.SIGTERM, 0})

    def at_the_next_call(self, rng: np.random.Generator, number: int) -> str | None:
        """SIGKILL before the call `number` that writes; and from the first call again."""
        point, path = number % self.calls, self._new()
        end = cases.run(lambda: crash_at(point, path, self.train), path, watched=False)
        if end.status != -signal.SIGKILL:
            return f"it was not killed at call {point}: {end.status}\n{end.output}"
        self.count += 1
        return self._ends_well(path)

    def twice(self, rng: np.random.Generator, number: int) -> str | None:
        """SIGKILL at a random call, and the next start at a random call of its own."""
        path = self._new()
        for _ in range(2):
            point = int(rng.integers(self.calls))
            end = cases.run(lambda at=point: crash_at(at, path, self.train), path, watched=False)
            if end.status not in (0, -signal.SIGKILL):
                return f"killed at call {point}, ended with {end.status}\n{end.output}"
            self.count += end.status != 0
        return self._ends_well(path)

    def beside_another(self, rng: np.random.Generator, number: int) -> str | None:
        """A stopped process holds the folder: a second is refused until the first one is killed."""
        path, point = self._new(), int(rng.integers(self.calls))
        first = cases.Case(
            lambda: crash_at(point, path, self.train, signal.SIGSTOP), path, watched=False
        )
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        held = (path / "lock").exists() and str(first.pid) in (path / "lock").read_text()
        before = snapshot(path)
        if held:
            second = cases.run(lambda: self.train(path), path)
            refused = second.status and f"is being trained by process {first.pid} on" in (
                second.output
            )
        first.send(signal.SIGKILL)
        first.end()
        self.count += 1
        if held and not refused:
            return f"a second process was not refused: {second.status}\n{second.output}"
        if held and snapshot(path) != before:
            return "the process that was refused changed the folder"
        return self._ends_well(path)

    def of_a_fresh_process(self, rng: np.random.Generator, number: int) -> str | None:
        """SIGKILL of a process that is no fork, and a second one that continues."""
        path = self._new()
        command = [sys.executable, "-m", "campaign", "--train", self.name, str(path)]
        files = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, **files) as process:
            for line in process.stdout:  # it has imported what it needs
                if line.startswith(b"imported"):
                    break
            try:
                process.wait(float(rng.uniform(0, self.seconds)))
            except subprocess.TimeoutExpired:
                process.kill()
                self.count += 1
        done = subprocess.run(command, **files)
        if done.returncode:
            return f"the next start ended with {done.returncode}:\n{done.stdout.decode()}"
        return self._compared(path)

    def _new(self):
        path = self.folder / "killed"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def _signalled(self, rng, number, statuses):
        path = self._new()
        case = cases.Case(lambda: self.train(path), path, watched=False)
        case.wait(float(rng.uniform(0, self.seconds)))
        case.send(number)
        end = case.end()
        if end.status not in statuses or end.traceback:
            return f"ended with {end.status}:\n{end.output}"
        self.count += end.status != 0  # else it had ended before
        saved = re.search(r"saved update (\d+)", end.output)
        if end.status == 128 + number and not saved:
            return f"it ended without a word:\n{end.output}"
        return self._ends_well(path, f"resuming at update {saved[1]}" if saved else "")

    def _ends_well(self, path, said=""):
        again = cases.run(lambda: self.train(path), path)
        if again.status or again.traceback or again.forbidden:
            return f"the next start ended with {again.status}:\n{again.output}"
        if said not in again.output and "trained already" not in again.output:
            return f"it did not say {said!r}:\n{again.output}"
        return self._compared(path)

    def _compared(self, path):
        different = differences(contents(path), self.expected)
        return f"the end differs: {different}" if different else None
