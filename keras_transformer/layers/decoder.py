"""The decoder (paper, section 3.1, right half of Figure 1)."""

import keras
from keras import ops

from keras_transformer.layers.encoder import Encoder, EncoderLayer, as_tuple


@keras.saving.register_keras_serializable(package="keras_transformer")
class DecoderLayer(EncoderLayer):
    """An encoder layer whose self-attention is causal, with attention to a memory after it.

    ```
    x = LayerNorm(x + Dropout(MultiHead(x, x, x)))               causal
    x = LayerNorm(x + Dropout(MultiHead(x, memory, memory)))
    x = LayerNorm(x + Dropout(FFN(x)))
    ```

    The same code trains on whole sequences and decodes step by step: with a `cache`, `inputs` are
    the newest tokens alone, and all that they attend to comes from the cache.

    Args: those of `EncoderLayer`.

    Call arguments:
        inputs: [B, T, D].
        memory: [B, S, D], the encoder's output. Not read when a cache is given.
        inputs_mask: booleans [B, T], True = real token; filled in by Keras. Not read when a cache
            is given.
        memory_mask: booleans [B, S], True = real token; filled in by Keras from the implicit mask
            of `memory`; one that is passed wins.
        cache: `{"self": (keys, values), "cross": (keys, values)}` from `start_cache`. The rows of
            "self" may be N times those of "cross": N beams share their source.
        index: position of the first of `inputs`, with a cache.
        return_attention_weights: whether to return the weights too.

    Returns:
        [B, T, D]; followed by the self-attention [B, H, T, T] and cross-attention [B, H, T, S]
        weights if asked for, and by the updated cache if one was given.

    Example:

    ```python
    layer = DecoderLayer(d_model=512, num_heads=8, d_ff=2048)
    x, memory = keras.random.normal((2, 5, 512)), keras.random.normal((2, 7, 512))
    y = layer(x, memory)  # [2, 5, 512]

    cache = layer.start_cache(memory, rows=2, length=5)
    y0, cache = layer(x[:, :1], cache=cache, index=0)  # equals y[:, :1]
    ```
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.cross_attention = self._attention("cross_attention")
        self.join_cross_attention = self._residual("join_cross_attention")

    def build(self, inputs_shape, memory_shape=None):
        self.cross_attention.build(inputs_shape, memory_shape)
        self.join_cross_attention.build(inputs_shape)
        super().build(inputs_shape)

    def call(
        self,
        inputs,
        memory=None,
        inputs_mask=None,
        memory_mask=None,
        cache=None,
        index=0,
        return_attention_weights=False,
        training=None,
    ):
        if cache is None:
            self_keys, cross_keys = {"key_mask": inputs_mask}, {}
        else:
            # The keys are the cache's positions, of which `inputs_mask` knows the newest alone.
            self_keys = {"cache": cache["self"], "index": index}
            cross_keys = {"cache": cache["cross"]}

        update, *rest = as_tuple(
            self.self_attention(
                self.join_self_attention.prepare(inputs),
                causal=True,
                return_attention_weights=return_attention_weights,
                training=training,
                **self_keys,
            )
        )
        weights, new_cache = (rest, None) if cache is None else (rest[:-1], rest[-1])
        x = self.join_self_attention(inputs, update, training=training)  # [B, T, D]

        query = self.join_cross_attention.prepare(x)
        if cache is not None:
            # Queries do not see each other here, so the beams of a source (N rows of T) can stand
            # as N * T positions of one row, and the memory is neither repeated nor reordered.
            sources = ops.shape(cache["cross"][0])[0]
            query = ops.reshape(query, (sources, -1, self.d_model))
        update, *cross = as_tuple(
            self.cross_attention(
                query,
                memory,
                key_mask=memory_mask,
                return_attention_weights=return_attention_weights,
                training=training,
                **cross_keys,
            )
        )
        if cache is not None:
            update = ops.reshape(update, ops.shape(x))
        x = self.join_cross_attention(x, update, training=training)

        x = self._feed(x, training)
        outputs = (x,)
        if return_attention_weights:
            outputs += (*weights, self._by_row(cross[0], ops.shape(x)[1]))
        if cache is not None:
            outputs += ({"self": new_cache, "cross": cache["cross"]},)
        return outputs[0] if len(outputs) == 1 else outputs

    def _by_row(self, weights, length):
        """[B, H, N * T, S], where the beams of a source stand as positions, to [B * N, H, T, S]."""
        size, heads = ops.shape(weights)[3], self.num_heads
        weights = ops.reshape(weights, (-1, heads, ops.shape(weights)[2] // length, length, size))
        return ops.reshape(ops.transpose(weights, (0, 2, 1, 3, 4)), (-1, heads, length, size))

    def start_cache(self, memory, rows, length):
        """A cache for decoding `rows` sequences of up to `length` tokens.

        Args:
            memory: [B, S, D]; its keys and values are computed here, once.
            rows: number of sequences, B or N * B.
            length: number of positions T.

        Returns:
            `{"self": (keys [rows, H, K, T], values [rows, H, T, V]), "cross": (keys [B, H, K, S],
            values [B, H, S, V])}`.
        """
        return {
            "self": self.self_attention.start_cache(rows, length),
            "cross": self.cross_attention.project_memory(memory),
        }


@keras.saving.register_keras_serializable(package="keras_transformer")
class Decoder(Encoder):
    """A stack of `num_layers` decoder layers; pre-norm stacks end with a normalisation.

    Args:
        num_layers: number of layers L.
        **layer: the arguments of `DecoderLayer`: d_model, num_heads, d_ff, dropout, ...

    Call arguments:
        inputs: [B, T, D].
        memory: [B, S, D]. Not read when a cache is given.
        inputs_mask: booleans [B, T], True = real token; filled in by Keras.
        memory_mask: booleans [B, S], True = real token; filled in by Keras.
        cache: `{"self": L x (keys, values), "cross": L x (keys, values)}` from `start_cache`.
        index: position of the first of `inputs`, with a cache.
        return_attention_weights: whether to return the weights of all layers too.

    Returns:
        [B, T, D]; followed by the self-attention weights, L x [B, H, T, T], and those of the
        cross-attention, L x [B, H, T, S], if asked for; and by the updated cache if one was given.

    Example:

    ```python
    decoder = Decoder(num_layers=6, d_model=512, num_heads=8, d_ff=2048)
    y = decoder(keras.random.normal((2, 5, 512)), keras.random.normal((2, 7, 512)))  # [2, 5, 512]
    ```
    """

    layer_class = DecoderLayer

    def build(self, inputs_shape, memory_shape=None):
        super().build(inputs_shape, memory_shape)

    def call(
        self,
        inputs,
        memory=None,
        inputs_mask=None,
        memory_mask=None,
        cache=None,
        index=0,
        return_attention_weights=False,
        training=None,
    ):
        keep = {"memory_mask": memory_mask, "training": training}
        keep["return_attention_weights"] = return_attention_weights
        if cache is None:
            each = [{"inputs_mask": inputs_mask}] * self.num_layers
            return self._run(each, inputs, memory, **keep)
        pairs = zip(cache["self"], cache["cross"], strict=True)
        each = [{"cache": {"self": a, "cross": b}, "index": index} for a, b in pairs]
        *outputs, caches = self._run(each, inputs, **keep)
        return *outputs, {"self": [new["self"] for new in caches], "cross": cache["cross"]}

    def start_cache(self, memory, rows, length):
        """The caches of all layers, see `DecoderLayer.start_cache`."""
        caches = [layer.start_cache(memory, rows, length) for layer in self.layers]
        return {part: [cache[part] for cache in caches] for part in ("self", "cross")}
