"""A function with its own gradient, written once for all backends."""

from collections.abc import Callable
from typing import Any

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
