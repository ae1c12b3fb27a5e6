"""Dropout (paper, section 5.4)."""

import keras

from keras_transformer.ops import Tensor, random_bits


@keras.saving.register_keras_serializable(package="keras_transformer")
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout`, with cheaper random numbers on the TensorFlow backend.

    ```
    y = x * kept / (1 - rate)        kept is 0 with probability rate, else 1
    ```

    Args:
        rate: Share of the elements that training drops.
        seed: An integer; drawn from Keras' global seed unless given.

    Call arguments:
        inputs: Floats of any shape.
        training: Whether to drop.

    Example:

    ```python
    Dropout(0.1)(keras.ops.ones((2, 7, 512)), training=True)
    ```
    """

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0 or self.noise_shape is not None:
            return super().call(inputs, training=training)
        return random_bits.dropout(inputs, self.rate, self.seed_generator)
