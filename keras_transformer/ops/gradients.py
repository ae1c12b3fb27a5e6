"""Gradients, written once for all backends."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_transformer.ops import Tensor


def with_gradient(function: Callable[..., tuple[Tensor, Callable]]) -> Callable[..., Tensor]:
    """Decorates a function whose gradient is written out, instead of derived automatically.

    Keras calls the gradient in another way on PyTorch, and with more arguments on some backends.

    Args:
        function: Maps tensors to `(value, gradient)`. `gradient(upstream)` maps the gradient of the
            value to the gradient of the tensor, or to a tuple with one gradient per tensor.

    Example:

    ```python
    @with_gradient
    def square(x):
        return x * x, lambda upstream: 2 * x * upstream
    ```
    """

    @ops.custom_gradient
    def for_keras(*tensors: Tensor) -> Any:
        value, gradient = function(*tensors)

        def of_upstream(*args: Tensor, upstream: Tensor = None) -> Any:
            return gradient(args[0] if upstream is None else upstream)

        return value, of_upstream

    return for_keras


def gradients(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Returns the gradients of a scalar by each of the tensors that it is a function of.

    Args:
        function: Maps the tensors to a scalar.
        tensors: Its arguments.

    Returns:
        A gradient per tensor. It is None, on JAX 0, if the function does not use the tensor.

    Example:

    >>> [by_x] = gradients(lambda x: ops.sum(x * x), [np.array([1.0, 3.0])])
    >>> by_x  # [2.0, 6.0]
    """
    tensors = [ops.convert_to_tensor(each) for each in tensors]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        found = tape.gradient(value, tensors)
        # The gradient of an embedding comes as `tf.IndexedSlices`.
        return [None if each is None else tf.convert_to_tensor(each) for each in found]
    if backend == "jax":
        import jax

        return list(jax.grad(function, argnums=tuple(range(len(tensors))))(*tensors))
    import torch

    tensors = [each.detach().requires_grad_() for each in tensors]
    return list(torch.autograd.grad(function(*tensors), tensors, allow_unused=True))


def gradients_by_weights(
    function: Callable[[], Tensor], variables: Sequence[keras.Variable]
) -> list[Tensor | None]:
    """Returns the gradients of a scalar `function()` by the Keras variables that it reads."""

    def of_values(*values: Tensor) -> Tensor:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function()

    return gradients(of_values, [variable.value for variable in variables])
