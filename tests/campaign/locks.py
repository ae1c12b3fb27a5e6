"""Locks of file systems that have none, or that fail."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np

from campaign import cases, trainings

# What flock returns on NFS without its lock service, on file systems without locks, and on servers
# that went away.
ERRORS = ("ENOLCK", "ENOTSUP", "ENOSYS", "EIO", "ESTALE", "EINTR", "EACCES")


class Locks:
    """Each method is a turn: it returns what went wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir()
        trainings.write_pairs(folder)

    def that_fail(self, rng: np.random.Generator, number: int) -> str | None:
        """A lock that fails is an error in one line that names the folder; nothing is trained."""
        path, name = self.folder / "run", ERRORS[number % len(ERRORS)]
        shutil.rmtree(path, ignore_errors=True)
        self.count += 1

        def train():
            import fcntl

            def fail(*_):
                code = getattr(errno, name)
                raise OSError(code, os.strerror(code))

            fcntl.flock = fail
            trainings.TRAININGS["train"](path)

        end = cases.run(train, path)
        *notices, line = end.output.strip().split("\n")
        if end.status != 1 or end.traceback or end.forbidden or "cannot be locked" not in line:
            return f"{name}: status {end.status}\n{end.output}"
        left = sorted(os.listdir(path))
        return None if left in ([], ["lock"]) else f"{name}: it left {left}"
