"""Callbacks for `model.fit`: display, TensorBoard, early stopping, scores, checkpoints.

Everything counts **updates** of the weights (with `gradient_accumulation_steps=k` an update is k
Keras batches). Speed is in target tokens per second, without padding. `fit(callbacks=[...])` runs
`on_epoch_end` in the order of the list: put `TranslationScore` first, as it adds `val_bleu` to the
logs, then `TensorBoard`, `Progress`, `StopEarly`, and `Checkpoints` last.

No callback here works in `on_train_batch_end`. On JAX and PyTorch that hook runs in another thread
while the next step is under way, when weights are half replaced; without `async_safe` it makes
every step wait for the device. `on_train_batch_begin` runs in the training thread, between two
steps. The values are exact there, on JAX once `self.model` has fetched them, which happens once per
interval.
"""

from keras_transformer.callbacks.interval_meter import IntervalMeter, perplexity
from keras_transformer.callbacks.progress import Progress
from keras_transformer.callbacks.stopping import StopEarly, StopOnNonFinite
from keras_transformer.callbacks.tensorboard import Probes, TensorBoard, write_hparams
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
]
