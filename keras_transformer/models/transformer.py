"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017) as a functional model."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_transformer.layers.decoder import Decoder
from keras_transformer.layers.encoder import Encoder
from keras_transformer.layers.positional_embedding import PositionalEmbedding
from keras_transformer.models.functional import FunctionalModel
from keras_transformer.models.presets import PRESETS
from keras_transformer.ops.masks import padding_mask
from keras_transformer.ops.memory import keep_freed_memory


@keras.saving.register_keras_serializable(package="keras_transformer")
class Transformer(FunctionalModel):
    """Encoder and decoder, from source ids and shifted target ids to logits (Figure 1).

    ```
    memory = Encoder(Embedding(source_ids))                     encode
    logits = Embedding^T(Decoder(Embedding(target_ids), memory))   decode
    ```

    A functional `keras.Model`: `compile`, `fit`, `save` as usual. `encode` and `decode` are the
    wiring, used on symbolic tensors to build the model and on real ones by the search. A subclass
    may override them, and then trains, saves and translates with its own: see
    `models.functional.FunctionalModel`.

    Args:
        vocabulary_size: number of tokens V; of the source where the vocabularies differ.
        num_layers: layers of the encoder, and of the decoder unless that is given.
        d_model: width D.
        num_heads: attention heads H.
        d_ff: width F of the feed-forward networks.
        dropout: on the embeddings and on each sub-layer's output (section 5.4).
        target_vocabulary_size: size of a vocabulary of the target's own. Not given: one shared
            vocabulary, and one embedding matrix for source, target and logits (section 3.4).
        num_decoder_layers: layers of the decoder.
        tie_logits: whether the logits use the target embedding's matrix, or a matrix of their own.
        positions: `"sinusoidal"`, or `"learned"` (row E of Table 3) with `max_length`.
        max_length: number of learned positions.
        **block_options: further arguments of the layers: attention_dropout, activation, norm,
            epsilon, key_dim, value_dim, use_bias.

    Call arguments:
        inputs: `{"source_ids": integers [B, S], "target_ids": integers [B, T]}`; 0 is padding, and
            the target begins with the start id.

    Returns:
        logits [B, T, V]; those at position t are for target token t + 1.

    Raises:
        ValueError: for an unknown preset, or sizes that do not fit together.

    Example:

    ```python
    model = Transformer.from_preset("tiny", vocabulary_size=10_000)
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7]])}
    logits = model(ids)  # [1, 2, 10000]
    ```
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers=6,
        d_model=512,
        num_heads=8,
        d_ff=2048,
        dropout=0.1,
        *,
        target_vocabulary_size=None,
        num_decoder_layers=None,
        tie_logits=True,
        positions="sinusoidal",
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
            "target_vocabulary_size": target_vocabulary_size,
            "num_decoder_layers": num_decoder_layers,
            "tie_logits": tie_logits,
            "positions": positions,
            "max_length": max_length,
            **block_options,
        }
        inputs = {
            each: keras.Input((None,), dtype="int32", name=each)
            for each in ("source_ids", "target_ids")
        }
        super().__init__(inputs, sizes, dtype=dtype, name=name, trainable=trainable)

    def make_layers(
        self,
        dtype,
        vocabulary_size,
        num_layers,
        target_vocabulary_size,
        num_decoder_layers,
        tie_logits,
        positions,
        max_length,
        **block,
    ):
        embed = {
            "d_model": block["d_model"],
            "positions": positions,
            "max_length": max_length,
            "dropout": block["dropout"],
            "dtype": dtype,
        }
        if target_vocabulary_size is None:
            source = target = PositionalEmbedding(vocabulary_size, **embed, name="embedding")
        else:
            source = PositionalEmbedding(vocabulary_size, **embed, name="source_embedding")
            target = PositionalEmbedding(target_vocabulary_size, **embed, name="target_embedding")
        block["dtype"] = dtype
        encoder = Encoder(num_layers, **block, name="encoder")
        decoder = Decoder(num_decoder_layers or num_layers, **block, name="decoder")
        logits = None
        if not tie_logits:
            size = target_vocabulary_size or vocabulary_size
            logits = keras.layers.Dense(size, use_bias=False, dtype=dtype, name="logits")
        return {
            "source_embedding": source,
            "target_embedding": target,
            "encoder": encoder,
            "decoder": decoder,
            "logits": logits,
        }

    def wire(self, inputs):
        return self.decode(inputs["target_ids"], *self.encode(inputs["source_ids"]))

    @classmethod
    def from_preset(cls, preset, vocabulary_size, **overrides):
        """A model of one of the `PRESETS`: `"tiny"`, or a row of the paper's Table 3.

        Args:
            preset: the preset's name: `"base"`, `"big"`, `"A-heads-1"`, ... (docs/table3.md). The
                smoothing of `"D-smoothing-0"` and `"D-smoothing-0.2"` belongs to the loss:
                `TABLE_3[preset].label_smoothing`.
            vocabulary_size: number of tokens V.
            **overrides: arguments of `Transformer` that differ from the preset.

        Example:

        ```python
        model = Transformer.from_preset("base", vocabulary_size=37_000, dropout=0.2)
        ```
        """
        if preset not in PRESETS:
            raise ValueError(f"Unknown preset {preset!r}. There are: {', '.join(PRESETS)}.")
        return cls(vocabulary_size, **{**PRESETS[preset], **overrides})

    def make_train_function(self, force=False):
        """Makes the training step. Keras calls it; the optimizer gets its variables here first.

        Else TensorFlow would make them while it traces the step, and then trace it once more: half
        of the time that the first step takes. And the process keeps the memory that steps free.
        """
        keep_freed_memory()
        if not self.optimizer.built:
            strategy = getattr(self, "distribute_strategy", None)  # TensorFlow alone has one
            with contextlib.nullcontext() if strategy is None else strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def encode(self, source_ids):
        """Source ids [B, S] -> memory [B, S, D] and its mask [B, S], True = real token."""
        mask = padding_mask(source_ids)
        return self.encoder(self.source_embedding(source_ids), mask=mask), mask

    def decode(self, target_ids, memory, memory_mask, cache=None, index=0):
        """Target ids [B, T] -> logits [B, T, V]; with a cache also the updated cache.

        Args:
            target_ids: integers [B, T], the shifted target; with a cache, its newest tokens.
            memory: [B, S, D] from `encode`. Not read when a cache is given.
            memory_mask: booleans [B, S] from `encode`.
            cache: from `start_cache`.
            index: position of the first of `target_ids`, with a cache.
        """
        x = self.target_embedding(target_ids, index=index)  # [B, T, D]
        if cache is None:
            x = self.decoder(
                x, memory, inputs_mask=padding_mask(target_ids), memory_mask=memory_mask
            )
        else:
            x, cache = self.decoder(x, memory_mask=memory_mask, cache=cache, index=index)
        if self.logits is None:
            logits = self.target_embedding(x, reverse=True)  # [B, T, V]
        else:
            logits = self.logits(x)
        return logits if cache is None else (logits, cache)

    def attention_weights(self, source_ids, target_ids):
        """What every layer and head attends to, teacher-forced: for pictures, not for training.

        Of the embeddings, the encoder and the decoder: an `encode` or `decode` of a subclass is not
        called, as it returns no weights.

        Args:
            source_ids: integers [B, S]; 0 is padding.
            target_ids: integers [B, T], beginning with the start id.

        Returns:
            NumPy float32: `{"encoder": [L, B, H, S, S], "decoder": [L, B, H, T, T], "cross":
            [L, B, H, T, S]}`, queries before keys; each row sums to 1.

        Example:

        ```python
        weights = model.attention_weights(np.array([[5, 6, 3]]), np.array([[2, 7]]))
        weights["cross"][-1, 0]  # [H, 2, 3]: the last layer, the first pair
        ```
        """
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
        found = {"encoder": encoder, "decoder": decoder, "cross": cross}
        return {
            kind: np.stack([ops.convert_to_numpy(ops.cast(each, "float32")) for each in layers])
            for kind, layers in found.items()
        }

    def start_cache(self, memory, length, beam_size=1):
        """A cache for decoding targets of up to `length` tokens, `beam_size` for each source.

        Args:
            memory: [B, S, D] from `encode`.
            length: most tokens of a target.
            beam_size: N; the target ids given to `decode` are then [B * N, T].
        """
        return self.decoder.start_cache(memory, length, beam_size)

    def feature_extractor(self):
        """The encoder as a model of its own that shares the weights: source ids -> [B, S, D].

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

    The operations of an `encode` of one's own, like `2 * memory`, lose the mask.
    """

    def call(self, inputs):
        return inputs[0]

    def compute_mask(self, inputs, mask=None):
        return inputs[1]
