"""A folder or a file that is written as a whole or not at all, and never over another."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from keras_transformer.checkpoint_files import replacing


def refuse_existing(path):
    """Raises an error if an export cannot be written to `path`, before any work is done.

    Raises:
        ValueError: there is something at `path`.
        FileNotFoundError: there is no folder to put it in.
        PermissionError: the folder to put it in cannot be written to.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise ValueError(f"{path} exists and is not overwritten: give another name or remove it.")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"No folder {parent} to write {path.name} in: make it first.")
    if not os.access(parent, os.W_OK):
        raise PermissionError(f"{parent} cannot be written to: write {path.name} elsewhere.")


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


def write_new_file(path, text):
    """Writes a result to a new file. Where that fails, it is kept in a temporary file.

    Call `refuse_existing` before the work, so that it rarely fails here.

    Raises:
        OSError: the file could not be written; says where the text is.
    """
    data, path = text.encode(), Path(path)
    try:
        refuse_existing(path)
        with replacing(path) as file:
            file.write(data)
    except (OSError, ValueError) as error:
        handle, kept = tempfile.mkstemp(prefix=f"{path.name}.")
        with open(handle, "wb") as file:
            file.write(data)
        raise OSError(f"{path} could not be written ({error}). The text is in {kept}.") from error
