"""What the Transformer replaced: recurrent encoder-decoders, with its interface.

`encode`, `start_cache` and `decode` are those of `kt.models.Transformer`; the cache of a recurrent
model is its state. So `kt.Translator` searches with either.
"""

import types

import keras
import numpy as np
from keras import ops, tree
from recurrent_layers import RecurrentDecoder, RecurrentEncoder

from keras_transformer.layers import PositionalEmbedding
from keras_transformer.layers.masks import padding_mask
from keras_transformer.models import LossPerLabel


@keras.saving.register_keras_serializable(package="compare_seq2seq")
class RecurrentSeq2Seq(LossPerLabel, keras.Model):
    """A recurrent encoder-decoder from source ids and shifted target ids to logits.

    ```
    states, memory = Encoder(Embedding(source_ids))                       encode
    logits = Embedding^T(Decoder(Embedding(target_ids), states, memory))  decode
    ```

    Without attention all that the decoder knows of the source is the encoder's last state, a
    vector of fixed width. One matrix embeds source and target and gives the logits, as in
    `kt.models.Transformer`.

    Args:
        vocabulary_size: number of tokens V; id 0 is padding.
        units: width H of each state.
        cell: `"rnn"` or `"lstm"`.
        attention: None, `"additive"` or `"dot"`.
        num_layers: layers of the encoder and of the decoder.
        d_model: width D of the embeddings.
        dropout: on embeddings, between layers and before the logits.
        bidirectional: whether half of the encoder reads backwards.
        reverse_source: whether the source is read from its end (Sutskever et al., 2014,
            section 3.3), which brings the first words of both sides near each other.

    Call arguments:
        inputs: `{"source_ids": integers [B, S], "target_ids": integers [B, T]}`; 0 is padding, and
            the target begins with the start id.

    Returns:
        logits [B, T, V]; those at position t are for target token t + 1.

    Example:

    ```python
    model = RecurrentSeq2Seq(10_000, units=208, attention="additive", bidirectional=True)
    ```
    """

    def __init__(
        self,
        vocabulary_size,
        units,
        cell="lstm",
        attention=None,
        num_layers=2,
        d_model=128,
        dropout=0.1,
        *,
        bidirectional=False,
        reverse_source=True,
        name=None,
        dtype=None,
        trainable=True,
    ):
        policy = keras.dtype_policies.get(dtype)
        sizes = {"cell": cell, "units": units, "num_layers": num_layers, "dropout": dropout}
        parts = types.SimpleNamespace(reverse_source=reverse_source)
        parts.source_embedding = parts.target_embedding = PositionalEmbedding(
            vocabulary_size, d_model, positions=None, dropout=dropout, dtype=policy
        )
        parts.encoder = RecurrentEncoder(**sizes, bidirectional=bidirectional, dtype=policy)
        parts.decoder = RecurrentDecoder(**sizes, attention=attention, dtype=policy)

        # As in `Transformer`, the wiring first runs on the bare layers.
        source_ids = keras.Input((None,), dtype="int32", name="source_ids")
        target_ids = keras.Input((None,), dtype="int32", name="target_ids")
        memory, memory_mask = RecurrentSeq2Seq.encode(parts, source_ids)
        logits = RecurrentSeq2Seq.decode(parts, target_ids, memory, memory_mask)
        super().__init__(
            inputs={"source_ids": source_ids, "target_ids": target_ids},
            outputs=logits,
            name=name,
            trainable=trainable,
        )
        for part, value in vars(parts).items():
            setattr(self, part, value)
        self._config = {
            **sizes,
            "vocabulary_size": vocabulary_size,
            "attention": attention,
            "d_model": d_model,
            "bidirectional": bidirectional,
            "reverse_source": reverse_source,
            "dtype": policy.name,
        }

    def encode(self, source_ids):
        """Source ids [B, S] -> what the decoder may know of them, and the mask [B, S].

        Both are in the order of reading. The memory is the last states and, with attention, the
        outputs [B, S, H].
        """
        if self.reverse_source:
            source_ids = ops.flip(source_ids, axis=1)
        mask = padding_mask(source_ids)
        outputs, states = self.encoder(self.source_embedding(source_ids), mask=mask)
        memory = {"states": self.decoder.start(states)}
        if self.decoder.attention:
            memory["outputs"] = outputs
        return memory, mask

    def decode(self, target_ids, memory, memory_mask, cache=None, index=0):
        """Target ids [B, T] -> logits [B, T, V]; with a cache also the updated cache.

        The state knows how far it is: `index` is not read.
        """
        x = self.target_embedding(target_ids)  # [B, T, D]
        if cache is None:
            x, _ = self.decoder(x, memory["states"], memory.get("outputs"), memory_mask)
            return self.target_embedding(x, reverse=True)
        values, keys = cache["cross"] or (None, None)
        x, states = self.decoder(x, cache["self"], values, memory_mask, keys)
        return self.target_embedding(x, reverse=True), {**cache, "self": states}

    def start_cache(self, memory, length, beam_size=1):
        """The states of `beam_size` targets a source; `length` is not read: states do not grow."""

        def repeated(state):  # [B, H] -> [B * N, H], the N rows of a source together
            return ops.repeat(state, beam_size, axis=0)

        values = memory.get("outputs")
        return {
            "self": tree.map_structure(repeated, memory["states"]),
            "cross": [] if values is None else [values, self.decoder.project(values)],
        }

    def get_config(self):
        return {**self._config, "name": self.name, "trainable": self.trainable}


def matching_units(
    parameters, d_model, cell="lstm", attention=None, num_layers=2, bidirectional=False
):
    """The even width H with which encoder and decoder have about so many parameters together.

    Their number is a quadratic of H, which three small widths give.
    """

    def count(units):
        encoder = RecurrentEncoder(cell, units, num_layers, bidirectional=bidirectional)
        decoder = RecurrentDecoder(cell, units, num_layers, attention=attention)
        for layer in (encoder, decoder):
            layer.build((None, None, d_model))
        return encoder.count_params() + decoder.count_params()

    widths = (2, 4, 6)
    a, b, c = np.polyfit(widths, [count(units) for units in widths], 2)
    root = (-b + np.sqrt(max(b * b - 4 * a * (c - parameters), 0.0))) / (2 * a)
    return max(2, 2 * round(root / 2))
