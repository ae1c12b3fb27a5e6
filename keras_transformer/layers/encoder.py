"""The encoder (paper, section 3.1, left half of Figure 1)."""

import keras

from keras_transformer.layers.attention import MultiHeadAttention
from keras_transformer.layers.feed_forward import FeedForward
from keras_transformer.layers.normalization import LayerNorm
from keras_transformer.layers.quantization import quantized_dtype
from keras_transformer.layers.residual import Residual


@keras.saving.register_keras_serializable(package="keras_transformer")
class EncoderLayer(keras.layers.Layer):
    """Self-attention and a feed-forward network, each with a residual connection (section 3.1).

    ```
    x = LayerNorm(x + Dropout(MultiHead(x, x, x)))
    x = LayerNorm(x + Dropout(FFN(x)))
    ```

    Args:
        d_model: width D of input and output.
        num_heads: number of attention heads H.
        d_ff: width F of the feed-forward network.
        dropout: share of each sub-layer's output dropped in training (section 5.4).
        attention_dropout: share of attention weights dropped in training; none in the paper.
        activation: the feed-forward network's non-linearity.
        norm: `"post"` as in the paper, or `"pre"`; a stack of pre-norm layers ends with one more
            normalisation, which `Encoder` adds.
        epsilon: of the layer normalisation.
        key_dim: width of the queries and keys of one head; `d_model / num_heads` by default.
        value_dim: width of the values of one head; `key_dim` by default.
        use_bias: whether the attention's projections add a bias; none in the paper.

    Call arguments:
        inputs: [B, S, D].
        attention_mask: booleans [S, S], [B, S, S] or [B, H, S, S], True = may attend; padding is
            masked besides. See `MultiHeadAttention`.
        causal: whether position t sees only positions up to t.
        mask: booleans [B, S], True = real token. Filled in by Keras from the implicit mask; one
            that is passed wins. Not read when a cache is given.
        cache: `(keys, values)` from `start_cache`: `inputs` are then the newest positions alone,
            which see those before them in the cache, as with `causal=True`.
        index: position of the first of `inputs`, with a cache.
        return_attention_weights: whether to return the weights too.
        inputs_mask: the same as `mask`; Keras fills in this one where there are more tensors than
            `inputs`.

    Returns:
        [B, S, D]; followed by the weights [B, H, S, S] if asked for, and by the updated cache if
        one was given.

    Raises:
        ValueError: for an unknown `norm` or sizes that do not fit.

    Example:

    ```python
    token_ids = keras.Input((None,), dtype="int32")
    x = PositionalEmbedding(vocabulary_size=8_000, d_model=256)(token_ids)
    x = EncoderLayer(d_model=256, num_heads=4, d_ff=1024)(x)  # [B, S, 256], padding masked
    ```
    """

    def __init__(
        self,
        d_model,
        num_heads,
        d_ff,
        dropout=0.1,
        attention_dropout=0.0,
        activation="relu",
        norm="post",
        epsilon=1e-6,
        key_dim=None,
        value_dim=None,
        use_bias=False,
        **kwargs,
    ):
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

    def build(self, inputs_shape):
        if inputs_shape[-1] != self.d_model:
            raise ValueError(
                f"{type(self).__name__} adds its input to its output, so the input's width is "
                f"d_model={self.d_model}, got shape {tuple(inputs_shape)}."
            )
        for part in (
            self.self_attention,
            self.join_self_attention,
            self.feed_forward,
            self.join_feed_forward,
        ):
            part.build(inputs_shape)
        self.built = True

    def call(
        self,
        inputs,
        attention_mask=None,
        causal=False,
        mask=None,
        cache=None,
        index=0,
        return_attention_weights=False,
        inputs_mask=None,
        training=None,
    ):
        mask = inputs_mask if mask is None else mask
        # With a cache the keys are its positions, of which `mask` knows the newest alone.
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

    def compute_output_shape(self, inputs_shape, memory_shape=None):
        return tuple(inputs_shape)

    compute_output_spec = MultiHeadAttention.compute_output_spec

    def start_cache(self, rows, length):
        """An empty cache of `length` positions, see `MultiHeadAttention.start_cache`."""
        return self.self_attention.start_cache(rows, length)

    def _feed(self, x, training):
        update = self.feed_forward(self.join_feed_forward.prepare(x), training=training)
        return self.join_feed_forward(x, update, training=training)

    def get_config(self):
        return {
            **super().get_config(),
            **quantized_dtype(self),
            "d_model": self.d_model,
            "num_heads": self.num_heads,
            "d_ff": self.d_ff,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "activation": keras.activations.serialize(self.activation),
            "norm": self.norm,
            "epsilon": self.epsilon,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "use_bias": self.use_bias,
        }


