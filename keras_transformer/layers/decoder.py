"""The decoder (paper, section 3.1, right half of Figure 1)."""

from typing import Any

import keras
from keras import ops

from keras_transformer.layers.encoder import Encoder, EncoderLayer, as_tuple
from keras_transformer.ops import Tensor, beams


@keras.saving.register_keras_serializable(package="keras_transformer")
class DecoderLayer(EncoderLayer):
    """An encoder layer whose self-attention is causal, with attention to a memory after it.

    ```
    x = LayerNorm(x + Dropout(MultiHead(x, x, x)))               causal
    x = LayerNorm(x + Dropout(MultiHead(x, memory, memory)))
    x = LayerNorm(x + Dropout(FFN(x)))
    ```

    The same code trains on whole sequences and decodes step by step. With a `cache`, `inputs` are
    only the newest tokens, and everything that they attend to comes from the cache.

    Args: As in `EncoderLayer`.

    Call arguments:
        inputs: [B, T, D].
        memory: [B, S, D], the encoder's output. Not read when a cache is given.
        inputs_mask, memory_mask: Booleans [B, T] and [B, S], True = real token. Unless given, Keras
            takes the implicit masks. With a cache, `inputs_mask` is not read.
        attention_mask: Booleans [B, T, T] or [B, T, positions of the cache], True = may attend, of
            the self-attention, beside the causal mask.
        cache: `{"self": (keys, values), "cross": (keys, values)}` from `start_cache`.
        index: Position of the first of `inputs` in the cache.
        return_attention_weights: Whether to return the weights too.

    Returns:
        [B, T, D]; followed by the weights of the self-attention [B, H, T, T] and of the
        cross-attention [B, H, T, S] if they were asked for, and by the updated cache if one was
        given.

    Example:

    ```python
    layer = DecoderLayer(d_model=512, num_heads=8, d_ff=2048)
    x, memory = keras.random.normal((2, 5, 512)), keras.random.normal((2, 7, 512))
    y = layer(x, memory)  # [2, 5, 512]

    cache = layer.start_cache(memory, length=5)
    y0, cache = layer(x[:, :1], cache=cache, index=0)  # equals y[:, :1]
    ```
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cross_attention = self._attention("cross_attention")
        self.join_cross_attention = self._residual("join_cross_attention")

    def build(self, inputs_shape: tuple, memory_shape: tuple | None = None) -> None:
        self.cross_attention.build(inputs_shape, memory_shape)
        self.join_cross_attention.build(inputs_shape)
        super().build(inputs_shape)

    def call(  # type: ignore[override]
        self,
        inputs: Tensor,
        memory: Tensor = None,
        inputs_mask: Tensor = None,
        memory_mask: Tensor = None,
        attention_mask: Tensor = None,
        cache: dict[str, Any] | None = None,
        index: Tensor = 0,
        return_attention_weights: bool = False,
        training: bool | None = None,
    ) -> Any:
        if memory is None and cache is None:
            raise ValueError("memory [B, S, D] is missing; without one use Encoder, causal=True.")
        shared = {"return_attention_weights": return_attention_weights, "training": training}
        own: dict[str, Any] = {"key_mask": inputs_mask}
        cross: dict[str, Any] = {"key_mask": memory_mask}
        if cache is not None:
            # The keys are the cache's positions. `inputs_mask` covers only the newest of them.
            own = {"cache": cache["self"], "index": index}
            cross["cache"] = cache["cross"]

        x = self.join_self_attention.prepare(inputs)
        update, *rest = as_tuple(
            self.self_attention(x, attention_mask=attention_mask, causal=True, **own, **shared)
        )
        x = self.join_self_attention(inputs, update, training=training)  # [B, T, D]

        update, *weights = as_tuple(
            self.cross_attention(self.join_cross_attention.prepare(x), memory, **cross, **shared)
        )
        x = self.join_cross_attention(x, update, training=training)

        outputs = [self._feed(x, training)]
        if return_attention_weights:
            outputs += [rest[0], weights[0]]
        if cache is not None:
            outputs.append({"self": rest[-1], "cross": cache["cross"]})
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def start_cache(self, memory: Tensor, length: int) -> dict[str, tuple[Tensor, Tensor]]:  # type: ignore[override]
        """A cache for up to T = `length` positions; a memory [B, S, D] is projected here, once.

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
        num_layers: Number of layers L.
        **layer: The arguments of `EncoderLayer`: d_model, num_heads, d_ff, dropout, ...

    Call arguments:
        inputs: [B, T, D]; with a cache, the newest positions of R sequences, [R, T, D].
        cache: From `start_cache`.
        return_attention_weights: Whether to return the weights of all layers too.
        memory, inputs_mask, memory_mask, index: As in `DecoderLayer`.

    Returns:
        [B, T, D]; followed by the weights of the self-attention, L x [B, H, T, T], and of the
        cross-attention, L x [B, H, T, S], if they were asked for; and by the updated cache if one
        was given.

    Example:

    ```python
    decoder = Decoder(num_layers=6, d_model=512, num_heads=8, d_ff=2048)
    y = decoder(keras.random.normal((2, 5, 512)), keras.random.normal((2, 7, 512)))  # [2, 5, 512]
    ```
    """

    layer_class = DecoderLayer

    def build(self, inputs_shape: tuple, memory_shape: tuple | None = None) -> None:  # type: ignore[override]
        super().build(inputs_shape, memory_shape)

    def call(  # type: ignore[override]
        self,
        inputs: Tensor,
        memory: Tensor = None,
        inputs_mask: Tensor = None,
        memory_mask: Tensor = None,
        cache: dict[str, Any] | None = None,
        index: Tensor = 0,
        return_attention_weights: bool = False,
        training: bool | None = None,
    ) -> Any:
        shared = {"memory_mask": memory_mask, "training": training}
        shared["return_attention_weights"] = return_attention_weights
        if cache is None:
            return self._run(
                [{"inputs_mask": inputs_mask}] * self.num_layers, inputs, memory, **shared
            )
        if "origins" in cache:
            return beams.step_together(self._step, inputs, cache, index, **shared)
        return self._step(inputs, cache, index, **shared)

    def _step(self, x, cache, index, **shared):
        pairs = zip(cache["self"], cache["cross"], strict=True)
        each = [{"cache": {"self": a, "cross": b}, "index": index} for a, b in pairs]
        x, *weights, caches = self._run(each, x, **shared)
        return x, *weights, {**cache, "self": [layer["self"] for layer in caches]}

    def start_cache(self, memory: Tensor, length: int, beam_size: int = 1) -> dict[str, Any]:  # type: ignore[override]
        """A cache for decoding sequences of up to `length` tokens.

        Args:
            memory: [B, S, D]; its keys and values are computed here, once.
            length: Number of positions T.
            beam_size: Sequences per source N, side by side: R = B * N.

        Returns:
            `{"self": L x (keys [B, H, K, T * N], values [B, H, T * N, V]), "cross": L x (keys
            [B, H, K, S], values [B, H, S, V])}`, and with several beams their `"origins"`
            [B, N, T] (see ops/beams.py). The part `"cross"` never changes.
        """
        caches: list[Any] = [layer.start_cache(memory, length * beam_size) for layer in self.layers]
        cache = {part: [layer[part] for layer in caches] for part in ("self", "cross")}
        if beam_size > 1:
            cache["origins"] = beams.start(ops.shape(memory)[0], beam_size, length)
        return cache
