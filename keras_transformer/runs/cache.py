"""The user's cache: what this machine converted or compiled once, to be read again.

Engines run what they read there. So it belongs to the user: it is not in a run, which may come from
a stranger or be read-only. It may be deleted at any time.
"""

import os
import platform
from importlib import metadata
from pathlib import Path

import keras

from keras_transformer.files import json_sha256

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
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Compiled code is kept on JAX only, and the backend is {keras.backend.backend()}: set "
            "KERAS_BACKEND=jax, or take engine='auto', which compiles little."
        )
    import jax

    path = jax.config.jax_compilation_cache_dir
    if path is None:
        parts = [*_processor(), metadata.version("jaxlib"), os.environ.get("XLA_FLAGS", "")]
        path = folder() / "compiled" / json_sha256(parts)[:16]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(path))
        # JAX keeps only what took a second otherwise.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return Path(path)


def _processor():
    """What tells processors with other instructions apart."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        flags = platform.processor()
    return [platform.machine(), flags]
