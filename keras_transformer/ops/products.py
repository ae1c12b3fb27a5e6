"""Matrix products, laid out for how they run; each is equal to the plain product."""

import warnings
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_transformer.ops import Tensor

# At most _FEW rows are multiplied in _PARTS, a single row only if the matrix has _LARGE numbers.
_PARTS, _FEW, _LARGE = 4, 8, 2**17


def plain_dense(x: Tensor, kernel: Tensor, bias: Tensor = None) -> Tensor:
    """`x W + b`: [R, I] -> [R, O]."""
    x = ops.matmul(x, ops.cast(kernel, x.dtype))
    return x if bias is None else x + ops.cast(bias, x.dtype)


def dense(x: Tensor, kernel: Tensor, bias: Tensor = None) -> Tensor:
    """Same as `plain_dense`; a single row is multiplied in parts.

    The row of decoding one sentence costs the time of reading the matrix. XLA reads it on one core
    when a bias follows, or when it is small. Split into four partial sums it uses all cores: 0.06
    ms instead of 0.10 ms (2,048 x 512, two cores).
    """
    inner, outer = kernel.shape
    kernel = ops.cast(kernel, x.dtype)
    if x.shape[0] == 1 and inner % _PARTS == 0 and inner * outer >= _LARGE:
        parts = ops.matmul(
            ops.reshape(x, (_PARTS, 1, inner // _PARTS)),
            ops.reshape(kernel, (_PARTS, inner // _PARTS, outer)),
        )
        x = ops.sum(parts, axis=0)  # [1, O]
    else:
        x = ops.matmul(x, kernel)
    return x if bias is None else x + ops.cast(bias, x.dtype)


def apply_dense(layer: keras.layers.Dense, x: Tensor) -> Tensor:
    """Same as `layer(x)`, by `dense`: [R, I] -> [R, O]."""
    if layer.quantization_mode is not None:
        return layer(x)  # only the layer knows what its integers stand for
    return layer.activation(dense(ops.cast(x, layer.compute_dtype), layer.kernel, layer.bias))


def apply_each(layers: Sequence[keras.layers.Dense], x: Tensor) -> Sequence[Tensor]:
    """Same as `[layer(x) for layer in layers]` without activations, by one product of all.

    Args:
        layers: Linear layers of the same input; all have a bias, or none.
        x: [R, I].
    """
    if any(layer.quantization_mode is not None for layer in layers):
        return [apply_dense(layer, x) for layer in layers]
    x = ops.cast(x, layers[0].compute_dtype)
    if len(layers) == 1:
        return [dense(x, layers[0].kernel, layers[0].bias)]
    kernel = ops.concatenate([ops.convert_to_tensor(layer.kernel) for layer in layers], axis=1)
    bias = None
    if layers[0].bias is not None:
        bias = ops.concatenate([ops.convert_to_tensor(layer.bias) for layer in layers])
    ends = np.cumsum([layer.units for layer in layers])
    return ops.split(dense(x, kernel, bias), ends[:-1].tolist(), axis=-1)


def batched(x: Tensor, matrices: Tensor) -> Tensor:
    """Same as `ops.matmul`: [B, H, T, I] and [B, H, I, O] -> [B, H, T, O].

    A few rows are multiplied as a sum of products. XLA on the CPU makes one loop of that, which
    reads a cache where it is; for a product of matrices it would first copy the cache, twice.
    """
    rows = (x.shape[0], x.shape[2])
    # Unknown sizes are None, or symbols under JAX.
    if all(isinstance(size, int) for size in rows) and rows[0] * rows[1] <= _FEW:
        return ops.sum(x[..., None] * matrices[:, :, None], axis=3)
    return ops.matmul(x, matrices)


def whole_ids(ids: Tensor, vocabulary_size: int) -> Tensor:
    """The ids as int32 or int64, which every backend can look up: [B, T] -> [B, T]."""
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if dtype in ("int32", "int64"):
        return ids
    exact = {"float16": 2**11, "bfloat16": 2**8}.get(dtype, vocabulary_size)
    if exact < vocabulary_size - 1:
        # Only a warning: Keras calls a nested model with float symbols when it loads a file.
        warnings.warn(
            f"The ids are {dtype}, which rounds whole numbers above {exact}, but "
            f"{vocabulary_size=}. Give the ids as integers: begin the model with "
            'keras.Input((None,), dtype="int32").',
            stacklevel=2,
        )
    return ops.cast(ids, "int32")


def look_up(layer: keras.layers.Embedding, ids: Tensor) -> Tensor:
    """Same as `layer(ids)`: [B, T] -> [B, T, D]. In half precision it casts only what it finds."""
    if layer.quantization_mode is not None:
        return layer(ids)
    return ops.cast(ops.take(layer.embeddings, ids, axis=0), layer.compute_dtype)


def apply_reversed(layer: keras.layers.ReversibleEmbedding, x: Tensor) -> Tensor:
    """Same as `layer(x, reverse=True)`, by `logits`: [B, T, D] -> [B, T, V]."""
    if layer.quantization_mode is not None:
        return layer(x, reverse=True)
    return logits(x, layer.embeddings)


def plain_logits(x: Tensor, embeddings: Tensor) -> Tensor:
    """`x E^T`: [B, T, D] and [V, D] -> [B, T, V]."""
    rows = ops.reshape(x, (-1, x.shape[-1]))
    found = ops.matmul(rows, ops.transpose(ops.cast(embeddings, x.dtype)))
    return ops.reshape(found, (-1, ops.shape(x)[1], embeddings.shape[0]))


def logits(x: Tensor, embeddings: Tensor) -> Tensor:
    """Same as `plain_logits`, faster for a single position: a decoding step.

    XLA on the CPU is slow at multiplying by a transposed matrix: 48 ms instead of 10 ms for 64
    rows, 512 and 37,000. So the result is transposed instead. Parts keep XLA from undoing that.
    """
    if x.shape[1] != 1:
        return plain_logits(x, embeddings)
    size, width = embeddings.shape
    rows = ops.reshape(x, (-1, width))  # [R, D]
    embeddings, count = ops.cast(embeddings, x.dtype), rows.shape[0]
    if count is None or count > _FEW or size % _PARTS:
        found = ops.transpose(ops.matmul(embeddings, ops.transpose(rows)))
    else:
        parts = ops.reshape(embeddings, (_PARTS, size // _PARTS, width))
        columns = ops.broadcast_to(ops.transpose(rows)[None], (_PARTS, width, count))
        found = ops.matmul(parts, columns)  # [parts, V / parts, R]
        found = ops.reshape(ops.transpose(found, (2, 0, 1)), (count, size))
    return ops.reshape(found, (-1, 1, size))
