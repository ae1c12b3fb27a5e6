"""Trained models from other toolkits, and for engines that do not need this package."""

from keras_transformer.interop import keras_hub, marian
from keras_transformer.interop.ctranslate2 import QUANTIZATIONS, to_ctranslate2
from keras_transformer.interop.runtimes import to_litert, to_onnx
from keras_transformer.interop.saved_model import to_saved_model

__all__ = [
    "QUANTIZATIONS",
    "keras_hub",
    "marian",
    "to_ctranslate2",
    "to_litert",
    "to_onnx",
    "to_saved_model",
]
