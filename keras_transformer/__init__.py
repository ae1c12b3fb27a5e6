"""The Transformer of "Attention Is All You Need" as a Keras 3 package.

Three ways in: compose the `layers` in a Keras model of your own; train a `models.Transformer` with
`compile` and `fit`; or run the command `keras-transformer`.
"""

from keras_transformer.start_up import without_notices

# They would bury what a command prints.
with without_notices():
    import keras  # noqa: F401

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
