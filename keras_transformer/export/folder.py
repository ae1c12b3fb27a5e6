"""A folder that is written as a whole or not at all."""

import contextlib
import os
import shutil
from pathlib import Path


def refuse_existing(path):
    """Raises an error if an export cannot be written to `path`, before any work is done.

    Raises:
        ValueError: there is something at `path`.
        FileNotFoundError: there is no folder to put it in.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise ValueError(f"{path} exists and is not overwritten: give another name or remove it.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"No folder {path.absolute().parent} to write {path.name} in.")


@contextlib.contextmanager
def new_folder(path):
    """A new folder beside `path` that takes its name at the end; on an error it is removed.

    Args:
        path: the folder to make, in an existing one.

    Raises:
        ValueError, FileNotFoundError: see `refuse_existing`.

    Example:

    ```python
    with new_folder("exports/en-de") as folder:
        (folder / "README.txt").write_text("...")
    ```
    """
    refuse_existing(path)
    path = Path(path).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        refuse_existing(path)  # a rename would replace an empty folder made in between
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary)
        raise
