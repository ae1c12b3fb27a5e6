"""The residual connection and normalisation around every sub-layer (paper, sections 3.1, 5.4)."""

import keras

from keras_transformer.layers.dropout import Dropout
from keras_transformer.layers.normalization import LayerNorm


@keras.saving.register_keras_serializable(package="keras_transformer")
class Residual(keras.layers.Layer):
    """Joins a sub-layer's input and output.

    ```
    norm="post":  LayerNorm(x + Dropout(Sublayer(x)))     the paper
    norm="pre":   x + Dropout(Sublayer(LayerNorm(x)))     needs one more LayerNorm after the stack
    ```

    Used in two halves, with the sub-layer between them: `join(x, sublayer(join.prepare(x)))`.

    Args:
        norm: `"post"` or `"pre"`.
        dropout: share of the sub-layer's output dropped in training.
        epsilon: added to the variance by the normalisation.

    Call arguments:
        inputs: [B, T, D], the sub-layer's input before `prepare`.
        update: [B, T, D], the sub-layer's output.

    Returns:
        [B, T, D].

    Raises:
        ValueError: for another `norm`.

    Example:

    ```python
    join, x = Residual(dropout=0.1), keras.random.normal((2, 7, 512))
    y = join(x, keras.layers.Dense(512)(join.prepare(x)))  # [2, 7, 512]
    ```
    """

    def __init__(self, norm="post", dropout=0.0, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        if norm not in ("post", "pre"):
            raise ValueError(f"norm is 'post' (the paper) or 'pre', got {norm!r}.")
        self.norm = norm
        self.dropout = dropout
        self.epsilon = epsilon
        self.supports_masking = True
        self.layer_norm = LayerNorm(epsilon, dtype=self.dtype_policy, name="layer_norm")
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

    def build(self, inputs_shape, update_shape=None):
        self.layer_norm.build(inputs_shape)
        self.built = True

    def prepare(self, inputs):
        """What the sub-layer reads: the input, normalised first if `norm="pre"`."""
        return self.layer_norm(inputs) if self.norm == "pre" else inputs

    def call(self, inputs, update, training=None):
        x = inputs + self._dropout(update, training=training)
        return self.layer_norm(x) if self.norm == "post" else x

    def compute_output_shape(self, inputs_shape, update_shape=None):
        return tuple(inputs_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "norm": self.norm,
            "dropout": self.dropout,
            "epsilon": self.epsilon,
        }
