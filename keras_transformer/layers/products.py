"""Matrix products, laid out for how they run."""

from keras import ops

# Parts and numbers from which a vector's product with a matrix is split.
_PARTS, _LARGE = 4, 2**17


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


def logits(x, embeddings):
    """`x E^T`: [R, D] and [V, D] -> [R, V], for a few rows: those of a decoding step.

    XLA on the CPU multiplies by a transposed matrix slowly, 48 in place of 10 ms for 64 rows, 512
    and 37,000; so the result is transposed instead.
    """
    embeddings = ops.cast(embeddings, x.dtype)
    size, width = embeddings.shape
    if x.shape[0] == 1 and size % _PARTS == 0:
        parts = ops.reshape(embeddings, (_PARTS, size // _PARTS, width))
        found = ops.matmul(parts, ops.broadcast_to(x[:, :, None], (_PARTS, width, 1)))
        return ops.reshape(found, (1, size))
    return ops.transpose(ops.matmul(embeddings, ops.transpose(x)))
