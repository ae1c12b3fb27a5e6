"""Backbones and tokenizers of KerasHub: https://keras.io/keras_hub.

KerasHub makes them from its own presets and from Hugging Face, with
`keras_hub.models.Backbone.from_preset`. Here they are objects already: no file is read.
"""

from keras_transformer.interop.keras_hub.backbone import load
from keras_transformer.interop.keras_hub.tokenizer import HubTokenizer

__all__ = ["HubTokenizer", "load"]
