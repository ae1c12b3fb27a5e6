"""The encoder (paper, section 3.1, left half of Figure 1)."""

from collections.abc import Callable
from typing import Any

import keras

from keras_transformer.layers.attention import MultiHeadAttention
from keras_transformer.layers.feed_forward import FeedForward
from keras_transformer.layers.normalization import LayerNorm
from keras_transformer.layers.residual import Residual
from keras_transformer.ops import Tensor
from keras_transformer.ops.composite import Composite


@keras.saving.register_keras_serializable(package="keras_transformer")
class EncoderLayer(Composite):
    """Self-attention and a feed-forward network, each with a residual connection (section 3.1).

    ```
    x = LayerNorm(x + Dropout(MultiHead(x, x, x)))
    x = LayerNorm(x + Dropout(FFN(x)))
    ```

    Args:
        d_model: Width D of input and output.
        num_heads: Number of attention heads H.
        d_ff: Width F of the feed-forward network.
        dropout: Share of each sub-layer's output that training drops (section 5.4).
        attention_dropout: Share of the attention weights that training drops; none in the paper.
        activation: The feed-forward network's non-linearity, a name or a function.
        norm: `"post"` as in the paper, or `"pre"`: see `Residual`.
        epsilon: Added to the variance by the layer normalisation.
        key_dim, value_dim, use_bias: As in `MultiHeadAttention`.

    Call arguments:
        inputs: [B, S, D].
        attention_mask: Booleans [S, S], [B, S, S] or [B, H, S, S], True = may attend.
        causal: Whether position t sees only positions up to t.
        mask: Booleans [B, S], True = real token. Unless given, Keras takes the implicit mask of
            `inputs`. Not read when a cache is given.
        cache: `(keys, values)` from `start_cache`. Then `inputs` are only the newest positions.
            They see those before them in the cache, as with `causal=True`.
        index: Position of the first of `inputs` in the cache.
        return_attention_weights: Whether to return the weights too.
        inputs_mask: Same as `mask`, which Keras calls so if there are more tensors than `inputs`.

    Returns:
        [B, S, D]; followed by the weights [B, H, S, S] if they were asked for, and by the updated
        cache if one was given.

    Raises:
        ValueError: For an unknown `norm` or sizes that do not fit.

    Example:

    ```python
    token_ids = keras.Input((None,), dtype="int32")
    x = PositionalEmbedding(vocabulary_size=8_000, d_model=256)(token_ids)
    x = EncoderLayer(d_model=256, num_heads=4, d_ff=1024)(x)  # [B, S, 256], padding masked
    ```
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation: str | Callable = "relu",
        norm: str = "post",
        epsilon: float = 1e-6,
        key_dim: int | None = None,
        value_dim: int | None = None,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.d_model = d_model
        self.num_heads = num_heads
        self.d_ff = d_ff
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation = keras.activations.get(activation)
        self.norm = norm
        self.epsilon = epsilon
        self.key_dim = key_dim
        self.value_dim = value_dim
        self.use_bias = use_bias
        self.supports_masking = True
        self.self_attention = self._attention("self_attention")
        self.join_self_attention = self._residual("join_self_attention")
        self.feed_forward = FeedForward(
            d_model, d_ff, activation=self.activation, dtype=self.dtype_policy, name="feed_forward"
        )
        self.join_feed_forward = self._residual("join_feed_forward")

    def _attention(self, name):
        return MultiHeadAttention(
            self.d_model,
            self.num_heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
            use_bias=self.use_bias,
            dropout=self.attention_dropout,
            dtype=self.dtype_policy,
            name=name,
        )

    def _residual(self, name):
        return Residual(self.norm, self.dropout, self.epsilon, dtype=self.dtype_policy, name=name)

    def build(self, inputs_shape: tuple) -> None:
        if inputs_shape[-1] != self.d_model:
            raise ValueError(
                f"{type(self).__name__} adds its input to its output, so the input's width is "
                f"d_model={self.d_model}, got shape {tuple(inputs_shape)}."
            )
        self.self_attention.build(inputs_shape)
        self.join_self_attention.build(inputs_shape)
        self.feed_forward.build(inputs_shape)
        self.join_feed_forward.build(inputs_shape)
        self.built = True

    def call(
        self,
        inputs: Tensor,
        attention_mask: Tensor = None,
        causal: bool = False,
        mask: Tensor = None,
        cache: tuple[Tensor, Tensor] | None = None,
        index: Tensor = 0,
        return_attention_weights: bool = False,
        inputs_mask: Tensor = None,
        training: bool | None = None,
    ) -> Any:
        mask = inputs_mask if mask is None else mask
        # With a cache the keys are its positions. `mask` covers only the newest of them.
        keys = {"key_mask": mask} if cache is None else {"cache": cache, "index": index}
        update, *rest = as_tuple(
            self.self_attention(
                self.join_self_attention.prepare(inputs),
                attention_mask=attention_mask,
                causal=causal,
                return_attention_weights=return_attention_weights,
                training=training,
                **keys,
            )
        )
        x = self.join_self_attention(inputs, update, training=training)  # [B, S, D]
        x = self._feed(x, training)
        return (x, *rest) if rest else x

    def compute_output_shape(self, inputs_shape: tuple, memory_shape: tuple | None = None) -> tuple:
        return tuple(inputs_shape)

    compute_output_spec = MultiHeadAttention.compute_output_spec

    def start_cache(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """An empty cache of `length` positions, see `MultiHeadAttention.start_cache`."""
        return self.self_attention.start_cache(rows, length)

    def _feed(self, x, training):
        update = self.feed_forward(self.join_feed_forward.prepare(x), training=training)
        return self.join_feed_forward(x, update, training=training)

    def get_config(self) -> dict[str, Any]:
        names = ["d_model", "num_heads", "d_ff", "dropout", "attention_dropout", "activation"]
        names += ["norm", "epsilon", "key_dim", "value_dim", "use_bias"]
        config = {name: getattr(self, name) for name in names}
        config["activation"] = keras.activations.serialize(self.activation)
        return {**super().get_config(), **config}


def as_tuple(outputs: Any) -> tuple:
    """What a layer returns, one tensor or several, as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


