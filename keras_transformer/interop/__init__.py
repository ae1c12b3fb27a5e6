"""A trained model for engines that do not need this package: one file per format."""

from keras_transformer.interop.ctranslate2 import QUANTIZATIONS, to_ctranslate2
from keras_transformer.interop.runtimes import to_litert, to_onnx
from keras_transformer.interop.saved_model import to_saved_model

__all__ = ["QUANTIZATIONS", "to_ctranslate2", "to_litert", "to_onnx", "to_saved_model"]
