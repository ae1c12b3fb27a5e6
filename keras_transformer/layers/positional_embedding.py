"""Token embeddings and positions (paper, sections 3.4 and 3.5)."""

import math

import keras
from keras import ops

from keras_transformer.layers import masks, products
from keras_transformer.layers.positional_encoding import Positions


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
        super().__init__(positions, max_length, dropout, d_model, **kwargs)
        self._require_max_length()
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
            "d_model": self.d_model,
            "max_length": self.max_length,
            "pad_id": self.pad_id,
            "mask_zero": self.mask_zero,
        }
