"""The position-wise feed-forward network (paper, section 3.3)."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_transformer.layers.dropout import Dropout
from keras_transformer.ops import Tensor
from keras_transformer.ops.composite import Composite
from keras_transformer.ops.products import apply_dense


@keras.saving.register_keras_serializable(package="keras_transformer")
class FeedForward(Composite):
    """Two linear maps with a non-linearity between, the same at every position (section 3.3).

    ```
    FFN(x) = max(0, x W_1 + b_1) W_2 + b_2
    ```

    Args:
        d_model: Width D of the output. None is the width of the input.
        d_ff: Width F of the inner layer; 2,048 in the paper's base.
        activation: Name or function between the two maps; `"relu"` in the paper.
        dropout: Share of the inner layer that training drops; the paper drops none of it.

    Call arguments:
        inputs: [B, T, D].

    Returns:
        [B, T, D].

    Example:

    ```python
    y = FeedForward(512, 2048)(keras.random.normal((2, 7, 512)))  # [2, 7, 512]
    ```
    """

    def __init__(
        self,
        d_model: int | None,
        d_ff: int,
        activation: str | Callable = "relu",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.d_model = d_model
        self.d_ff = d_ff
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.supports_masking = True
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: tuple) -> None:
        d_model = self.d_model or input_shape[-1]
        self.inner = keras.layers.Dense(
            self.d_ff, activation=self.activation, dtype=self.dtype_policy, name="inner"
        )
        self.outer = keras.layers.Dense(d_model, dtype=self.dtype_policy, name="outer")
        self.inner.build((None, input_shape[-1]))
        self.outer.build((None, self.d_ff))
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = ops.reshape(inputs, (-1, inputs.shape[-1]))  # [B * T, D]
        x = apply_dense(self.inner, x)  # [B * T, F]
        x = self._dropout(x, training=training)
        x = apply_dense(self.outer, x)
        return ops.reshape(x, (-1, *ops.shape(inputs)[1:-1], x.shape[-1]))  # [B, T, D]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.d_model or input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }
