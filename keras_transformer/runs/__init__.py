"""Everything about a training on disk: settings, checkpoints, the loop, the result.

```
TrainSettings      every option of `keras-transformer train`, as a dataclass
train              trains with them, or continues: what the command does
RunDirectory       a run: start, fit, checkpoints, average, log, load_model
fit                the loop that `run.fit` is: for models, plans and scripts of your own
translation_score  BLEU and chrF at each validation, for `fit`
set_precision      what models compute in: float32, bfloat16 or float16
```
"""

import importlib

# Loaded when used: the command line reads the settings without Keras.
_HOME = {
    "RunDirectory": "run_directory",
    "TrainSettings": "settings",
    "set_precision": "prepare",
    "train": "training",
    "translation_score": "fit",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
