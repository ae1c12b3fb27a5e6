"""Layer normalisation (Ba et al., 2016; paper, section 3.1)."""

from typing import Any

import keras
from keras import ops

from keras_transformer.ops import Tensor
from keras_transformer.ops.normalize import normalize


@keras.saving.register_keras_serializable(package="keras_transformer")
class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization`, faster on the TensorFlow backend.

    ```
    y = (x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta      over the last axis
    ```

    Mean and variance are computed in float32 under every dtype policy.

    Args:
        epsilon: Added to the variance.

    Call arguments:
        inputs: [..., D].

    Example:

    ```python
    LayerNorm(epsilon=1e-6)(keras.random.normal((2, 7, 512)))
    ```
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        inputs = ops.cast(inputs, self.compute_dtype)  # integers too
        return normalize(inputs, self.gamma, self.beta, self.epsilon, training)
