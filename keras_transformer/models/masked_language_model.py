"""A masked language model, BERT (Devlin et al., 2018): hidden tokens from both their sides."""

import keras
from keras import ops

from keras_transformer.models.single_stack import SingleStack
from keras_transformer.ops import Tensor


@keras.saving.register_keras_serializable(package="keras_transformer")
class MaskedLanguageModel(SingleStack):
    """An encoder that predicts the tokens that a text's masks hide (section 3.1 there).

    ```
    logits = Embedding^T(Encoder(Embedding(token_ids))[masked_positions])
    ```

    Logits are made only at the positions that are asked for. With 15 % of the tokens hidden, the
    product with the vocabulary, the largest of all, is a seventh of that over all positions. A row
    is one text, without BERT's segments and its prediction of the next sentence.

    `encode` and `decode` are the wiring, which a subclass may override: see
    `models.functional.FunctionalModel`.

    Args:
        vocabulary_size: Number of tokens V, the mask included; id 0 is padding.
        num_layers, d_model, num_heads, d_ff, dropout, positions, max_length, logits_bias,
        embedding_norm: As in `CausalLanguageModel`.
        **block_options: Further arguments of the layers; by default `activation="gelu"`, as in
            BERT.

    Call arguments:
        inputs: `{"token_ids": integers [B, S], "masked_positions": integers [B, P]}`. Positions
            count from 0. Rows of them are filled up with 0; ignore the logits there.

    Returns:
        Logits [B, P, V] of the tokens at these positions.

    Raises:
        ValueError: If the sizes do not fit together.

    Example:

    ```python
    model = MaskedLanguageModel(8_000, num_layers=4, d_model=256, num_heads=4, max_length=128)
    ids = {"token_ids": np.array([[2, 7, 4, 9, 3]]), "masked_positions": np.array([[2]])}
    logits = model(ids)  # [1, 1, 8000], for the mask, id 4, at position 2
    ```
    """

    INPUTS = ("token_ids", "masked_positions")

    def wire(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.decode(self.encode(inputs["token_ids"]), inputs["masked_positions"])

    def encode(self, token_ids: Tensor) -> Tensor:
        """Ids [B, S] -> the output of the encoder [B, S, D]."""
        return self.encoder(self.embedding(token_ids))

    def decode(self, encoded: Tensor, masked_positions: Tensor) -> Tensor:
        """From `encode` [B, S, D] and positions [B, P] -> logits [B, P, V]."""
        positions = ops.cast(masked_positions, "int32")  # Keras' symbols may be floats
        x = ops.take_along_axis(encoded, ops.expand_dims(positions, -1), axis=1)  # [B, P, D]
        return self.embedding(x, reverse=True)
