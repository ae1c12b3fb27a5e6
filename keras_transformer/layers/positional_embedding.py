"""Token embeddings and positions (paper, sections 3.4 and 3.5)."""

import math

import keras
import numpy as np
from keras import ops

from keras_transformer.layers import masks, products
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
    """What layers share that give positions to the vectors they make: of tokens, of patches.

    Args:
        d_model: width D.
        positions: `"sinusoidal"`, `"learned"` (row E of Table 3), or None for no positions.
        max_length: number of learned positions; sinusoids have no limit.
        dropout: share of the sum of vectors and positions that is dropped in training.
    """

    def __init__(self, d_model, positions, max_length, dropout, **kwargs):
        super().__init__(**kwargs)
        if positions not in ("sinusoidal", "learned", None):
            raise ValueError(f"positions is 'sinusoidal', 'learned' or None, got {positions!r}.")
        self.d_model = d_model
        self.positions = positions
        self.max_length = max_length
        self.dropout = dropout
        self._dropout = Dropout(dropout, dtype=self.dtype_policy)

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
        return {
            **super().get_config(),
            "d_model": self.d_model,
            "positions": self.positions,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="keras_transformer")
class PositionalEmbedding(Positions):
    """Token embedding times sqrt(d_model), plus positions, then dropout (sections 3.4, 3.5, 5.4).

    ```
    x_t = Dropout(E[id_t] * sqrt(d_model) + PE(t))        0 where id_t is the pad id
    logits = x E^T                                        with reverse=True
    ```

    Called with `reverse=True` it turns the decoder's output into logits with the same matrix E: the
    tied weights of section 3.4.

    Args:
        vocabulary_size: number of tokens V.
        d_model: width D.
        positions: `"sinusoidal"`, `"learned"` (row E of Table 3), or None for no positions.
        max_length: number of learned positions; sinusoids have no limit.
        dropout: share of the sum that is dropped in training.
        pad_id: the id of padding.
        mask_zero: whether padding is masked: the output there is 0 and layers that follow get the
            implicit mask `ids != pad_id`.

    Call arguments:
        inputs: integer ids [B, T]; with `reverse=True` the decoder's output [B, T, D].
        index: position of the first id, an integer or an integer scalar; for cached decoding.
        reverse: whether to map from [B, T, D] to logits [B, T, V].

    Returns:
        [B, T, D], or logits [B, T, V].

    Raises:
        ValueError: for unknown `positions`, learned ones without `max_length`, or a sequence longer
            than `max_length`.

    Example:

    ```python
    embedding = PositionalEmbedding(vocabulary_size=8_000, d_model=256)
    x = embedding(np.array([[7, 4, 0]]))  # [1, 3, 256], zeros at the last position
    logits = embedding(x, reverse=True)  # [1, 3, 8000]
    ```
    """

    def __init__(
        self,
        vocabulary_size,
        d_model,
        positions="sinusoidal",
        max_length=None,
        dropout=0.0,
        pad_id=0,
        mask_zero=True,
        **kwargs,
    ):
        super().__init__(d_model, positions, max_length, dropout, **kwargs)
        if positions == "learned" and not max_length:
            raise ValueError("Learned positions need max_length, the number of positions to learn.")
        self.vocabulary_size = vocabulary_size
        self.pad_id = pad_id
        self.mask_zero = mask_zero
        self.supports_masking = True

    def build(self, input_shape):
        self.token_embeddings = self._embeddings(self.vocabulary_size, "token_embeddings")
        self._build_positions()
        self.built = True

    def call(self, inputs, index=0, reverse=False, training=None):
        if reverse:
            rows = ops.reshape(inputs, (-1, self.d_model))
            if inputs.shape[1] == 1:
                logits = products.logits(rows, self.token_embeddings)
            else:
                logits = ops.matmul(rows, ops.transpose(self.token_embeddings))  # [B * T, V]
            return ops.reshape(logits, (-1, *ops.shape(inputs)[1:-1], self.vocabulary_size))
        x = ops.take(self.token_embeddings, inputs, axis=0) * math.sqrt(self.d_model)  # [B, T, D]
        x = self._with_positions(x, index, training)
        if self.mask_zero:
            real = masks.padding_mask(inputs, self.pad_id)
            x = x * ops.cast(real, x.dtype)[:, :, None]
        return x

    def compute_output_spec(self, inputs, index=0, reverse=False, training=None):
        # Given, since on torch Keras would try `call` with a length of its own, beyond max_length.
        if not reverse:
            self._check_length(inputs.shape[1], index)
        last = (self.vocabulary_size,) if reverse else (inputs.shape[1], self.d_model)
        shape = (*inputs.shape[: -1 if reverse else 1], *last)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        # The decoder's output, on its way to logits, keeps the mask that it carries.
        ids = "int" in keras.backend.standardize_dtype(inputs.dtype)
        return masks.padding_mask(inputs, self.pad_id) if ids and self.mask_zero else mask

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "max_length": self.max_length,
            "pad_id": self.pad_id,
            "mask_zero": self.mask_zero,
        }
