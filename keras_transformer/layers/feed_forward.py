"""The position-wise feed-forward network (paper, section 3.3)."""

import keras
from keras import ops

from keras_transformer.layers.dropout import Dropout
from keras_transformer.layers.quantization import quantized_dtype
from keras_transformer.ops.products import dense


@keras.saving.register_keras_serializable(package="keras_transformer")
class FeedForward(keras.layers.Layer):
    """Two linear maps with a non-linearity between, the same at every position (section 3.3).

    ```
    FFN(x) = max(0, x W_1 + b_1) W_2 + b_2
    ```

    Args:
        d_model: Width of the output. None is the width of the input.
        d_ff: Width of the inner layer (2,048 in the paper's base).
        activation: name or function between the two maps; `"relu"` in the paper.
        dropout: share of the inner layer dropped in training; the paper drops none of it.

    Call arguments:
        inputs: [B, T, D].

    Returns:
        [B, T, D].

    Example:

    ```python
    y = FeedForward(512, 2048)(keras.random.normal((2, 7, 512)))  # [2, 7, 512]
    ```
    """

    def __init__(self, d_model, d_ff, activation="relu", dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.d_model = d_model
        self.d_ff = d_ff
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.supports_masking = True
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape):
        d_model = self.d_model or input_shape[-1]
        self.inner = keras.layers.Dense(
            self.d_ff, activation=self.activation, dtype=self.dtype_policy, name="inner"
        )
        self.outer = keras.layers.Dense(d_model, dtype=self.dtype_policy, name="outer")
        self.inner.build((None, input_shape[-1]))
        self.outer.build((None, self.d_ff))
        self.built = True

    def call(self, inputs, training=None):
        x = ops.reshape(inputs, (-1, inputs.shape[-1]))  # [B * T, D]
        x = _apply(self.inner, x)  # [B * T, F]
        x = self._dropout(x, training=training)
        x = _apply(self.outer, x)
        return ops.reshape(x, (-1, *ops.shape(inputs)[1:-1], x.shape[-1]))  # [B, T, D]

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.d_model or input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            **quantized_dtype(self),
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }


def _apply(layer, x):
    """What a `Dense` layer makes of [R, I]: `activation(x W + b)`."""
    if layer.quantization_mode is not None:
        return layer(x)  # only the layer knows what its integers stand for
    return layer.activation(dense(x, layer.kernel, layer.bias))
