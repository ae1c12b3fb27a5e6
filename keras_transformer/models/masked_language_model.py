"""A masked language model, BERT (Devlin et al., 2018): hidden tokens from both their sides."""

import keras
from keras import ops

from keras_transformer.models.functional import FunctionalModel, embedding_and_stack


@keras.saving.register_keras_serializable(package="keras_transformer")
class MaskedLanguageModel(FunctionalModel):
    """An encoder that says which tokens stood where a text has masks (section 3.1 there).

    ```
    logits = Embedding^T(Encoder(Embedding(token_ids))[masked_positions])
    ```

    Logits are made at the positions that are asked for alone: with 15 % of the tokens hidden, the
    product with the vocabulary, the largest of all, is a seventh of that over all positions. One
    text a row, without BERT's segments and its prediction of the next sentence.

    `encode` and `decode` are the wiring, used on symbolic tensors to build the model and on real
    ones as they are. A subclass may override them: see `models.functional.FunctionalModel`.

    Args:
        vocabulary_size: number of tokens V, the mask included; id 0 is padding.
        num_layers: layers L.
        d_model: width D.
        num_heads: attention heads H.
        d_ff: width F of the feed-forward networks; 4 D where not given.
        dropout: on the embeddings and on each sub-layer's output.
        positions: `"learned"`, as in BERT, with `max_length`; or `"sinusoidal"`.
        max_length: number of learned positions.
        **block_options: further arguments of the layers; by default `activation="gelu"`, as in
            BERT.

    Call arguments:
        inputs: `{"token_ids": integers [B, S], "masked_positions": integers [B, P]}`, the
            positions counted from 0; what fills up a row of them is 0 too, and its logits are to
            be ignored.

    Returns:
        logits [B, P, V]: what stood at each of the positions.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:

    ```python
    model = MaskedLanguageModel(8_000, num_layers=4, d_model=256, num_heads=4, max_length=128)
    ids = {"token_ids": np.array([[2, 7, 4, 9, 3]]), "masked_positions": np.array([[2]])}
    logits = model(ids)  # [1, 1, 8000], for the mask, id 4, at position 2
    ```
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers=12,
        d_model=768,
        num_heads=12,
        d_ff=None,
        dropout=0.1,
        *,
        positions="learned",
        max_length=None,
        name=None,
        dtype=None,
        trainable=True,
        **block_options,
    ):
        sizes = {
            "vocabulary_size": vocabulary_size,
            "num_layers": num_layers,
            "d_model": d_model,
            "num_heads": num_heads,
            "d_ff": d_ff,
            "dropout": dropout,
            "positions": positions,
            "max_length": max_length,
            **block_options,
        }
        inputs = {
            each: keras.Input((None,), dtype="int32", name=each)
            for each in ("token_ids", "masked_positions")
        }
        super().__init__(inputs, sizes, dtype=dtype, name=name, trainable=trainable)

    def make_layers(self, dtype, **sizes):
        return embedding_and_stack("encoder", dtype, **sizes)

    def wire(self, inputs):
        return self.decode(self.encode(inputs["token_ids"]), inputs["masked_positions"])

    def encode(self, token_ids):
        """Ids [B, S] -> what the encoder makes of each, [B, S, D]."""
        return self.encoder(self.embedding(token_ids))

    def decode(self, encoded, masked_positions):
        """From `encode` [B, S, D] and positions [B, P] -> logits [B, P, V]."""
        positions = ops.cast(masked_positions, "int32")[:, :, None]  # Keras' symbols may be floats
        x = ops.take_along_axis(encoded, positions, axis=1)  # [B, P, D]
        return self.embedding(x, reverse=True)
