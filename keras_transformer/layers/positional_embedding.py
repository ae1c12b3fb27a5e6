"""Token embeddings and positions (paper, sections 3.4 and 3.5)."""

import math
from typing import Any

import keras
from keras import ops

from keras_transformer.layers.normalization import LayerNorm
from keras_transformer.layers.positional_encoding import Positions
from keras_transformer.ops import Tensor, masks, products


@keras.saving.register_keras_serializable(package="keras_transformer")
class PositionalEmbedding(Positions):
    """Token embedding times sqrt(d_model), plus positions, then dropout (sections 3.4, 3.5, 5.4).

    ```
    x_t = Dropout(E[id_t] * sqrt(d_model) + PE(t))        0 where id_t is the pad id
    logits = x E^T (+ b)                                  with reverse=True
    ```

    With `reverse=True` it turns the decoder's output into logits by the same matrix E: the tied
    weights of section 3.4.

    Args:
        vocabulary_size: Number of tokens V.
        d_model: Width D.
        positions: `"sinusoidal"`, `"learned"` (row E of Table 3), or None for no positions.
        max_length: Number of learned positions; sinusoids have no limit.
        dropout: Share of the sum that training drops.
        pad_id: The id of padding.
        mask_zero: Whether padding is masked: the output there is 0, and the layers that follow get
            the implicit mask `ids != pad_id`.
        logits_bias: Whether the logits have a bias [V], which the paper has not.
        embedding_norm: Whether a LayerNorm with this `epsilon` precedes the dropout, as in BERT.

    Call arguments:
        inputs: Ids [B, T]; with `reverse=True` the decoder's output [B, T, D]. Ids are integers, or
            floats that hold whole numbers, as for `keras.layers.Embedding`: an input without a
            dtype is float.
        index: Position of the first id, an integer or an integer scalar; for cached decoding.
        reverse: Whether to map from [B, T, D] to logits [B, T, V].

    Returns:
        [B, T, D], or logits [B, T, V].

    Raises:
        ValueError: For unknown `positions`, learned ones without `max_length`, a sequence longer
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
        vocabulary_size: int,
        d_model: int,
        positions: str | None = "sinusoidal",
        max_length: int | None = None,
        dropout: float = 0.0,
        pad_id: int = 0,
        mask_zero: bool = True,
        logits_bias: bool = False,
        embedding_norm: bool = False,
        epsilon: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(positions, max_length, dropout, d_model, **kwargs)
        self._require_max_length()
        self.vocabulary_size = vocabulary_size
        self.pad_id = pad_id
        self.mask_zero = mask_zero
        self.logits_bias = logits_bias
        self.embedding_norm = embedding_norm
        self.epsilon = epsilon
        if embedding_norm:
            self.layer_norm = LayerNorm(epsilon, dtype=self.dtype_policy, name="layer_norm")
        self.supports_masking = True
        # Keras would cast ids that are floats to the compute dtype: bfloat16 has no 257.
        self.autocast = False

    def build(self, input_shape: tuple) -> None:
        kind = keras.layers.ReversibleEmbedding
        self.token = self._embedding(self.vocabulary_size, "token", kind)
        self._build_positions()
        if self.embedding_norm:
            self.layer_norm.build((None, None, self.d_model))
        self.bias = None
        if self.logits_bias:
            self.bias = self.add_weight((self.vocabulary_size,), initializer="zeros", name="bias")
        self.built = True

    def call(
        self,
        inputs: Tensor,
        index: Tensor = 0,
        reverse: bool = False,
        training: bool | None = None,
    ) -> Tensor:
        self._check_rank(inputs, reverse)
        if reverse:
            x = ops.cast(inputs, self.compute_dtype)
            logits = products.apply_reversed(self.token, x)
            return logits if self.bias is None else logits + ops.cast(self.bias, logits.dtype)
        ids = products.whole_ids(inputs, self.vocabulary_size)  # [B, T]
        x = products.look_up(self.token, ids) * math.sqrt(self.d_model)  # [B, T, D]
        x = self._with_positions(x, index, training)
        if self.mask_zero:
            real = masks.padding_mask(ids, self.pad_id)
            x = x * ops.expand_dims(ops.cast(real, x.dtype), -1)
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

    def compute_output_shape(self, inputs_shape: tuple) -> tuple:
        width = self.d_model if len(inputs_shape) == 2 else self.vocabulary_size
        return (*inputs_shape[:2], width)

    def compute_output_spec(
        self, inputs: Any, index: Tensor = 0, reverse: bool = False, training: bool | None = None
    ) -> keras.KerasTensor:
        # Spelled out, as in `PositionalEncoding`.
        self._check_rank(inputs, reverse)
        if not reverse:
            self._check_length(inputs.shape[1], index)
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def compute_mask(self, inputs: Tensor, mask: Tensor = None) -> Tensor:
        # Vectors on their way to logits keep the mask that they carry.
        if not self.mask_zero or len(inputs.shape) != 2:
            return mask
        return masks.padding_mask(products.whole_ids(inputs, self.vocabulary_size), self.pad_id)

    def get_config(self) -> dict[str, Any]:
        names = ["vocabulary_size", "d_model", "max_length", "pad_id", "mask_zero", "logits_bias"]
        names += ["embedding_norm", "epsilon"]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
