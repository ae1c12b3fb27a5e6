"""The paper's blocks, one file per block. Each works by itself in any Keras model."""

from keras_transformer.layers.attention import MultiHeadAttention
from keras_transformer.layers.decoder import Decoder, DecoderLayer
from keras_transformer.layers.dropout import Dropout
from keras_transformer.layers.encoder import Encoder, EncoderLayer
from keras_transformer.layers.feed_forward import FeedForward
from keras_transformer.layers.patch_embedding import PatchEmbedding
from keras_transformer.layers.pooling import MeanPooling
from keras_transformer.layers.positional_embedding import PositionalEmbedding
from keras_transformer.layers.positional_encoding import PositionalEncoding, sinusoids
from keras_transformer.layers.residual import Residual
from keras_transformer.ops.masks import causal_mask, padding_mask

__all__ = [
    "Decoder",
    "DecoderLayer",
    "Dropout",
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "MeanPooling",
    "MultiHeadAttention",
    "PatchEmbedding",
    "PositionalEmbedding",
    "PositionalEncoding",
    "Residual",
    "causal_mask",
    "padding_mask",
    "sinusoids",
]
