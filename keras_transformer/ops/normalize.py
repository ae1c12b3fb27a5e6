"""Layer normalisation with its gradient written out (Ba et al., 2016)."""

import keras
from keras import ops

from keras_transformer.ops import Tensor
from keras_transformer.ops.compilation import compiled_by_xla
from keras_transformer.ops.gradients import with_gradient


def plain_normalize(inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    """`(x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta` over the last axis."""
    normalized = ops.layer_normalization(inputs, gamma, beta, axis=[-1], epsilon=epsilon)
    return ops.cast(normalized, inputs.dtype)


def normalize(
    inputs: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, training: bool = False
) -> Tensor:
    """Same as `plain_normalize`, with fewer passes over memory on TensorFlow.

    The backward pass uses the normalised x again. Automatic differentiation would compute it once
    more, in several steps: on one CPU core a training step of `tiny` took 5 % longer.

    Args:
        inputs: [..., D].
        gamma: [D].
        beta: [D].
        epsilon: Added to the variance.
        training: Whether gradients will be asked for.

    Returns:
        A tensor of the inputs' shape and dtype.
    """
    if keras.backend.backend() != "tensorflow" or (training and compiled_by_xla()):
        # XLA fuses plain sums well. It would recompute our matrix products at every use, across
        # layers.
        return plain_normalize(inputs, gamma, beta, epsilon)
    dtype = keras.backend.result_type(inputs.dtype, "float32")
    gamma, beta = ops.cast(gamma, dtype), ops.cast(beta, dtype)
    return _normalize(inputs, gamma, beta, epsilon, dtype)


def _normalize(inputs, gamma, beta, epsilon, dtype):
    """Normalises in `dtype`.

    ```
    h  = (x - mean(x)) / sqrt(variance(x) + epsilon)
    dx = (g - mean(g) - h * mean(g * h)) / sqrt(variance(x) + epsilon)         g = dy * gamma
    ```
    """
    width = inputs.shape[-1]

    def like_inputs(rows):
        return ops.cast(ops.reshape(rows, ops.shape(inputs)), inputs.dtype)

    @with_gradient
    def normalized(inputs, gamma, beta):
        x = ops.reshape(ops.cast(inputs, dtype), (-1, width))
        mean_of = ops.full((width, 1), 1 / width, dtype=dtype)
        x = x - ops.matmul(x, mean_of)
        inverse = ops.rsqrt(ops.matmul(ops.square(x), mean_of) + epsilon)
        x = x * inverse

        def gradient(upstream):
            upstream = ops.reshape(ops.cast(upstream, dtype), (-1, width))
            product = upstream * x
            of_mean = ops.matmul(upstream, gamma[:, None] / width)
            of_variance = ops.matmul(product, gamma[:, None] / width)
            slopes = (upstream * gamma - of_mean - x * of_variance) * inverse
            # A product with ones is quicker than a sum over rows.
            rows = ops.ones((1, ops.shape(x)[0]), dtype=dtype)
            by_gamma, by_beta = ops.matmul(rows, product)[0], ops.matmul(rows, upstream)[0]
            return like_inputs(slopes), by_gamma, by_beta

        return like_inputs(x * gamma + beta), gradient

    return normalized(inputs, gamma, beta)
