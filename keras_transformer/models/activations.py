"""Activations of pre-trained models that Keras has no name for."""

import keras

from keras_transformer.ops import Tensor


@keras.saving.register_keras_serializable(package="keras_transformer")
def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the formula with tanh, as GPT-2 and BERT were trained (Hendrycks and Gimpel, 2016).

    ```
    y = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
    ```

    It differs from `"gelu"`, the exact formula with erf, by less than 0.001.

    Example:

    ```python
    layer = keras.layers.Dense(512, activation=kt.models.gelu_tanh)
    ```
    """
    return keras.activations.gelu(x, approximate=True)
