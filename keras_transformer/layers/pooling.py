"""One vector for a text, from the vectors of its tokens."""

from typing import Any

import keras
from keras import ops

from keras_transformer.ops import Tensor, masks


@keras.saving.register_keras_serializable(package="keras_transformer")
class MeanPooling(keras.layers.Layer):
    """The mean over the real positions: padding counts nowhere.

    ```
    y = sum_t mask_t x_t / max(1, sum_t mask_t)
    ```

    Unlike `keras.layers.GlobalAveragePooling1D`, it gives 0 instead of NaN for a row that is all
    padding, and adds in float32 where the inputs are half precision.

    Call arguments:
        inputs: [B, S, D].
        mask: Booleans [B, S], True = real token; the implicit mask of `inputs` unless given.

    Returns:
        [B, D].

    Example:

    ```python
    x = PositionalEmbedding(vocabulary_size=8_000, d_model=256)(np.array([[7, 4, 0]]))
    y = MeanPooling()(x)  # [1, 256], the mean of two
    ```
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Tensor, mask: Tensor = None) -> Tensor:
        x = ops.cast(inputs, keras.backend.result_type(self.compute_dtype, "float32"))  # or float64
        if mask is None:
            return ops.cast(ops.mean(x, axis=1), self.compute_dtype)
        real = masks.checked_key_mask(mask, *inputs.shape[:2])
        real = ops.expand_dims(ops.cast(real, x.dtype), -1)  # [B, S, 1]
        mean = ops.sum(x * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0)
        return ops.cast(mean, self.compute_dtype)

    def compute_mask(self, inputs: Tensor, mask: Tensor = None) -> None:
        return None  # there is one vector per row, and nothing to mask

    def compute_output_shape(self, inputs_shape: tuple) -> tuple:
        return (inputs_shape[0], inputs_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # without it Keras refuses a DTypePolicy