@keras.saving.register_keras_serializable(package="keras_transformer")
class Encoder(Composite):
    """A stack of `num_layers` encoder layers; pre-norm stacks end with a normalisation.

    Args:
        num_layers: Number of layers L.
        **layer: The arguments of `EncoderLayer`: d_model, num_heads, d_ff, dropout, ...

    Call arguments:
        inputs: [B, S, D].
        cache: L x (keys, values) from `start_cache`.
        return_attention_weights: Whether to return the weights of all layers too.
        attention_mask, causal, mask, index, inputs_mask: As in `EncoderLayer`.

    Returns:
        [B, S, D]; followed by the weights, L x [B, H, S, S], if they were asked for, and by the
        updated cache if one was given.

    Example:

    ```python
    encoder = Encoder(num_layers=6, d_model=512, num_heads=8, d_ff=2048)
    memory = encoder(keras.random.normal((2, 7, 512)))  # [2, 7, 512]
    ```
    """

    layer_class = EncoderLayer

    def __init__(
        self,
        num_layers: int,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **layer: Any,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        if num_layers < 1:
            raise ValueError(f"A stack has at least one layer, got num_layers={num_layers}.")
        self.num_layers = num_layers
        self.layers = [
            self.layer_class(**layer, dtype=self.dtype_policy, name=f"layer_{i}")
            for i in range(num_layers)
        ]
        self.supports_masking = True
        self.final_norm = None
        if self.layers[0].norm == "pre":
            epsilon = self.layers[0].epsilon
            self.final_norm = LayerNorm(epsilon, dtype=self.dtype_policy, name="final_norm")

    def build(self, inputs_shape: tuple, *memory_shape: Any) -> None:
        for layer in self.layers:
            layer.build(inputs_shape, *memory_shape)
        if self.final_norm is not None:
            self.final_norm.build(inputs_shape)
        self.built = True

    def call(
        self,
        inputs: Tensor,
        attention_mask: Tensor = None,
        causal: bool = False,
        mask: Tensor = None,
        cache: list | None = None,
        index: Tensor = 0,
        return_attention_weights: bool = False,
        inputs_mask: Tensor = None,
        training: bool | None = None,
    ) -> Any:
        mask = inputs_mask if mask is None else mask
        shared = {"attention_mask": attention_mask, "causal": causal, "training": training}
        shared["return_attention_weights"] = return_attention_weights
        if cache is None:
            return self._run([{"mask": mask}] * self.num_layers, inputs, **shared)
        return self._run([{"cache": old, "index": index} for old in cache], inputs, **shared)

    def _run(self, each, x, *memory, **shared):
        """Runs the layers in order. Returns the output, then one list per extra result.

        `each` has the arguments of each layer, `shared` the arguments of all layers.
        """
        extra = []
        for layer, arguments in zip(self.layers, each, strict=True):
            x, *rest = as_tuple(layer(x, *memory, **arguments, **shared))
            extra.append(rest)
        if self.final_norm is not None:
            x = self.final_norm(x)
        return (x, *map(list, zip(*extra, strict=True))) if extra[0] else x

    compute_output_shape = EncoderLayer.compute_output_shape
    compute_output_spec = MultiHeadAttention.compute_output_spec

    def start_cache(self, rows: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """The caches of all layers, for `rows` sequences of up to `length` positions."""
        return [layer.start_cache(rows, length) for layer in self.layers]

    def get_config(self) -> dict[str, Any]:
        layer = self.layers[0].get_config()
        for key in ("name", "dtype", "trainable"):
            del layer[key]
        return {**super().get_config(), **layer, "num_layers": self.num_layers}
