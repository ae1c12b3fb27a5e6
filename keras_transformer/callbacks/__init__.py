"""Callbacks for `model.fit`: display, TensorBoard, early stopping, scores, checkpoints.

Everything counts **updates** of the weights (under `gradient_accumulation_steps=k` one update is
k Keras batches), and speed is in target tokens per second, padding not counted. The order in
`fit(callbacks=[...])` is the order in which `on_epoch_end` runs: `TranslationScore` first (it adds
`val_bleu` to the logs), then `TensorBoard`, `Progress`, `StopEarly`, and `Checkpoints` last.

Nothing here has work to do in `on_train_batch_end`. On JAX and PyTorch that hook runs in another
thread while the next step is already under way (its weights half replaced, its buffers donated),
or, without `async_safe`, it makes every step wait for the device. `on_train_batch_begin` runs in
the thread that trains, between two steps: there the values are exact, on JAX too once `self.model`
has brought them back, and they are fetched once per interval.
"""

from keras_transformer.callbacks.interval_meter import IntervalMeter, perplexity
from keras_transformer.callbacks.progress import Progress
from keras_transformer.callbacks.stopping import StopEarly, StopOnNonFinite
from keras_transformer.callbacks.tensorboard import TensorBoard
from keras_transformer.callbacks.tensorboard.hparams import write_hparams, write_hparams_columns
from keras_transformer.callbacks.tensorboard.probes import Probes
from keras_transformer.callbacks.validation import Checkpoints, TranslationScore

__all__ = [
    "Checkpoints",
    "IntervalMeter",
    "Probes",
    "Progress",
    "StopEarly",
    "StopOnNonFinite",
    "TensorBoard",
    "TranslationScore",
    "perplexity",
    "write_hparams",
    "write_hparams_columns",
]
