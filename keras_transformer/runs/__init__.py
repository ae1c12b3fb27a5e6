"""Everything about a training on disk: settings, checkpoints, the loop, the result.

```
TrainSettings      every option of `keras-transformer train`, as a dataclass
quantize           a copy of a run in 8 or 4 bits
train              trains with them, or continues: what the command does
RunDirectory       a run: start, fit, checkpoints, average, log, load_model
load_translator    the `Translator` of a run, or of several as an ensemble
import_model       a run of a model of Marian or OPUS-MT
join_processes     several processes, on one machine or many, train as one
fit                the loop that `run.fit` is: for models, plans and scripts of your own
translation_score  BLEU and chrF at each validation, for `fit`
write_run          a run of a model that was not trained here
set_precision      what models compute in: float32, bfloat16 or float16
```
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_transformer.ops.devices import share_batches
    from keras_transformer.ops.processes import join_processes
    from keras_transformer.runs.fit import translation_score
    from keras_transformer.runs.importing import import_model
    from keras_transformer.runs.loading import load_translator
    from keras_transformer.runs.prepare import set_precision
    from keras_transformer.runs.run_directory import RunDirectory
    from keras_transformer.runs.settings import TrainSettings
    from keras_transformer.runs.training import train
    from keras_transformer.runs.writing import quantize, write_run

__all__ = [
    "RunDirectory",
    "TrainSettings",
    "import_model",
    "join_processes",
    "load_translator",
    "quantize",
    "set_precision",
    "share_batches",
    "train",
    "translation_score",
    "write_run",
]

# Loaded when used: the command line reads the settings without Keras.
_HOMES = {
    "RunDirectory": "run_directory",
    "TrainSettings": "settings",
    "import_model": "importing",
    "join_processes": "training",
    "load_translator": "loading",
    "quantize": "writing",
    "set_precision": "prepare",
    "share_batches": "prepare",
    "train": "training",
    "translation_score": "fit",
    "write_run": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
