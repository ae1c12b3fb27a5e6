"""A decoder-only language model, GPT (Radford et al., 2018): each token from those before it."""

from typing import Any

import keras

from keras_transformer.models.functional import FunctionalModel, arguments_of_model
from keras_transformer.models.single_stack import embedding_and_stack
from keras_transformer.ops import Tensor


@keras.saving.register_keras_serializable(package="keras_transformer")
class CausalLanguageModel(FunctionalModel):
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

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 12,
        d_model: int = 768,
        num_heads: int = 12,
        d_ff: int | None = None,
        dropout: float = 0.1,
        *,
        positions: str = "learned",
        max_length: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **block_options: Any,
    ) -> None:
        arguments = arguments_of_model(locals(), norm="pre", activation="gelu")
        super().__init__(keras.Input((None,), dtype="int32", name="token_ids"), **arguments)

    def make_layers(self, dtype: Any, **sizes: Any) -> dict[str, Any]:
        return embedding_and_stack("decoder", dtype, **sizes)

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
