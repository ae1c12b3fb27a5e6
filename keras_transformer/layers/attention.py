"""Multi-head attention (paper, section 3.2)."""

import keras
from keras import ops

from keras_transformer.layers.dropout import Dropout
from keras_transformer.ops import attention_to_cache as cached
from keras_transformer.ops import masks
from keras_transformer.ops.products import batched, dense


@keras.saving.register_keras_serializable(package="keras_transformer")
class MultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention in `num_heads` learned subspaces (section 3.2.2).

    ```
    Attention(Q, K, V) = softmax(Q K^T / sqrt(key_dim)) V
    MultiHead(q, k, v) = Concat(head_1, ..., head_h) W_O
    head_i             = Attention(q W_Q_i, k W_K_i, v W_V_i)
    ```

    Self-attention is `layer(x)`, cross-attention `layer(x, memory)`. Softmax runs in float32 under
    every dtype policy. A query with no permitted key gets an average of the values: finite, and
    to be ignored.

    The weights are all held at once where they are asked for, and where there are few. Else, on
    TensorFlow, the queries go through in blocks and memory grows with T + S (layers/blockwise.py);
    on a GPU under JAX and PyTorch, `keras.ops.dot_product_attention` takes the fused kernels, for
    which a mask is written out for every pair of positions. A compiled step with a
    cache on a processor reads what is written of it, in blocks (layers/cached.py). Other places
    hold all weights.

    Args:
        d_model: width of the output; a multiple of `num_heads` unless `key_dim` is given.
        num_heads: number of heads, h in the paper.
        key_dim: width of the queries and keys of one head (d_k); `d_model / num_heads` by default.
        value_dim: width of the values of one head (d_v); `key_dim` by default.
        use_bias: whether the four projections add a bias. The paper has none.
        dropout: share of attention weights dropped in training. The paper drops none of them
            (section 5.4 drops the sub-layer's output, which `EncoderLayer` does).

    Call arguments:
        query: [B, T, D].
        key: [B, S, D]; `query` itself where not given.
        value: [B, S, D]; `key` itself where not given.
        attention_mask: booleans [T, S], [B, T, S] or [B, H, T, S], True = may attend; a size of 1
            serves all. Integers are True unless 0. Floats are taken if they are seen to be 0 and
            1, which they are not inside a compiled function: cast them to booleans.
        key_mask: booleans [B, S], True = real key. Filled in by Keras from the implicit mask of
            `key`; one that is passed wins.
        causal: whether position t sees only positions up to t (section 3.2.3).
        cache: `(keys, values)`, [B, H, K, S] and [B, H, S, V]. With `index`: the keys and values of
            `query` are written at positions `index, index + 1, ...` and attended to up to there.
            Without: they are those of a memory, from `project_memory`, and used as they are.
        index: position of the first query in the cache, an integer or an integer scalar.
        return_attention_weights: whether to return the weights too.
        mask: booleans [B, T]; the key mask of self-attention. Filled in by Keras from the implicit
            mask of `query`; one that is passed wins.
        query_mask: the same as `mask`; Keras fills in this one where there are more tensors than
            `query`.

    Returns:
        [B, T, D]; followed by the weights [B, H, T, S] if they were asked for, and by the cache
        if one was given.

    Raises:
        ValueError: for sizes that do not fit together, or a mask that does not fit them.

    Example:

    ```python
    attention = MultiHeadAttention(num_heads=8, d_model=512)
    x = keras.random.normal((2, 7, 512))
    y, weights = attention(x, causal=True, return_attention_weights=True)
    y.shape, weights.shape  # (2, 7, 512), (2, 8, 7, 7)
    ```
    """

    def __init__(
        self,
        d_model,
        num_heads,
        key_dim=None,
        value_dim=None,
        use_bias=False,
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_heads < 1 or d_model < 1:
            raise ValueError(
                f"num_heads and d_model are at least 1, got num_heads={num_heads}, "
                f"d_model={d_model}."
            )
        if key_dim is None and d_model % num_heads:
            raise ValueError(
                f"d_model={d_model} does not divide into num_heads={num_heads} heads. Choose "
                "another number of heads, or say how wide a head is with key_dim."
            )
        self.num_heads = num_heads
        self.d_model = d_model
        self.key_dim = d_model // num_heads if key_dim is None else key_dim
        self.value_dim = self.key_dim if value_dim is None else value_dim
        self.use_bias = use_bias
        self.dropout = dropout
        self.supports_masking = True
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

    def build(self, query_shape, key_shape=None, value_shape=None):
        key_shape = query_shape if key_shape is None else key_shape
        value_shape = key_shape if value_shape is None else value_shape
        keys, values = self.num_heads * self.key_dim, self.num_heads * self.value_dim
        self.query_kernel, self.query_bias = self._projection("query", query_shape[-1], keys)
        self.key_kernel, self.key_bias = self._projection("key", key_shape[-1], keys)
        self.value_kernel, self.value_bias = self._projection("value", value_shape[-1], values)
        self.output_kernel, self.output_bias = self._projection("output", values, self.d_model)
        self.built = True

    def _projection(self, name, width, output_width):
        kernel = self.add_weight(
            (width, output_width), initializer="glorot_uniform", name=f"{name}_kernel"
        )
        if not self.use_bias:
            return kernel, None
        return kernel, self.add_weight((output_width,), initializer="zeros", name=f"{name}_bias")

    def call(
        self,
        query,
        key=None,
        value=None,
        attention_mask=None,
        key_mask=None,
        causal=False,
        cache=None,
        index=None,
        return_attention_weights=False,
        mask=None,
        query_mask=None,
        training=None,
    ):
        mask = query_mask if mask is None else mask
        if index is None:
            queries = self._heads(query, self.query_kernel, self.query_bias)  # [B, H, T, K]
        if cache is None:
            if key is None:
                key, key_mask = query, (mask if key_mask is None else key_mask)
            keys = self._heads(key, self.key_kernel, self.key_bias)  # [B, H, S, K]
            value = key if value is None else value
            values = self._heads(value, self.value_kernel, self.value_bias)  # [B, H, S, V]
        elif index is not None:
            queries, new_keys, new_values = self._project_newest(query)
            keys = _write(cache[0], _transposed(new_keys), index, axis=3)
            values = _write(cache[1], new_values, index, axis=2)
            cache, causal = (keys, values), True
        key_length = keys.shape[2] if cache is None else cache[0].shape[3]
        if key_mask is not None:
            key_mask = masks.checked_key_mask(key_mask, query.shape[0], key_length)
        if attention_mask is not None:
            scores = (query.shape[0], self.num_heads, query.shape[1], key_length)
            attention_mask = masks.checked_attention_mask(attention_mask, scores)
        keep = {"key_mask": key_mask, "attention_mask": attention_mask, "causal": causal}
        weights, plain = None, not return_attention_weights
        if cache is None and plain:
            mixed = self._attend_without_weights(queries, keys, values, training, **keep)
        elif index is not None and plain and not training and cached.serves(queries, keys, index):
            permitted = _permitted(queries, keys, **keep, index=index)
            mixed = cached.attend(self._scaled(queries), keys, values, permitted, index)
        else:
            keys, values = (_transposed(keys), values) if cache is None else cache
            mixed, weights = self._attend(queries, keys, values, training, **keep, index=index)
        mixed = ops.reshape(
            ops.transpose(mixed, (0, 2, 1, 3)),
            (-1, self.num_heads * self.value_dim),
        )  # [B * T, H * V]
        mixed = dense(mixed, self.output_kernel, self.output_bias)
        outputs = [ops.reshape(mixed, (-1, ops.shape(query)[1], self.d_model))]  # [B, T, D]
        if return_attention_weights:
            outputs.append(weights)
        if cache is not None:
            outputs.append(cache)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def compute_output_shape(self, query_shape, key_shape=None, value_shape=None):
        return (*query_shape[:-1], self.d_model)

    def compute_output_spec(self, *args, **kwargs):
        # By calling `call`: weights and a cache may be returned beside the output.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def _project_newest(self, x):
        """Queries, keys and values [B, H, T, ...] of the newest positions, by one product."""
        widths = (self.key_dim, self.key_dim, self.value_dim)
        kernels = (self.query_kernel, self.key_kernel, self.value_kernel)
        biases = (self.query_bias, self.key_bias, self.value_bias)
        kernel = ops.concatenate([ops.convert_to_tensor(k) for k in kernels], axis=1)
        bias = (
            ops.concatenate([ops.convert_to_tensor(b) for b in biases]) if self.use_bias else None
        )
        length = ops.shape(x)[1]
        both = dense(ops.reshape(x, (-1, x.shape[-1])), kernel, bias)
        keys = self.num_heads * self.key_dim
        parts = ops.split(both, [keys, 2 * keys], axis=-1)
        return [
            ops.transpose(ops.reshape(part, (-1, length, self.num_heads, width)), (0, 2, 1, 3))
            for part, width in zip(parts, widths, strict=True)
        ]

    def project_memory(self, key, value=None):
        """The keys and values of a memory, to be computed once and passed as `cache`.

        Args:
            key: [B, S, D].
            value: [B, S, D]; `key` where not given.

        Returns:
            keys [B, H, K, S] and values [B, H, S, V]: each as a step multiplies it.
        """
        value = key if value is None else value
        return (
            _transposed(self._heads(key, self.key_kernel, self.key_bias)),
            self._heads(value, self.value_kernel, self.value_bias),
        )

    def start_cache(self, batch_size, length):
        """An empty cache for `length` positions: zeros [B, H, K, length] and [B, H, length, V]."""
        shapes = (self.key_dim, length), (length, self.value_dim)
        return tuple(
            ops.zeros((batch_size, self.num_heads, *shape), dtype=self.compute_dtype)
            for shape in shapes
        )

    def _heads(self, x, kernel, bias):
        length = ops.shape(x)[1]
        x = dense(ops.reshape(x, (-1, x.shape[-1])), kernel, bias)  # [B * S, H * K]
        x = ops.reshape(x, (-1, length, self.num_heads, x.shape[-1] // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))  # [B, H, S, K]

    def _attend(self, queries, keys, values, training, index=None, **mask):
        """The mixed values and the weights, by keys [B, H, K, S]."""
        permitted = _permitted(queries, keys, **mask, index=index)
        scores = batched(self._scaled(queries), keys)
        scores = ops.cast(scores, "float32")  # [B, H, T, S]
        if permitted is not None:
            scores = scores + masks.attention_bias(permitted)
        weights = ops.cast(ops.softmax(scores, axis=-1), self.compute_dtype)
        dropped = self._dropout(weights, training=training) if self.dropout else weights
        return batched(dropped, values), weights  # [B, H, T, V], [B, H, T, S]

    def _attend_without_weights(self, queries, keys, values, training, **mask):
        """The first of what `_attend` returns, by what needs the least memory or time."""
        rate = self.dropout if training else 0.0
        if keras.backend.backend() == "tensorflow":
            from keras_transformer.ops import attention_in_blocks as blockwise

            seed = ops.cast(self._dropout.seed_generator.next(), "int32") if rate else None
            queries = self._scaled(queries)
            return blockwise.attend(queries, keys, values, **mask, rate=rate, seed=seed)
        if rate == 0 and self.key_dim == self.value_dim and _has_fused_attention():
            return _fused(self._scaled(queries), keys, values, **mask)
        return self._attend(queries, _transposed(keys), values, training, **mask)[0]

    def _scaled(self, queries):
        return queries * (self.key_dim**-0.5)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "d_model": self.d_model,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
        }


def _permitted(queries, keys, key_mask, attention_mask, causal, index=None):
    """The mask over keys [B, H, K, S], which broadcasts to [B, H, T, S], or None."""
    causal_mask = None
    if causal:
        causal_mask = masks.causal_mask(
            ops.shape(queries)[2], ops.shape(keys)[3], 0 if index is None else index
        )
    return masks.combine_masks(key_mask, attention_mask, causal_mask)


def _transposed(keys):
    return ops.transpose(keys, (0, 1, 3, 2))


def _write(cache, new, index, axis):
    """`cache` with `new` at positions index, index + 1, ... of an axis, 2 or 3."""
    if cache.shape[axis] is not None:
        start = [0, 0, 0, 0]
        start[axis] = index
        return ops.slice_update(cache, start, new)
    # An exported search, whose length is known when it runs. `slice_update` is XLA's on TensorFlow,
    # which would compile it for each length.
    before, after = [slice(None)] * axis, index + ops.shape(new)[axis]
    parts = [cache[(*before, slice(None, index))], new, cache[(*before, slice(after, None))]]
    return ops.concatenate(parts, axis=axis)


def _has_fused_attention():
    """Whether a kernel computes attention without holding its weights: cuDNN's or PyTorch's."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def _fused(queries, keys, values, key_mask, attention_mask, causal):
    """Attention by `ops.dot_product_attention`: [B, H, T, K] for scaled queries of that shape."""
    length, key_length = ops.shape(queries)[2], ops.shape(keys)[2]
    permitted = masks.combine_masks(key_mask, attention_mask, None)
    flash = keras.config.is_flash_attention_enabled()
    if permitted is not None:
        if causal:
            permitted = ops.logical_and(permitted, masks.causal_mask(length, key_length))
        while len(permitted.shape) < 4:
            permitted = permitted[None]
        # cuDNN wants a mask of every pair, and lengths that are even.
        shape = (*permitted.shape[:2], length, key_length)
        permitted = ops.broadcast_to(permitted, shape)
        if length % 2 or key_length % 2:
            flash = False
    mixed = ops.dot_product_attention(
        *(ops.transpose(each, (0, 2, 1, 3)) for each in (queries, keys, values)),
        mask=permitted,
        scale=1.0,
        is_causal=causal and permitted is None,
        flash_attention=flash,
    )
    return ops.transpose(mixed, (0, 2, 1, 3))
