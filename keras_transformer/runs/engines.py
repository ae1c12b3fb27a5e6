"""Runs converted for other engines, which are kept in the user's cache.

Each is named by the SHA-256 of all that it is made from, so other weights make another one.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_transformer import progress
from keras_transformer.files import json_sha256, read_json
from keras_transformer.runs import cache, identity
from keras_transformer.runs.run_directory import RunDirectory


def installed() -> bool:
    """Whether CTranslate2 is installed."""
    return importlib.util.find_spec("ctranslate2") is not None


def converted(
    run: RunDirectory,
    weights: str | int | None,
    quantization: str,
    load: Callable[[], Any],
) -> Path:
    """The folder of a run in CTranslate2's format, converted if it is not in the cache.

    Args:
        run: The run.
        weights: See `RunDirectory.weights_file`.
        quantization: See `kt.interop.to_ctranslate2`.
        load: Loads the `Translator` that is converted.

    Raises:
        ValueError: If CTranslate2 cannot express the model, or is not installed.
    """
    from keras_transformer import interop

    try:
        import ctranslate2
    except ImportError as error:
        raise ValueError(
            "The engine ctranslate2 is not installed: pip install "
            "keras-transformer-kit[ctranslate2], or leave the engine out."
        ) from error
    with open(run.weights_file(weights), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    parts = {**identity.of(run.path), "weights": digest, "quantization": quantization}
    name = json_sha256(parts | {"version": ctranslate2.__version__})
    folder = cache.folder() / "ctranslate2" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        interop.to_ctranslate2(load(), folder, quantization)
    except ValueError:
        if not folder.is_dir():  # otherwise another process has just converted the same
            raise
    progress.say(f"converted for CTranslate2, kept in {folder}")
    return folder


def learned_positions(run: RunDirectory) -> int | None:
    """How many positions the run's model has learned; None for sinusoids."""
    config = read_json(run.path / "model.json", dict).get("config", {})
    return config.get("max_length") if config.get("positions") == "learned" else None
