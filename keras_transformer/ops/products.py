"""Matrix products, laid out for how they run."""

from keras import ops

# A product with few rows is split into parts, one of a single row if the matrix is large.
_PARTS, _FEW, _LARGE = 4, 8, 2**17


def dense(x, kernel, bias=None):
    """`x W + b`: [R, I] -> [R, O].

    Two axes, since a product of two matrices is one operation on every backend. A single row, which
    is what decoding one sentence multiplies, is a matter of reading the matrix. XLA reads it with
    one core if a bias follows, or if it is small; as parts of the sum it is read by all: 0.06 in
    place of 0.10 ms for 2,048 x 512 on two cores.
    """
    kernel = ops.cast(kernel, x.dtype)
    inner, outer = kernel.shape
    if x.shape[0] == 1 and inner % _PARTS == 0 and inner * outer >= _LARGE:
        parts = ops.matmul(
            ops.reshape(x, (_PARTS, 1, inner // _PARTS)),
            ops.reshape(kernel, (_PARTS, inner // _PARTS, outer)),
        )
        x = ops.sum(parts, axis=0)  # [1, O]
    else:
        x = ops.matmul(x, kernel)
    return x if bias is None else x + ops.cast(bias, x.dtype)


def batched(x, matrices):
    """`x M` of every row and head: [B, H, T, I] and [B, H, I, O] -> [B, H, T, O].

    A few rows are multiplied as a sum of products. XLA on the CPU makes one loop of that, which
    reads a cache where it lies; for a product of matrices it would first copy the cache, twice.
    """
    rows = (x.shape[0], x.shape[2])
    # Sizes that are not known are None, or under JAX symbols.
    if all(isinstance(size, int) for size in rows) and rows[0] * rows[1] <= _FEW:
        return ops.sum(x[..., None] * matrices[:, :, None], axis=3)
    return ops.matmul(x, matrices)


def logits(x, embeddings):
    """`x E^T`: [R, D] and [V, D] -> [R, V], for a few rows: those of a decoding step.

    XLA on the CPU multiplies by a transposed matrix slowly, 48 in place of 10 ms for 64 rows, 512
    and 37,000; so the result is transposed instead. Parts keep it from turning that round again.
    """
    embeddings = ops.cast(embeddings, x.dtype)
    size, width = embeddings.shape
    rows = x.shape[0]
    if rows is not None and rows <= _FEW and size % _PARTS == 0:
        parts = ops.reshape(embeddings, (_PARTS, size // _PARTS, width))
        columns = ops.broadcast_to(ops.transpose(x)[None], (_PARTS, width, rows))
        found = ops.matmul(parts, columns)  # [parts, V / parts, R]
        return ops.reshape(ops.transpose(found, (2, 0, 1)), (rows, size))
    return ops.transpose(ops.matmul(embeddings, ops.transpose(x)))
