"""The user's cache: what this machine converted or compiled once, to be read again.

Engines run what they read there. So it belongs to the user: it is not in a run, which may come from
a stranger or be read-only. It may be deleted at any time.
"""

import os
import platform
from importlib import metadata
from pathlib import Path

from keras_transformer.files import json_sha256
from keras_transformer.ops import compilation

FOLDER = "KERAS_TRANSFORMER_CACHE"  # names another folder


def folder() -> Path:
    """Returns the folder: `~/.cache/keras_transformer`, unless the environment names one."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(FOLDER) or Path(base) / "keras_transformer")


def keep_compiled() -> Path:
    """Keeps what JAX compiles, so that the next process need not compile it again.

    Call it before anything is compiled. A folder that JAX's own setting names already stays.

    Returns:
        The folder. In the cache it is one for this processor, this version and these flags of XLA,
        because the code is for no other.

    Raises:
        ValueError: On another backend. TensorFlow can keep code too, but does not find it again
            when two threads compile, and takes its own code for another machine's.
    """
    return compilation.keep_compiled(_for_this_machine)


def _for_this_machine():
    parts = [*_processor(), metadata.version("jaxlib"), os.environ.get("XLA_FLAGS", "")]
    return folder() / "compiled" / json_sha256(parts)[:16]


def _processor():
    """What tells processors with other instructions apart."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        flags = platform.processor()
    return [platform.machine(), flags]
