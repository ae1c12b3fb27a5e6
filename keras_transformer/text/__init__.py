"""Text to ids and back, training of vocabularies, and what training saw of a language."""

from keras_transformer.text.seen import Seen
from keras_transformer.text.tokenizer import Tokenizer, comparable
from keras_transformer.text.training import (
    MODEL_TYPES,
    NORMALIZATIONS,
    VocabularySizeError,
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
