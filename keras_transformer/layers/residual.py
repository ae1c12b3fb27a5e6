"""The residual connection and normalisation around every sub-layer (paper, sections 3.1, 5.4)."""

from typing import Any

import keras

from keras_transformer.layers.dropout import Dropout
from keras_transformer.layers.normalization import LayerNorm
from keras_transformer.ops import Tensor
from keras_transformer.ops.composite import Composite


@keras.saving.register_keras_serializable(package="keras_transformer")
class Residual(Composite):
    """Joins a sub-layer's input and output.

    ```
    norm="post":  LayerNorm(x + Dropout(Sublayer(x)))     the paper
    norm="pre":   x + Dropout(Sublayer(LayerNorm(x)))     needs one more LayerNorm after the stack
    ```

    It is used in two halves, with the sub-layer between them: `join(x, sublayer(join.prepare(x)))`.

    Args:
        norm: `"post"` or `"pre"`.
        dropout: Share of the sub-layer's output that training drops.
        epsilon: Added to the variance by the normalisation.

    Call arguments:
        inputs: [B, T, D], the sub-layer's input before `prepare`.
        update: [B, T, D], the sub-layer's output.

    Returns:
        [B, T, D].

    Raises:
        ValueError: For another `norm`.

    Example:

    ```python
    join, x = Residual(dropout=0.1), keras.random.normal((2, 7, 512))
    y = join(x, keras.layers.Dense(512)(join.prepare(x)))  # [2, 7, 512]
    ```
    """

    def __init__(
        self, norm: str = "post", dropout: float = 0.0, epsilon: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if norm not in ("post", "pre"):
            raise ValueError(f"norm is 'post' (the paper) or 'pre', got {norm!r}.")
        self.norm = norm
        self.dropout = dropout
        self.epsilon = epsilon
        self.supports_masking = True
        self.layer_norm = LayerNorm(epsilon, dtype=self.dtype_policy, name="layer_norm")
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

    def build(self, inputs_shape: tuple, update_shape: tuple | None = None) -> None:
        self.layer_norm.build(inputs_shape)
        self.built = True

    def prepare(self, inputs: Tensor) -> Tensor:
        """What the sub-layer reads: the input, normalised first if `norm="pre"`."""
        return self.layer_norm(inputs) if self.norm == "pre" else inputs

    def call(self, inputs: Tensor, update: Tensor, training: bool | None = None) -> Tensor:
        x = keras.ops.add(inputs, self._dropout(update, training=training))  # of integers too
        return self.layer_norm(x) if self.norm == "post" else x

    def compute_output_shape(self, inputs_shape: tuple, update_shape: tuple | None = None) -> tuple:
        return tuple(inputs_shape)

    def get_config(self) -> dict[str, Any]:
        names = "norm", "dropout", "epsilon"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
