"""The user's cache: what this machine converted or compiled once, to be read again.

Engines run what they read there. So it belongs to the user: it is not in a run, which may come from
a stranger or be read-only. It may be deleted at any time.
"""

import os
import platform
from importlib import metadata
from pathlib import Path

from keras_transformer.files import json_sha256

FOLDER = "KERAS_TRANSFORMER_CACHE"  # names another folder


def folder() -> Path:
    """Returns the folder: `~/.cache/keras_transformer`, unless the environment names one."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(FOLDER) or Path(base) / "keras_transformer")


def keep_compiled() -> Path:
    """Keeps what XLA compiles, so that the next process need not compile it again.

    Call it before TensorFlow or JAX is imported. A setting of the user's environment stays.

    Returns:
        A folder in the cache for this processor, these versions and these flags of XLA, because the
        code is for no other.
    """
    path = folder() / "compiled" / json_sha256([_processor(), *_versions(), *_flags()])[:16]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if "xla_persistent_cache_directory" not in os.environ.get("TF_XLA_FLAGS", ""):
        flags = os.environ.get("TF_XLA_FLAGS", ""), f"--tf_xla_persistent_cache_directory={path}"
        os.environ["TF_XLA_FLAGS"] = " ".join(flags).strip()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(path))
    # JAX keeps only what took a second otherwise.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return path


def _processor():
    """What tells processors with other instructions apart."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        flags = platform.processor()
    return [platform.machine(), flags]


def _versions():
    found = []
    for name in ("tensorflow", "jaxlib"):
        try:
            found.append(metadata.version(name))
        except metadata.PackageNotFoundError:
            found.append("")
    return found


def _flags():
    return [os.environ.get("XLA_FLAGS", "")]
