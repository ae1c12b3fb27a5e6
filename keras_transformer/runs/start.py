"""What the start of a run takes and writes down: the lock, and where it runs."""

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import IO

from keras_transformer.ops import backend

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
