"""Multi-head attention (paper, section 3.2)."""

from typing import Any

import keras
from keras import ops

from keras_transformer.layers.dropout import Dropout
from keras_transformer.ops import Tensor, masks
from keras_transformer.ops.attention import attend
from keras_transformer.ops.attention_to_cache import write
from keras_transformer.ops.composite import Composite
from keras_transformer.ops.products import apply_each


@keras.saving.register_keras_serializable(package="keras_transformer")
class MultiHeadAttention(Composite):
    """Scaled dot-product attention in `num_heads` learned subspaces (section 3.2.2).

    ```
    Attention(Q, K, V) = softmax(Q K^T / sqrt(key_dim)) V
    MultiHead(q, k, v) = Concat(head_1, ..., head_h) W_O
    head_i             = Attention(q W_Q_i, k W_K_i, v W_V_i)
    ```

    Self-attention is `layer(x)`, cross-attention `layer(x, memory)`. Softmax runs in float32 under
    every dtype policy. A query without any permitted key gets the average of the values. Four
    implementations give the same result: see `attend` in ops/attention.py.

    Args:
        d_model: Width D of the output; a multiple of `num_heads` unless `key_dim` is given.
        num_heads: Number of heads H; h in the paper.
        key_dim: Width K of the queries and keys per head; `d_model / num_heads` unless given.
        value_dim: Width V of the values per head; `key_dim` unless given.
        use_bias: Whether the four projections add a bias. The paper has none.
        dropout: Share of the attention weights that training drops. The paper drops none of them:
            section 5.4 drops the sub-layer's output, which `EncoderLayer` does.

    Call arguments:
        query: [B, T, D].
        key: [B, S, D]; `query` itself unless given.
        value: [B, S, D]; `key` itself unless given.
        attention_mask: Booleans [T, S], [B, T, S] or [B, H, T, S], True = may attend; a size of 1
            broadcasts. Integers are True unless 0. Floats must be known to be 0 and 1: inside a
            compiled function cast them to booleans.
        key_mask: Booleans [B, S], True = real key; the implicit mask of `key` unless given.
        causal: Whether position t sees only positions up to t (section 3.2.3).
        cache: `(keys, values)`, [B, H, K, S] and [B, H, S, V]. With `index`, the keys and values of
            `query` are written at positions `index, index + 1, ...`, and the positions up to there
            are attended to. Without, they are from a memory: see `project_memory`.
        index: Position of the first query in the cache, an integer or an integer scalar.
        return_attention_weights: Whether to return the weights too.
        mask: Booleans [B, T], self-attention's key mask; `query`'s implicit mask unless given.
        query_mask: Same as `mask`, which Keras calls so if there are more tensors than `query`.

    Returns:
        [B, T, D]; followed by the weights [B, H, T, S] if they were asked for, and by the cache
        if one was given.

    Raises:
        ValueError: If sizes do not fit together, or a mask does not fit them.

    Example:

    ```python
    attention = MultiHeadAttention(d_model=512, num_heads=8)
    x = keras.random.normal((2, 7, 512))
    y, weights = attention(x, causal=True, return_attention_weights=True)
    y.shape, weights.shape  # (2, 7, 512), (2, 8, 7, 7)
    ```
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        key_dim: int | None = None,
        value_dim: int | None = None,
        use_bias: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_heads < 1 or d_model < 1:
            raise ValueError(f"num_heads and d_model are at least 1, got {num_heads=}, {d_model=}.")
        if key_dim is None and d_model % num_heads:
            raise ValueError(
                f"{d_model=} does not divide into {num_heads=} heads. Choose another number of "
                "heads, or pass key_dim, the width per head."
            )
        self.d_model = d_model
        self.num_heads = num_heads
        self.key_dim = d_model // num_heads if key_dim is None else key_dim
        self.value_dim = self.key_dim if value_dim is None else value_dim
        self.use_bias = use_bias
        self.dropout = dropout
        self.supports_masking = True
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

    def build(
        self, query_shape: tuple, key_shape: tuple | None = None, value_shape: tuple | None = None
    ) -> None:
        key_shape = query_shape if key_shape is None else key_shape
        value_shape = key_shape if value_shape is None else value_shape
        keys, values = self.num_heads * self.key_dim, self.num_heads * self.value_dim
        self.query = self._projection("query", query_shape[-1], keys)
        self.key = self._projection("key", key_shape[-1], keys)
        self.value = self._projection("value", value_shape[-1], values)
        self.output_projection = self._projection("output", values, self.d_model)
        self.built = True

    def _projection(self, name, width, output_width):
        layer = keras.layers.Dense(
            output_width, use_bias=self.use_bias, dtype=self.dtype_policy, name=name
        )
        layer.build((None, width))
        return layer

    def call(
        self,
        query: Tensor,
        key: Tensor = None,
        value: Tensor = None,
        attention_mask: Tensor = None,
        key_mask: Tensor = None,
        causal: bool = False,
        cache: tuple[Tensor, Tensor] | None = None,
        index: Tensor = None,
        return_attention_weights: bool = False,
        mask: Tensor = None,
        query_mask: Tensor = None,
        training: bool | None = None,
    ) -> Any:
        # Project: [B, H, T, K], [B, H, S, K] and [B, H, S, V].
        if cache is None:
            if key is None and key_mask is None:
                key_mask = query_mask if mask is None else mask
            key = query if key is None else key
            value = key if value is None else value
            [queries] = self._project(query, self.query)
            [keys] = self._project(key, self.key)
            [values] = self._project(value, self.value)
        elif index is None:
            [queries], (keys, values) = self._project(query, self.query), cache
        else:
            index = index if isinstance(index, int) else ops.cast(index, "int32")
            queries, new_keys, new_values = self._project(query, self.query, self.key, self.value)
            keys = write(cache[0], ops.transpose(new_keys, (0, 1, 3, 2)), index, axis=3)
            values = write(cache[1], new_values, index, axis=2)
            cache, causal = (keys, values), True

        # Attend.
        sizes = query.shape[0], self.num_heads, query.shape[1], values.shape[2]
        if key_mask is not None:
            key_mask = masks.checked_key_mask(key_mask, sizes[0], sizes[3])
        if attention_mask is not None:
            attention_mask = masks.checked_attention_mask(attention_mask, sizes)
        mixed, weights = attend(
            queries,
            keys,
            values,
            masks.Masks(key_mask, attention_mask, causal, index),
            cached=cache is not None,
            dropout=self._dropout,
            training=training,
            return_weights=return_attention_weights,
        )

        # Merge the heads: [B, T, D]. The length is the query's, since TensorFlow's functions may
        # forget that of `mixed`.
        mixed = ops.transpose(mixed, (0, 2, 1, 3))  # [B, T, H, V]
        rows = ops.reshape(mixed, (-1, self.num_heads * self.value_dim))
        [rows] = apply_each([self.output_projection], rows)
        outputs = [ops.reshape(rows, (-1, ops.shape(query)[1], self.d_model))]
        if return_attention_weights:
            outputs.append(weights)
        if cache is not None:
            outputs.append(cache)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def compute_output_shape(
        self, query_shape: tuple, key_shape: tuple | None = None, value_shape: tuple | None = None
    ) -> tuple:
        return (*query_shape[:-1], self.d_model)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        # Calls `call`: weights and a cache may be returned beside the output.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def project_memory(self, key: Tensor, value: Tensor = None) -> tuple[Tensor, Tensor]:
        """The keys [B, H, K, S] and values [B, H, S, V] of a memory, to be passed as `cache`.

        They are laid out as a step multiplies them. `value` is `key` [B, S, D] unless given.
        """
        self.require_weights()
        [keys] = self._project(key, self.key)
        [values] = self._project(key if value is None else value, self.value)
        return ops.transpose(keys, (0, 1, 3, 2)), values

    def start_cache(self, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
        """An empty cache for `length` positions: zeros [B, H, K, length] and [B, H, length, V]."""
        heads, dtype = (batch_size, self.num_heads), self.compute_dtype
        return (
            ops.zeros((*heads, self.key_dim, length), dtype=dtype),
            ops.zeros((*heads, length, self.value_dim), dtype=dtype),
        )

    def _project(self, x, *projections):
        """The heads of x [B, S, D] by each projection: [B, H, S, K]."""
        length, heads = ops.shape(x)[1], []
        for part in apply_each(projections, ops.reshape(x, (-1, x.shape[-1]))):  # [B * S, ...]
            part = ops.reshape(part, (-1, length, self.num_heads, part.shape[-1] // self.num_heads))
            heads.append(ops.transpose(part, (0, 2, 1, 3)))
        return heads

    def get_config(self) -> dict[str, Any]:
        names = "num_heads", "d_model", "key_dim", "value_dim", "use_bias", "dropout"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
