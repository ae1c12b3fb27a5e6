"""Positions for a sequence of vectors (paper, section 3.5)."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transformer.layers.dropout import Dropout
from keras_transformer.ops import Tensor
from keras_transformer.ops.composite import Composite
from keras_transformer.ops.products import look_up
from keras_transformer.ops.quantization import build_embedding


def sinusoids(length: int, d_model: int, index: Tensor = 0) -> Tensor:
    """The paper's positional encoding (section 3.5), interleaved: [T, D] in float32.

    ```
    PE(pos, 2i)     = sin(pos / 10000^(2i / d_model))
    PE(pos, 2i + 1) = cos(pos / 10000^(2i / d_model))
    ```

    Args:
        length: Number of positions T.
        d_model: Width D.
        index: The first position, an integer or an integer scalar.

    Example:

    >>> sinusoids(2, 4)  # [[0, 1, 0, 1], [0.841, 0.540, 0.010, 1.000]]
    """
    positions = ops.cast(ops.arange(length, dtype="int32") + ops.cast(index, "int32"), "float32")
    columns = np.arange(d_model)
    frequencies = np.exp(-math.log(10_000.0) * (columns - columns % 2) / d_model)
    angles = ops.expand_dims(positions, 1) * ops.convert_to_tensor(frequencies.astype("float32"))
    even = ops.convert_to_tensor((columns % 2 == 0)[None, :])
    return ops.where(even, ops.sin(angles), ops.cos(angles))


class Positions(Composite):
    """The base of the layers that add positions to vectors: of tokens, of patches, of the user's.

    Args:
        positions: `"sinusoidal"`, `"learned"` (row E of Table 3), or None for no positions.
        max_length: Number of learned positions; sinusoids have no limit.
        dropout: Share of the sum of vectors and positions that training drops.
        d_model: Width D of the vectors; a layer that takes it from its input sets it in `build`.
    """

    def __init__(
        self,
        positions: str | None,
        max_length: int | None,
        dropout: float,
        d_model: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if positions not in ("sinusoidal", "learned", None):
            raise ValueError(f"positions is 'sinusoidal', 'learned' or None, got {positions!r}.")
        self.d_model: Any = d_model
        self.positions = positions
        self.max_length: Any = max_length
        self.dropout = dropout
        self.layer_norm: Any = None  # see `PositionalEmbedding`
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

    def _require_max_length(self):
        if self.positions == "learned" and not self.max_length:
            raise ValueError("Learned positions need max_length, the number of positions to learn.")

    def _build_positions(self):
        if self.positions == "learned":
            self.position = self._embedding(self.max_length, "position")

    def _embedding(self, count, name, kind=keras.layers.Embedding):
        # Standard deviation d_model^-0.5: after their scale tokens have unit variance, like the
        # sinusoids, and the tied logits start at unit variance too.
        start = keras.initializers.RandomNormal(stddev=self.d_model**-0.5)
        options = {"embeddings_initializer": start, "dtype": self.dtype_policy, "name": name}
        return build_embedding(kind(count, self.d_model, **options))

    def _with_positions(self, x, index, training):
        """Dropout(Norm(x + PE)): [B, T, D] from position `index` on."""
        length = ops.shape(x)[1]
        if self.positions == "sinusoidal":
            x = x + ops.cast(sinusoids(length, self.d_model, index), x.dtype)
        elif self.positions == "learned":
            self._check_length(length, index)
            x = x + look_up(self.position, ops.arange(length) + ops.cast(index, "int32"))
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return self._dropout(x, training=training)

    def _check_length(self, length, index):
        if self.positions != "learned" or not isinstance(length, int) or not isinstance(index, int):
            return
        if length + index > self.max_length:
            raise ValueError(
                f"A sequence of {length + index} tokens is longer than the max_length="
                f"{self.max_length} positions that were learned. Shorten it, or train with a "
                "larger max_length."
            )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "positions": self.positions, "dropout": self.dropout}


@keras.saving.register_keras_serializable(package="keras_transformer")
class PositionalEncoding(Positions):
    """Adds positions to vectors, then drops some of the sum (sections 3.5, 5.4).

    ```
    y_t = Dropout(x_t + PE(t))
    ```

    It is for sequences that are vectors already: time series, audio, embeddings of your own. Token
    ids go into `PositionalEmbedding`, which looks up their vectors first and multiplies them by
    sqrt(d_model) (section 3.4). Here nothing is multiplied.

    Args:
        positions: `"sinusoidal"`, or `"learned"` (row E of Table 3).
        max_length: Number of learned positions; sinusoids have no limit.
        dropout: Share of the sum that training drops.

    Call arguments:
        inputs: Floats [B, S, D]. The output keeps their implicit mask.
        index: Position of the first of `inputs`, an integer or an integer scalar; for cached
            decoding.

    Returns:
        [B, S, D].

    Raises:
        ValueError: For unknown `positions`, learned ones without `max_length`, a sequence longer
            than `max_length`, or inputs that are not [B, S, D].

    Example:

    ```python
    readings = keras.random.normal((2, 7, 3))  # 3 sensors, 7 points in time
    x = keras.layers.Dense(256)(readings)
    x = PositionalEncoding()(x)  # [2, 7, 256]
    x = EncoderLayer(d_model=256, num_heads=4, d_ff=1024)(x)
    ```
    """

    def __init__(
        self,
        positions: str = "sinusoidal",
        max_length: int | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(positions, max_length, dropout, **kwargs)
        self._require_max_length()
        self.supports_masking = True

    def build(self, inputs_shape: tuple) -> None:
        if len(inputs_shape) != 3 or inputs_shape[-1] is None:
            raise ValueError(
                "PositionalEncoding adds positions to vectors [B, S, D] with a known width D, got "
                f"shape {tuple(inputs_shape)}. Token ids [B, S] go into PositionalEmbedding."
            )
        self.d_model = inputs_shape[-1]
        self.input_spec = keras.layers.InputSpec(shape=(None, None, self.d_model))
        self._build_positions()
        self.built = True

    def call(self, inputs: Tensor, index: Tensor = 0, training: bool | None = None) -> Tensor:
        return self._with_positions(ops.cast(inputs, self.compute_dtype), index, training)

    def compute_output_shape(self, inputs_shape: tuple) -> tuple:
        return tuple(inputs_shape)

    def compute_output_spec(
        self, inputs: Any, index: Tensor = 0, training: bool | None = None
    ) -> keras.KerasTensor:
        # Spelled out, because on torch Keras infers the shape by calling `call` with a made-up
        # length that may exceed max_length.
        self._check_length(inputs.shape[1], index)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_length": self.max_length}
