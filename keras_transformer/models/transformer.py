"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017) as a functional model."""

import functools
from typing import Any

import keras

from keras_transformer.layers.decoder import Decoder
from keras_transformer.layers.encoder import Encoder
from keras_transformer.layers.positional_embedding import PositionalEmbedding
from keras_transformer.models.functional import FunctionalModel, arguments_of_model
from keras_transformer.models.inspection import Inspection
from keras_transformer.models.presets import PRESETS
from keras_transformer.ops import Tensor
from keras_transformer.ops.masks import padding_mask


@keras.saving.register_keras_serializable(package="keras_transformer")
class Transformer(Inspection, FunctionalModel):
    """Encoder and decoder, from source ids and shifted target ids to logits (Figure 1).

    ```
    memory = Encoder(Embedding(source_ids))                     encode
    logits = Embedding^T(Decoder(Embedding(target_ids), memory))   decode
    ```

    A functional `keras.Model`: `compile`, `fit`, `save` as usual. `encode` and `decode` are called
    on symbolic tensors to build the model, and on real ones by the search. A subclass may override
    them: see `models.functional.FunctionalModel`.

    Args:
        vocabulary_size: Number of tokens V, of the source if the vocabularies differ.
        num_layers: Layers of the encoder, and of the decoder unless `num_decoder_layers` is given.
        d_model: Width D.
        num_heads: Attention heads H.
        d_ff: Width F of the feed-forward networks.
        dropout: Rate on the embeddings and on each sub-layer's output (section 5.4).
        target_vocabulary_size: Size of the target's own vocabulary. Unless given, source and target
            share one vocabulary and, with the logits, one embedding matrix (section 3.4).
        num_decoder_layers: Layers of the decoder.
        tie_logits: Whether the logits use the target embedding's matrix, or their own.
        logits_bias: Whether the logits have a bias.
        embedding_norm: Whether a LayerNorm follows the embeddings.
        positions: `"sinusoidal"`, or `"learned"` (row E of Table 3) with `max_length`.
        max_length: Number of learned positions.
        **block_options: Further arguments of the layers: attention_dropout, activation, norm,
            epsilon, key_dim, value_dim, use_bias.

    Call arguments:
        inputs: `{"source_ids": integers [B, S], "target_ids": integers [B, T]}`; 0 is padding, and
            the target begins with the start id.

    Returns:
        Logits [B, T, V]; those at position t are for target token t + 1.

    Raises:
        ValueError: For an unknown preset, or sizes that do not fit together.

    Example:

    ```python
    model = Transformer.from_preset("tiny", vocabulary_size=10_000)
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7]])}
    logits = model(ids)  # [1, 2, 10000]
    ```
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 6,
        d_model: int = 512,
        num_heads: int = 8,
        d_ff: int = 2048,
        dropout: float = 0.1,
        *,
        target_vocabulary_size: int | None = None,
        num_decoder_layers: int | None = None,
        tie_logits: bool = True,
        logits_bias: bool = False,
        embedding_norm: bool = False,
        positions: str = "sinusoidal",
        max_length: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **block_options: Any,
    ) -> None:
        arguments = arguments_of_model(locals())
        names = "source_ids", "target_ids"
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
        super().__init__(inputs, **arguments)

    def make_layers(  # type: ignore[override]
        self,
        dtype: Any,
        *,
        vocabulary_size: int,
        num_layers: int,
        target_vocabulary_size: int | None,
        num_decoder_layers: int | None,
        tie_logits: bool,
        logits_bias: bool,
        embedding_norm: bool,
        positions: str,
        max_length: int | None,
        **block: Any,
    ) -> dict[str, Any]:
        names = [name for name in ("d_model", "dropout", "epsilon") if name in block]
        sizes: dict[str, Any] = {name: block[name] for name in names}
        sizes.update(positions=positions, max_length=max_length, dtype=dtype)
        sizes["embedding_norm"] = embedding_norm
        embedding: Any = functools.partial(PositionalEmbedding, **sizes)
        bias = logits_bias and tie_logits
        if target_vocabulary_size is None:
            source = target = embedding(vocabulary_size, name="embedding", logits_bias=bias)
        else:
            source = embedding(vocabulary_size, name="source_embedding")
            target = embedding(target_vocabulary_size, name="target_embedding", logits_bias=bias)
        decoder_layers = num_decoder_layers or num_layers
        layers = {
            "source_embedding": source,
            "target_embedding": target,
            "encoder": Encoder(num_layers, dtype=dtype, name="encoder", **block),
            "decoder": Decoder(decoder_layers, dtype=dtype, name="decoder", **block),
            "logits": None,
        }
        if not tie_logits:
            options = {"use_bias": logits_bias, "dtype": dtype, "name": "logits"}
            size = target_vocabulary_size or vocabulary_size
            layers["logits"] = keras.layers.Dense(size, **options)
        return layers

    def wire(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.decode(inputs["target_ids"], *self.encode(inputs["source_ids"]))

    @classmethod
    def from_preset(cls, preset: str, vocabulary_size: int, **overrides: Any) -> "Transformer":
        """Returns a model of one of the `PRESETS`: `"tiny"`, or a row of the paper's Table 3.

        Args:
            preset: The preset's name: `"base"`, `"big"`, `"A-heads-1"`, ... (docs/table3.md). The
                label smoothing of a row belongs to the loss: `TABLE_3[preset].label_smoothing`.
            vocabulary_size: Number of tokens V.
            **overrides: Arguments of `Transformer` that differ from the preset.

        Example:

        ```python
        model = Transformer.from_preset("base", vocabulary_size=37_000, dropout=0.2)
        ```
        """
        if preset not in PRESETS:
            raise ValueError(f"Unknown preset {preset!r}. There are: {', '.join(PRESETS)}.")
        return cls(vocabulary_size, **{**PRESETS[preset], **overrides})

    def encode(self, source_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Source ids [B, S] -> memory [B, S, D] and its mask [B, S], True = real token."""
        mask = padding_mask(source_ids)
        return self.encoder(self.source_embedding(source_ids), mask=mask), mask

    def decode(
        self,
        target_ids: Tensor,
        memory: Tensor,
        memory_mask: Tensor,
        cache: Any = None,
        index: Tensor = 0,
    ) -> Any:
        """Target ids [B, T] -> logits [B, T, V]; with a cache also the updated cache.

        Args:
            target_ids: Integers [B, T], the shifted target; with a cache, its newest tokens.
            memory: [B, S, D] from `encode`. Not read when a cache is given.
            memory_mask: Booleans [B, S] from `encode`.
            cache: From `start_cache`.
            index: Position of the first of `target_ids`, with a cache.
        """
        x = self.target_embedding(target_ids, index=index)  # [B, T, D]
        if cache is None:
            mask = padding_mask(target_ids)
            x = self.decoder(x, memory, inputs_mask=mask, memory_mask=memory_mask)
        else:
            x, cache = self.decoder(x, memory_mask=memory_mask, cache=cache, index=index)
        tied = self.logits is None
        logits = self.target_embedding(x, reverse=True) if tied else self.logits(x)  # [B, T, V]
        return logits if cache is None else (logits, cache)

    def start_cache(self, memory: Tensor, length: int, beam_size: int = 1) -> Any:
        """A cache for targets of up to `length` tokens; `memory` is from `encode`.

        With `beam_size` N there are N targets per source: `decode` then takes ids [B * N, T].
        """
        return self.decoder.start_cache(memory, length, beam_size)
