"""The Transformer of "Attention Is All You Need" as a Keras 3 package.

Three ways in: compose the `layers` in a Keras model of your own; train a `models.Transformer` with
`compile` and `fit`; or run the command `keras-transformer`.

Everything below is loaded when it is first used, so that importing this package costs nothing.
"""

import importlib
import sys

__version__ = "0.1.0"

# What Keras saves by name has to be registered before it can load it.
SAVEABLE = ("layers", "losses", "metrics", "models", "optimizers")
CLASSES = {"RunDirectory": "runs", "Translator": "decoding"}
ROOMS = (
    *SAVEABLE,
    *("callbacks", "data", "datasets", "decoding", "evaluation", "interop", "ops"),
    *("files", "progress", "runs", "testing", "text", "visualization"),
)

__all__ = sorted([*CLASSES, *ROOMS])


def __getattr__(name):
    if name in CLASSES:
        return getattr(importlib.import_module(f"{__name__}.{CLASSES[name]}"), name)
    if name in ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])


# After `import keras, keras_transformer` a model that is loaded from a file finds its layers.
if sys.modules.get("keras"):
    for _name in SAVEABLE:
        importlib.import_module(f"{__name__}.{_name}")
