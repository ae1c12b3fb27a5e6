"""Models composed of the layers."""

from keras_transformer.models.activations import gelu_tanh
from keras_transformer.models.causal_language_model import CausalLanguageModel
from keras_transformer.models.functional import FunctionalModel
from keras_transformer.models.layout import layout_map
from keras_transformer.models.loss_per_label import LossPerLabel
from keras_transformer.models.masked_language_model import MaskedLanguageModel
from keras_transformer.models.presets import PRESETS, TABLE_3
from keras_transformer.models.text_classifier import TextClassifier
from keras_transformer.models.transformer import Transformer
from keras_transformer.models.vision_transformer import VisionTransformer

__all__ = [
    "PRESETS",
    "TABLE_3",
    "CausalLanguageModel",
    "FunctionalModel",
    "LossPerLabel",
    "MaskedLanguageModel",
    "TextClassifier",
    "Transformer",
    "VisionTransformer",
    "gelu_tanh",
    "layout_map",
]
