"""Matrix products, laid out for how they run; each is equal to the plain product."""

from keras import ops

from keras_transformer.ops import Tensor

# A product with few rows is split into parts, one with a single row only if the matrix is large.
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


def plain_logits(x: Tensor, embeddings: Tensor) -> Tensor:
    """`x E^T`: [R, D] and [V, D] -> [R, V]."""
    return ops.matmul(x, ops.transpose(ops.cast(embeddings, x.dtype)))


def logits(x: Tensor, embeddings: Tensor) -> Tensor:
    """Same as `plain_logits`, for the few rows of a decoding step.

    XLA on the CPU is slow at multiplying by a transposed matrix: 48 ms instead of 10 ms for 64
    rows, 512 and 37,000. So the result is transposed instead. Parts keep XLA from undoing that.
    """
    embeddings = ops.cast(embeddings, x.dtype)
    size, width = embeddings.shape
    rows = x.shape[0]
    if rows is None or rows > _FEW or size % _PARTS:
        return ops.transpose(ops.matmul(embeddings, ops.transpose(x)))
    parts = ops.reshape(embeddings, (_PARTS, size // _PARTS, width))
    columns = ops.broadcast_to(ops.transpose(x)[None], (_PARTS, width, rows))
    found = ops.matmul(parts, columns)  # [parts, V / parts, R]
    return ops.reshape(ops.transpose(found, (2, 0, 1)), (rows, size))
