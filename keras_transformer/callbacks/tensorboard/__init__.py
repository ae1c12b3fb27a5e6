"""What a training writes for TensorBoard, on every backend and without TensorFlow."""

from keras_transformer.callbacks.tensorboard.callback import TensorBoard
from keras_transformer.callbacks.tensorboard.event_file import EventFile
from keras_transformer.callbacks.tensorboard.hparams import write_hparams
from keras_transformer.callbacks.tensorboard.probes import Probes

__all__ = ["EventFile", "Probes", "TensorBoard", "write_hparams"]
