"""A tokenizer as TensorFlow ops."""

import hashlib
from typing import Any


def in_graph(tokenizer: Any) -> Any:
    """See `Tokenizer.in_graph`."""
    import keras_nlp
    import tensorflow as tf
    import tensorflow_text

    class InGraphTokenizer(tf.Module):
        def __init__(self):
            super().__init__()
            layer = keras_nlp.tokenizers.SentencePieceTokenizer(proto=tokenizer.model_proto)
            # A SavedModel follows the attributes of a tf.Module. It finds the vocabulary only
            # through this one: a Keras layer hides it, or is no TensorFlow object at all.
            self._resource = layer._sentence_piece
            # tensorflow_text gives all vocabularies of a file one name, and reads two as one.
            digest = hashlib.sha256(tokenizer.model_proto).hexdigest()
            self._resource._model_resource._name = f"vocabulary_{digest[:16]}"
            self._tokenize, self._detokenize = layer.tokenize, layer.detokenize

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def encode(self, strings):
            return self._tokenize(tensorflow_text.normalize_utf8(strings, "NFC"))

        def decode(self, ids):
            if isinstance(ids, tf.RaggedTensor):
                ids = ids.to_tensor(tokenizer.pad_id)
            return self.decode_padded(tf.cast(ids, tf.int32))

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
        def decode_padded(self, ids):  # [B, T]
            ended = tf.math.cumsum(tf.cast(ids == tokenizer.end_id, tf.int32), axis=1) > 0
            special = (ids == tokenizer.pad_id) | (ids == tokenizer.start_id)
            content = tf.ragged.boolean_mask(ids, ~(ended | special))
            return tf.strings.regex_replace(self._detokenize(content), "^ +| +$", "")

    return InGraphTokenizer()