def as_tuple(outputs):
    """What a layer returns, one tensor or several, as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


@keras.saving.register_keras_serializable(package="keras_transformer")
class Encoder(keras.layers.Layer):
    """A stack of `num_layers` encoder layers; pre-norm stacks end with a normalisation.

    Args:
        num_layers: number of layers L.
        **layer: the arguments of `EncoderLayer`: d_model, num_heads, d_ff, dropout, ...

    Call arguments:
        inputs: [B, S, D].
        attention_mask: booleans [S, S], [B, S, S] or [B, H, S, S], True = may attend.
        causal: whether position t sees only positions up to t.
        mask: booleans [B, S], True = real token. Filled in by Keras from the implicit mask; one
            that is passed wins.
        cache: L x (keys, values) from `start_cache`, see `EncoderLayer`.
        index: position of the first of `inputs`, with a cache.
        return_attention_weights: whether to return the weights of all layers too.
        inputs_mask: the same as `mask`; Keras fills in this one where there are more tensors than
            `inputs`.

    Returns:
        [B, S, D]; followed by the weights, L x [B, H, S, S], if asked for, and by the updated cache
        if one was given.

    Example:

    ```python
    encoder = Encoder(num_layers=6, d_model=512, num_heads=8, d_ff=2048)
    memory = encoder(keras.random.normal((2, 7, 512)))  # [2, 7, 512]
    ```
    """

    layer_class = EncoderLayer

    def __init__(self, num_layers, *, name=None, dtype=None, trainable=True, **layer):
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
            self.final_norm = LayerNorm(
                self.layers[0].epsilon, dtype=self.dtype_policy, name="final_norm"
            )

    def build(self, inputs_shape, *memory_shape):
        for layer in self.layers:
            layer.build(inputs_shape, *memory_shape)
        if self.final_norm is not None:
            self.final_norm.build(inputs_shape)
        self.built = True

    def call(
        self,
        inputs,
        attention_mask=None,
        causal=False,
        mask=None,
        cache=None,
        index=0,
        return_attention_weights=False,
        inputs_mask=None,
        training=None,
    ):
        mask = inputs_mask if mask is None else mask
        keep = {"attention_mask": attention_mask, "causal": causal, "training": training}
        keep["return_attention_weights"] = return_attention_weights
        if cache is None:
            return self._run([{"mask": mask}] * self.num_layers, inputs, **keep)
        return self._run([{"cache": old, "index": index} for old in cache], inputs, **keep)

    def _run(self, each, x, *memory, **keep):
        """The layers one after another: the output, and a list over layers of whatever else
        they return. `each` has the arguments of each layer, `keep` those of all."""
        others = []
        for layer, arguments in zip(self.layers, each, strict=True):
            x, *rest = as_tuple(layer(x, *memory, **arguments, **keep))
            others.append(rest)
        if self.final_norm is not None:
            x = self.final_norm(x)
        lists = map(list, zip(*others, strict=True))
        return (x, *lists) if others[0] else x

    def compute_output_shape(self, inputs_shape, memory_shape=None):
        return tuple(inputs_shape)

    compute_output_spec = MultiHeadAttention.compute_output_spec

    def start_cache(self, rows, length):
        """The caches of all layers, for `rows` sequences of up to `length` positions."""
        return [layer.start_cache(rows, length) for layer in self.layers]

    def get_config(self):
        layer = self.layers[0].get_config()
        for key in ("name", "dtype", "trainable"):
            del layer[key]
        own = {**super().get_config(), **quantized_dtype(self)}
        return {**own, **layer, "num_layers": self.num_layers}
