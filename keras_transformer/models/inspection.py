"""What can be looked at in an encoder-decoder: attention weights, and the encoder's features."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transformer.ops import Tensor
from keras_transformer.ops.masks import padding_mask


class Inspection(keras.Model):
    """Methods of a model with `encode`, `encoder`, `decoder` and their embeddings."""

    def attention_weights(self, source_ids: Any, target_ids: Any) -> dict[str, np.ndarray]:
        """Returns what every layer and head attends to, teacher-forced, for pictures.

        It calls the embeddings, the encoder and the decoder. An `encode` or `decode` of a subclass
        is not called, because it returns no weights.

        Args:
            source_ids: Integers [B, S]; 0 is padding.
            target_ids: Integers [B, T], beginning with the start id.

        Returns:
            NumPy float32: `{"encoder": [L, B, H, S, S], "decoder": [L, B, H, T, T], "cross":
            [L, B, H, T, S]}`, queries before keys; each row sums to 1.

        Example:

        ```python
        weights = model.attention_weights(np.array([[5, 6, 3]]), np.array([[2, 7]]))
        weights["cross"][-1, 0]  # [H, 2, 3]: the last layer, the first pair
        ```
        """
        tensors = self.attention_tensors(source_ids, target_ids)
        return {
            kind: np.stack([ops.convert_to_numpy(ops.cast(w, "float32")) for w in layers])
            for kind, layers in tensors.items()
        }

    def attention_tensors(self, source_ids: Any, target_ids: Any) -> dict[str, list[Tensor]]:
        """Like `attention_weights`, as tensors, one per layer: to be compiled."""
        source_ids, target_ids = (ops.cast(ids, "int32") for ids in (source_ids, target_ids))
        mask = padding_mask(source_ids)
        memory, encoder = self.encoder(
            self.source_embedding(source_ids), mask=mask, return_attention_weights=True
        )
        _, decoder, cross = self.decoder(
            self.target_embedding(target_ids),
            memory,
            inputs_mask=padding_mask(target_ids),
            memory_mask=mask,
            return_attention_weights=True,
        )
        return {"encoder": encoder, "decoder": decoder, "cross": cross}

    def feature_extractor(self) -> keras.Model:
        """Returns the encoder as a model that shares the weights: source ids -> [B, S, D].

        Example:

        ```python
        features = model.feature_extractor()
        features.trainable = False  # frozen
        token_ids = keras.Input((None,), dtype="int32")
        x = keras.layers.GlobalAveragePooling1D()(features(token_ids))  # ignores padding
        classifier = keras.Model(token_ids, keras.layers.Dense(2)(x))
        ```
        """
        source_ids = keras.Input((None,), dtype="int32", name="source_ids")
        memory = _WithMask()(self.encode(source_ids))
        return keras.Model(source_ids, memory, name=f"{self.name}_encoder")


@keras.saving.register_keras_serializable(package="keras_transformer")
class _WithMask(keras.layers.Layer):
    """Gives a tensor a mask for the layers that follow: [tensor, mask] -> tensor.

    An overridden `encode` may lose the mask, for example by `2 * memory`.
    """

    def call(self, inputs: list[Tensor]) -> Tensor:
        return inputs[0]

    def compute_mask(self, inputs: list[Tensor], mask: Any = None) -> Tensor:
        return inputs[1]
