"""The Transformer of "Attention Is All You Need" as a Keras 3 package.

Three ways in: compose the `layers` in a Keras model of your own; train a `models.Transformer` with
`compile` and `fit`; or run the command `keras-transformer`.

Everything below is loaded when it is first used, so that importing this package costs nothing.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors and type checkers know the names
    from keras_transformer import (
        callbacks,
        data,
        datasets,
        decoding,
        evaluation,
        files,
        interop,
        layers,
        losses,
        metrics,
        models,
        ops,
        optimizers,
        progress,
        runs,
        serving,
        testing,
        text,
        visualization,
    )
    from keras_transformer.decoding import Translator
    from keras_transformer.runs import RunDirectory, load_translator

__version__ = "0.1.0"

__all__ = [
    "RunDirectory",
    "Translator",
    "callbacks",
    "data",
    "datasets",
    "decoding",
    "evaluation",
    "files",
    "interop",
    "layers",
    "load_translator",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "progress",
    "runs",
    "serving",
    "testing",
    "text",
    "visualization",
]
_HOMES = {"RunDirectory": "runs", "Translator": "decoding", "load_translator": "runs"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


# Keras finds a class by its name once that is registered: after `import keras, keras_transformer` a
# model can be loaded from a file.
if sys.modules.get("keras"):
    for _name in ("layers", "losses", "metrics", "models", "optimizers"):
        importlib.import_module(f"{__name__}.{_name}")
