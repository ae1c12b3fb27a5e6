"""Text to ids and back, and what of it training has seen."""

from keras_transformer.text.seen import Seen
from keras_transformer.text.tokenizer import (
    MODEL_TYPES,
    NORMALIZATIONS,
    Tokenizer,
    VocabularySizeError,
    comparable,
    train_tokenizer,
)

__all__ = [
    "MODEL_TYPES",
    "NORMALIZATIONS",
    "Seen",
    "Tokenizer",
    "VocabularySizeError",
    "comparable",
    "train_tokenizer",
]
