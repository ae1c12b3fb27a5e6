"""The decoder (paper, section 3.1, right half of Figure 1)."""

import keras
from keras import ops

from keras_transformer.layers.encoder import Encoder, EncoderLayer, as_tuple
from keras_transformer.ops import beams


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
        attention_mask: booleans [B, T, T] or [B, T, positions of the cache], True = may attend, in
            self-attention; beside the causal mask.
        cache: `{"self": (keys, values), "cross": (keys, values)}` from `start_cache`.
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

    cache = layer.start_cache(memory, length=5)
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
        attention_mask=None,
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
                attention_mask=attention_mask,
                causal=True,
                return_attention_weights=return_attention_weights,
                training=training,
                **self_keys,
            )
        )
        weights, new_cache = (rest, None) if cache is None else (rest[:-1], rest[-1])
        x = self.join_self_attention(inputs, update, training=training)  # [B, T, D]

        update, *cross = as_tuple(
            self.cross_attention(
                self.join_cross_attention.prepare(x),
                memory,
                key_mask=memory_mask,
                return_attention_weights=return_attention_weights,
                training=training,
                **cross_keys,
            )
        )
        x = self.join_cross_attention(x, update, training=training)

        x = self._feed(x, training)
        outputs = (x,)
        if return_attention_weights:
            outputs += (*weights, cross[0])
        if cache is not None:
            outputs += ({"self": new_cache, "cross": cache["cross"]},)
        return outputs[0] if len(outputs) == 1 else outputs

    def start_cache(self, memory, length):
        """A cache for decoding up to `length` positions.

        Args:
            memory: [B, S, D]; its keys and values are computed here, once.
            length: number of positions T.

        Returns:
            `{"self": (keys [B, H, K, T], values [B, H, T, V]), "cross": (keys [B, H, K, S],
            values [B, H, S, V])}`.
        """
        return {
            "self": self.self_attention.start_cache(ops.shape(memory)[0], length),
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
        cache: from `start_cache`; `inputs` are then [R, T, D], the newest positions of R sequences
            alone.
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
        number = cache["origins"].shape[1] if "origins" in cache else None
        if number is not None:
            new = ops.shape(inputs)[1]
            origins = beams.grown(cache["origins"], index, new)
            keep["attention_mask"] = beams.mask(origins, new)
            cache = {**cache, "origins": origins}
            inputs, index = beams.together(inputs, number), index * number
        pairs = zip(cache["self"], cache["cross"], strict=True)
        each = [{"cache": {"self": a, "cross": b}, "index": index} for a, b in pairs]
        x, *weights, caches = self._run(each, inputs, **keep)
        if number is not None:
            x = beams.apart(x, number)
            weights = [
                [beams.weights_apart(layer, number, own=kind == 0) for layer in layers]
                for kind, layers in enumerate(weights)
            ]
        return x, *weights, {**cache, "self": [layer["self"] for layer in caches]}

    def start_cache(self, memory, length, beam_size=1):
        """A cache for decoding sequences of up to `length` tokens.

        Args:
            memory: [B, S, D]; its keys and values are computed here, once.
            length: number of positions T.
            beam_size: N sequences of each source, which stand together: R = B * N.

        Returns:
            `{"self": L x (keys [B, H, K, T * N], values [B, H, T * N, V]), "cross": L x (keys
            [B, H, K, S], values [B, H, S, V])}`, and with several beams their `"origins"`
            [B, N, T] (see beams.py). What stands under "cross" never changes.
        """
        caches = [layer.start_cache(memory, length * beam_size) for layer in self.layers]
        cache = {part: [layer[part] for layer in caches] for part in ("self", "cross")}
        if beam_size > 1:
            cache["origins"] = beams.start(ops.shape(memory)[0], beam_size, length)
        return cache
