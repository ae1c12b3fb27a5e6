"""What the Transformer replaced: recurrent encoder-decoders with the same interface.

`encode`, `start_cache` and `decode` work as in `kt.models.Transformer`, and the cache is the
recurrent state. So `kt.Translator` searches with both.
"""

import keras
import numpy as np
from keras import ops, tree
from recurrent_layers import RecurrentDecoder, RecurrentEncoder

from keras_transformer.layers import PositionalEmbedding, padding_mask
from keras_transformer.models import FunctionalModel


@keras.saving.register_keras_serializable(package="compare_seq2seq")
class RecurrentSeq2Seq(FunctionalModel):
    """A recurrent encoder-decoder from source ids and shifted target ids to logits.

    ```
    states, memory = Encoder(Embedding(source_ids))                       encode
    logits = Embedding^T(Decoder(Embedding(target_ids), states, memory))  decode
    ```

    Without attention the decoder knows of the source only the encoder's last state, a vector of
    fixed width. One matrix embeds source and target and gives the logits, as in
    `kt.models.Transformer`.

    Args:
        vocabulary_size: Number of tokens V; id 0 is padding.
        units: Width H of each state.
        cell: `"rnn"` or `"lstm"`.
        attention: None, `"additive"` or `"dot"`.
        num_layers: Layers of the encoder and of the decoder.
        d_model: Width D of the embeddings.
        dropout: The rate on embeddings, between layers and before the logits.
        bidirectional: Whether half of the encoder reads backwards.
        reverse_source: Whether the source is read from its end (Sutskever et al., 2014,
            section 3.3), which brings the first words of both sides near each other.

    Call arguments:
        inputs: `{"source_ids": integers [B, S], "target_ids": integers [B, T]}`. 0 is padding, and
            the target begins with the start id.

    Returns:
        Logits [B, T, V]; those at position t are for target token t + 1.

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
        self.reverse_source = reverse_source
        sizes = {
            "vocabulary_size": vocabulary_size,
            "units": units,
            "cell": cell,
            "attention": attention,
            "num_layers": num_layers,
            "d_model": d_model,
            "dropout": dropout,
            "bidirectional": bidirectional,
            "reverse_source": reverse_source,
        }
        inputs = {
            each: keras.Input((None,), dtype="int32", name=each)
            for each in ("source_ids", "target_ids")
        }
        super().__init__(inputs, sizes, dtype=dtype, name=name, trainable=trainable)

    def make_layers(
        self, dtype, vocabulary_size, attention, d_model, bidirectional, reverse_source, **sizes
    ):
        embedding = PositionalEmbedding(
            vocabulary_size,
            d_model,
            positions=None,
            dropout=sizes["dropout"],
            dtype=dtype,
            name="positional_embedding",
        )
        encoder = {**sizes, "bidirectional": bidirectional, "name": "recurrent_encoder"}
        decoder = {**sizes, "attention": attention, "name": "recurrent_decoder"}
        return {
            "source_embedding": embedding,
            "target_embedding": embedding,
            "encoder": RecurrentEncoder(**encoder, dtype=dtype),
            "decoder": RecurrentDecoder(**decoder, dtype=dtype),
        }

    def wire(self, inputs):
        return self.decode(inputs["target_ids"], *self.encode(inputs["source_ids"]))

    def encode(self, source_ids):
        """Source ids [B, S] -> the memory and its mask [B, S], both in the order of reading.

        The memory has the last states and, with attention, the outputs [B, S, H].
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

        `index` is ignored, because the state knows its position.
        """
        x = self.target_embedding(target_ids)  # [B, T, D]
        if cache is None:
            x, _ = self.decoder(x, memory["states"], memory.get("outputs"), memory_mask)
            return self.target_embedding(x, reverse=True)
        values, keys = cache["cross"] or (None, None)
        x, states = self.decoder(x, cache["self"], values, memory_mask, keys)
        return self.target_embedding(x, reverse=True), {**cache, "self": states}

    def start_cache(self, memory, length, beam_size=1):
        """Returns the states of `beam_size` targets per source. `length` is ignored."""

        def repeated(state):  # [B, H] -> [B * N, H], the N rows of a source together
            return ops.repeat(state, beam_size, axis=0)

        values = memory.get("outputs")
        return {
            "self": tree.map_structure(repeated, memory["states"]),
            "cross": [] if values is None else [values, self.decoder.project(values)],
        }


def matching_units(
    parameters, d_model, cell="lstm", attention=None, num_layers=2, bidirectional=False
):
    """Returns the even width H with which encoder and decoder have about so many parameters.

    Their number is a quadratic function of H, which three small widths determine.
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
