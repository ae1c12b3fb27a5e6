"""Positions for a sequence of vectors (paper, section 3.5)."""

import math

import keras
import numpy as np
from keras import ops

from keras_transformer.layers.dropout import Dropout


def sinusoids(length, d_model, index=0):
    """The paper's positional encoding (section 3.5), sines and cosines interleaved.

    ```
    PE(pos, 2i)     = sin(pos / 10000^(2i / d_model))
    PE(pos, 2i + 1) = cos(pos / 10000^(2i / d_model))
    ```

    Args:
        length: number of positions T.
        d_model: width D.
        index: the first position, an integer or an integer scalar.

    Returns:
        [T, D] in float32.

    Example:

    >>> sinusoids(2, 4)  # [[0, 1, 0, 1], [0.841, 0.540, 0.010, 1.000]]
    """
    positions = ops.cast(ops.arange(length, dtype="int32") + ops.cast(index, "int32"), "float32")
    columns = np.arange(d_model)
    frequencies = np.exp(-math.log(10_000.0) * (columns - columns % 2) / d_model)
    # cos(x) = sin(x + pi/2): one sine over an interleaved angle gives both.
    angles = positions[:, None] * ops.convert_to_tensor(frequencies.astype("float32"))
    even = ops.convert_to_tensor((columns % 2 == 0)[None, :])
    return ops.where(even, ops.sin(angles), ops.cos(angles))


class Positions(keras.layers.Layer):
    """What the layers share that give positions to vectors: of tokens, of patches, of the user's.

    Args:
        positions: `"sinusoidal"`, `"learned"` (row E of Table 3), or None for no positions.
        max_length: number of learned positions; sinusoids have no limit.
        dropout: share of the sum of vectors and positions that is dropped in training.
        d_model: width D of the vectors; a layer that takes it from its input sets it in `build`.
    """

    def __init__(self, positions, max_length, dropout, d_model=None, **kwargs):
        super().__init__(**kwargs)
        if positions not in ("sinusoidal", "learned", None):
            raise ValueError(f"positions is 'sinusoidal', 'learned' or None, got {positions!r}.")
        self.d_model = d_model
        self.positions = positions
        self.max_length = max_length
        self.dropout = dropout
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

    def _require_max_length(self):
        if self.positions == "learned" and not self.max_length:
            raise ValueError("Learned positions need max_length, the number of positions to learn.")

    def _build_positions(self):
        if self.positions == "learned":
            self.position_embeddings = self._embeddings(self.max_length, "position_embeddings")

    def _embeddings(self, count, name):
        # Standard deviation d_model^-0.5: after their scale tokens have unit variance, like the
        # sinusoids, and the tied logits start at unit variance too.
        initializer = keras.initializers.RandomNormal(stddev=self.d_model**-0.5)
        return self.add_weight((count, self.d_model), initializer=initializer, name=name)

    def _with_positions(self, x, index, training):
        """Dropout(x + PE): [B, T, D] from position `index` on."""
        if self.positions is not None:
            x = x + ops.cast(self._positions(ops.shape(x)[1], index), x.dtype)
        return self._dropout(x, training=training)

    def _positions(self, length, index):
        if self.positions == "sinusoidal":
            return sinusoids(length, self.d_model, index)  # [T, D]
        self._check_length(length, index)
        return ops.take(self.position_embeddings, ops.arange(length) + index, axis=0)

    def _check_length(self, length, index):
        if self.positions != "learned" or not isinstance(length, int) or not isinstance(index, int):
            return
        if length + index > self.max_length:
            raise ValueError(
                f"A sequence of {length + index} tokens is longer than the max_length="
                f"{self.max_length} positions that were learned. Shorten it, or train with a "
                "larger max_length."
            )

    def get_config(self):
        return {**super().get_config(), "positions": self.positions, "dropout": self.dropout}


@keras.saving.register_keras_serializable(package="keras_transformer")
class PositionalEncoding(Positions):
    """Adds positions to vectors, then drops some of the sum (sections 3.5, 5.4).

    ```
    y_t = Dropout(x_t + PE(t))
    ```

    For sequences that are vectors already: time series, audio, embeddings of your own. For token
    ids, `PositionalEmbedding` does the same after it has looked up their vectors. Nothing is
    scaled: the factor sqrt(d_model) of section 3.4 belongs to the token embeddings.

    Args:
        positions: `"sinusoidal"`, or `"learned"` (row E of Table 3).
        max_length: number of learned positions; sinusoids have no limit.
        dropout: share of the sum that is dropped in training.

    Call arguments:
        inputs: floats [B, S, D]. Their implicit mask is handed on.
        index: position of the first of `inputs`, an integer or an integer scalar; for cached
            decoding.

    Returns:
        [B, S, D].

    Raises:
        ValueError: for unknown `positions`, learned ones without `max_length`, a sequence longer
            than `max_length`, or inputs that are not [B, S, D].

    Example:

    ```python
    readings = keras.random.normal((2, 7, 3))  # 3 sensors, 7 points in time
    x = keras.layers.Dense(256)(readings)
    x = PositionalEncoding()(x)  # [2, 7, 256]
    x = EncoderLayer(d_model=256, num_heads=4, d_ff=1024)(x)
    ```
    """

    def __init__(self, positions="sinusoidal", max_length=None, dropout=0.0, **kwargs):
        super().__init__(positions, max_length, dropout, **kwargs)
        self._require_max_length()
        self.supports_masking = True

    def build(self, inputs_shape):
        if len(inputs_shape) != 3 or inputs_shape[-1] is None:
            raise ValueError(
                "PositionalEncoding adds positions to vectors [B, S, D] with a known width D, got "
                f"shape {tuple(inputs_shape)}. Token ids [B, S] go into PositionalEmbedding."
            )
        self.d_model = inputs_shape[-1]
        self.input_spec = keras.layers.InputSpec(shape=(None, None, self.d_model))
        self._build_positions()
        self.built = True

    def call(self, inputs, index=0, training=None):
        return self._with_positions(ops.cast(inputs, self.compute_dtype), index, training)

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape)

    def compute_output_spec(self, inputs, index=0, training=None):
        # Spelled out, because on torch Keras infers the shape by calling `call` with a made-up
        # length that may exceed max_length.
        self._check_length(inputs.shape[1], index)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "max_length": self.max_length}
