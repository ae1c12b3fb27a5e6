"""What a training writes for TensorBoard, on every backend and without TensorFlow."""

from keras_transformer.callbacks.tensorboard.callback import TensorBoard
from keras_transformer.callbacks.tensorboard.hparams import write_hparams, write_hparams_columns
from keras_transformer.callbacks.tensorboard.probes import Probes

__all__ = ["Probes", "TensorBoard", "write_hparams", "write_hparams_columns"]
