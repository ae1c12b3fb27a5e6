"""The Transformer of "Attention Is All You Need" as a Keras 3 package.

Three ways in: compose the `layers` in a Keras model of your own; train a `models.Transformer` with
`compile` and `fit`; or run the command `keras-transformer`.
"""

import os

# TensorFlow's start-up notices would bury what a command prints. The user's own setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_transformer import (  # noqa: E402
    callbacks,
    data,
    evaluation,
    export,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    pictures,
    progress,
    sampling,
    schedules,
    search,
    show,
    testing,
    text,
)
from keras_transformer.checkpoints import RunDirectory  # noqa: E402
from keras_transformer.translator import Translator  # noqa: E402

__version__ = "0.1.0"
__all__ = [
    "RunDirectory",
    "Translator",
    "callbacks",
    "data",
    "evaluation",
    "export",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "pictures",
    "progress",
    "sampling",
    "schedules",
    "search",
    "show",
    "testing",
    "text",
]
