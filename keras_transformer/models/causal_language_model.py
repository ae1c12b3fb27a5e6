"""A decoder-only language model, GPT (Radford et al., 2018): each token from those before it."""

import keras

from keras_transformer.models.functional import FunctionalModel, embedding_and_stack


@keras.saving.register_keras_serializable(package="keras_transformer")
class CausalLanguageModel(FunctionalModel):
    """A stack of self-attention that sees no later position, from ids to logits.

    ```
    logits = Embedding^T(Encoder(Embedding(token_ids), causal=True))
    ```

    The encoder's blocks with the decoder's mask: what is left of the decoder without a source.
    `decode` is the wiring, used on symbolic tensors to build the model and on real ones, with a
    cache, to generate. A subclass may override it: see `models.functional.FunctionalModel`.

    Args:
        vocabulary_size: number of tokens V; id 0 is padding.
        num_layers: layers L.
        d_model: width D.
        num_heads: attention heads H.
        d_ff: width F of the feed-forward networks; 4 D where not given.
        dropout: on the embeddings and on each sub-layer's output.
        positions: `"learned"`, as in GPT, with `max_length`; or `"sinusoidal"`.
        max_length: number of learned positions.
        **block_options: further arguments of the layers; by default `norm="pre"` and
            `activation="gelu"`, as in GPT-2.

    Call arguments:
        inputs: integers [B, T].

    Returns:
        logits [B, T, V]; those at position t are for token t + 1.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:

    ```python
    model = CausalLanguageModel(66, num_layers=4, d_model=128, num_heads=4, max_length=64)
    logits = model(np.array([[5, 6, 3]]))  # [1, 3, 66]
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
            **{"norm": "pre", "activation": "gelu", **block_options},
        }
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        super().__init__(token_ids, sizes, dtype=dtype, name=name, trainable=trainable)

    def make_layers(self, dtype, **sizes):
        return embedding_and_stack("decoder", dtype, **sizes)

    def wire(self, inputs):
        return self.decode(inputs)

    def decode(self, token_ids, cache=None, index=0):
        """Ids [B, T] -> logits [B, T, V]; with a cache also the updated cache.

        Args:
            token_ids: integers [B, T]; with a cache, the newest ones alone.
            cache: from `start_cache`.
            index: position of the first of `token_ids`, with a cache.
        """
        x = self.embedding(token_ids, index=index)  # [B, T, D]
        if cache is None:
            return self.embedding(self.decoder(x, causal=True), reverse=True)  # [B, T, V]
        x, cache = self.decoder(x, cache=cache, index=index)
        return self.embedding(x, reverse=True), cache

    def start_cache(self, rows, length):
        """A cache for `rows` texts of up to `length` tokens."""
        return self.decoder.start_cache(rows, length)
