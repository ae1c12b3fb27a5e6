"""Token embeddings and positions (paper, sections 3.4 and 3.5)."""

import math
import warnings

import keras
from keras import ops

from keras_transformer.layers.positional_encoding import Positions
from keras_transformer.ops import masks, products


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
        inputs: ids [B, T]; with `reverse=True` the decoder's output [B, T, D]. Ids are integers of
            any kind, or floats that hold whole numbers, as for `keras.layers.Embedding`: Keras
            makes those where nobody says a dtype. Vectors get positions from `PositionalEncoding`.
        index: position of the first id, an integer or an integer scalar; for cached decoding.
        reverse: whether to map from [B, T, D] to logits [B, T, V].

    Returns:
        [B, T, D], or logits [B, T, V].

    Raises:
        ValueError: for unknown `positions`, learned ones without `max_length`, a sequence longer
            than `max_length`, or inputs that are not ids [B, T].

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
        # Keras would cast ids that are floats to the compute dtype: bfloat16 has no 257.
        self.autocast = False

    def build(self, input_shape):
        self.token_embeddings = self._embeddings(self.vocabulary_size, "token_embeddings")
        self._build_positions()
        self.built = True

    def call(self, inputs, index=0, reverse=False, training=None):
        self._check_rank(inputs, reverse)
        if reverse:
            return self._logits(ops.cast(inputs, self.compute_dtype))
        ids = self._ids(inputs)  # [B, T]
        x = ops.cast(ops.take(self.token_embeddings, ids, axis=0), self.compute_dtype)
        x = x * math.sqrt(self.d_model)  # [B, T, D]
        x = self._with_positions(x, index, training)
        if self.mask_zero:
            real = masks.padding_mask(ids, self.pad_id)
            x = x * ops.cast(real, x.dtype)[:, :, None]
        return x

    def _check_rank(self, inputs, reverse):
        rank, shape = len(inputs.shape), tuple(inputs.shape)
        if rank != 2 and not reverse:
            raise ValueError(
                f"PositionalEmbedding takes token ids [B, T], got shape {shape}. Vectors [B, T, D] "
                "get their positions from PositionalEncoding; reverse=True makes logits of them."
            )
        if rank != 3 and reverse:
            raise ValueError(f"reverse=True takes vectors [B, T, D], got shape {shape}.")

    def _ids(self, inputs):
        """The ids as int32 or int64, which every backend can look up."""
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if dtype in ("int32", "int64"):
            return inputs
        exact = {"float16": 2**11, "bfloat16": 2**8}.get(dtype, self.vocabulary_size)
        if exact < self.vocabulary_size - 1:
            # No error: Keras calls a nested model with such symbols to build what it loads.
            warnings.warn(
                f"The ids are {dtype}, which rounds whole numbers above {exact}, but "
                f"vocabulary_size={self.vocabulary_size}. Give the ids as integers: begin the "
                'model with keras.Input((None,), dtype="int32").',
                stacklevel=2,
            )
        return ops.cast(inputs, "int32")

    def _logits(self, x):
        rows = ops.reshape(x, (-1, self.d_model))
        if x.shape[1] == 1:
            logits = products.logits(rows, self.token_embeddings)
        else:
            embeddings = ops.cast(self.token_embeddings, x.dtype)
            logits = ops.matmul(rows, ops.transpose(embeddings))  # [B * T, V]
        return ops.reshape(logits, (-1, ops.shape(x)[1], self.vocabulary_size))

    def compute_output_shape(self, inputs_shape):
        width = self.d_model if len(inputs_shape) == 2 else self.vocabulary_size
        return (*inputs_shape[:2], width)

    def compute_output_spec(self, inputs, index=0, reverse=False, training=None):
        # Spelled out, because on torch Keras infers the shape by calling `call` with a made-up
        # length that may exceed max_length.
        self._check_rank(inputs, reverse)
        if not reverse:
            self._check_length(inputs.shape[1], index)
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        # Vectors on their way to logits keep the mask that they carry.
        if not self.mask_zero or len(inputs.shape) != 2:
            return mask
        return masks.padding_mask(self._ids(inputs), self.pad_id)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "d_model": self.d_model,
            "max_length": self.max_length,
            "pad_id": self.pad_id,
            "mask_zero": self.mask_zero,
        }
