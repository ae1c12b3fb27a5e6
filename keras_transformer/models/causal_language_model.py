"""A decoder-only language model, GPT (Radford et al., 2018): each token from those before it."""

from typing import Any

import keras

from keras_transformer.models.single_stack import SingleStack
from keras_transformer.ops import Tensor


@keras.saving.register_keras_serializable(package="keras_transformer")
class CausalLanguageModel(SingleStack):
    """A stack of self-attention that sees no later position, from ids to logits.

    ```
    logits = Embedding^T(Encoder(Embedding(token_ids), causal=True))
    ```

    This is the decoder without a source: the encoder's blocks with the decoder's mask. `decode` is
    the wiring, which a subclass may override: see `models.functional.FunctionalModel`.

    Args:
        vocabulary_size: Number of tokens V; id 0 is padding.
        num_layers: Layers L.
        d_model: Width D.
        num_heads: Attention heads H.
        d_ff: Width F of the feed-forward networks; 4 D unless given.
        dropout: Rate on the embeddings and on each sub-layer's output.
        positions: `"learned"`, as in GPT, with `max_length`; or `"sinusoidal"`.
        max_length: Number of learned positions.
        logits_bias: Whether the logits have a bias.
        embedding_norm: Whether a LayerNorm follows the embeddings, as in BERT.
        **block_options: Further arguments of the layers; by default `norm="pre"` and
            `activation="gelu"`, as in GPT-2.

    Call arguments:
        inputs: Integers [B, T].

    Returns:
        Logits [B, T, V]; those at position t are for token t + 1.

    Raises:
        ValueError: If the sizes do not fit together.

    Example:

    ```python
    model = CausalLanguageModel(66, num_layers=4, d_model=128, num_heads=4, max_length=64)
    logits = model(np.array([[5, 6, 3]]))  # [1, 3, 66]
    ```
    """

    STACK = "decoder"
    BLOCK_OPTIONS = {"norm": "pre", "activation": "gelu"}

    def wire(self, inputs: Tensor) -> Tensor:
        return self.decode(inputs)

    def decode(self, token_ids: Tensor, cache: Any = None, index: Tensor = 0) -> Any:
        """Ids [B, T] -> logits [B, T, V]; with a cache also the updated cache.

        Args:
            token_ids: Integers [B, T]; with a cache, only the newest ones.
            cache: From `start_cache`.
            index: Position of the first of `token_ids`, with a cache.
        """
        x = self.embedding(token_ids, index=index)  # [B, T, D]
        if cache is None:
            return self.embedding(self.decoder(x, causal=True), reverse=True)  # [B, T, V]
        x, cache = self.decoder(x, cache=cache, index=index)
        return self.embedding(x, reverse=True), cache

    def start_cache(self, batch_size: int, length: int) -> Any:
        """Returns a cache for a batch of texts of up to `length` tokens."""
        return self.decoder.start_cache(batch_size, length)
