"""What the start of a run takes and writes down: the lock, and where it runs."""

import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Collection
from pathlib import Path
from typing import IO

from keras_transformer.ops import backend, processes
from keras_transformer.runs import recorded

PACKAGES = ("keras-transformer-kit", "keras", "tensorflow", "jax", "torch", "numpy")


def take_lock(path: Path) -> IO[str]:
    """Locks a run against other trainers; closing the file gives the lock back.

    Raises:
        ValueError: If another process is training there.
        OSError: If the file system has no locks.
    """
    import fcntl  # not on Windows, where runs can still be read

    file = open(path, "a+")  # not "w": that would erase the pid of the holder
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise ValueError(
            f"{path.parent} is being trained by process {holder}: wait for it, stop it, or give "
            "another --run-dir."
        ) from error
    except OSError as error:
        file.close()
        raise OSError(
            f"{path} cannot be locked ({error.strerror}), so two trainings could mix here: give a "
            "--run-dir on another disk, or let this file system be mounted with locks."
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()} on {platform.node()}\n")
    file.flush()
    return file


def follow(path: Path, settings: dict, changeable: Collection[str]) -> None:
    """Waits until the first process of a training has started the run at `path`.

    Raises:
        ValueError: If this process has other settings, or does not see the run.
    """
    others = recorded.fatal(processes.from_first(), settings, changeable)
    if others:
        raise ValueError(
            "This process has other settings than the first process of the training "
            f"({recorded.listed(others)}): start all with the same command on the same text."
        )
    if not (path / "settings.json").exists():
        raise ValueError(
            f"{path} was started by the first process of the training, and is not seen by this "
            "one: give a --run-dir on a file system that all processes share."
        )


def environment() -> dict:
    """Versions, backend and machine of this process."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        **versions,
        "backend": backend.name(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
    }
