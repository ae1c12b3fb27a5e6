"""The training objective: label-smoothed cross-entropy in nats per target token (section 5.4)."""

from typing import Any

import keras
from keras import ops

from keras_transformer.ops import Tensor
from keras_transformer.ops.crossentropy import smoothed_token_nats
from keras_transformer.ops.labels import counts, integer_labels, label_weights


@keras.saving.register_keras_serializable(package="keras_transformer")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy with label smoothing on integer labels (section 5.4), in nats.

    ```
    loss_t = -(1 - eps) log p(label_t) - eps / V * sum_v log p(v)
    ```

    The smoothing mass is spread over the whole vocabulary (Szegedy et al., 2016), without making
    targets [B, T, V]. The result is the sum of `loss_t * weight_t`. `kt.data` gives the weights
    1 / (target tokens of the update): then the sum is the mean over real target tokens, and
    micro-batches and replicas add up exactly. Without weights the result is the mean over the
    labels that are not `ignore_class`, over all replicas: padding counts nowhere.

    Args:
        label_smoothing: eps, below 1. The paper has 0.1.
        ignore_class: The label of padding; any integer, for example 0, 255 or -100. With None every
            label counts, unless Keras' implicit mask of the logits excludes its position.

    Call arguments:
        y_true: Integer labels [B, T] or [B, T, 1].
        y_pred: Logits [B, T, V].
        sample_weight: [B, T], [B] with one weight per row, or None.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If eps is not in 0 <= eps < 1, or the labels are one-hot.

    Example:

    ```python
    loss = SmoothedCrossentropy(label_smoothing=0.1)
    loss(np.array([[3, 1, 0]]), np.zeros((1, 3, 5)))  # log 5 = 1.609
    ```
    """

    def __init__(
        self,
        label_smoothing: float = 0.1,
        ignore_class: int | None = 0,
        name: str = "smoothed_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction="sum", dtype=dtype)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"label_smoothing is at least 0 and below 1, got {label_smoothing}. Pass 0.1, as "
                "in the paper."
            )
        self.label_smoothing = label_smoothing
        self.ignore_class = ignore_class

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        # Keras would first turn the labels into floats, and multiply by the mask of the logits.
        y_pred = ops.convert_to_tensor(y_pred)
        labels = integer_labels(y_true, y_pred)
        real = counts(labels, y_pred, self.ignore_class)
        weights = label_weights(labels, real, sample_weight)
        labels = ops.where(weights != 0, labels, 0)  # a label of weight 0 may be any number
        return ops.cast(ops.sum(self.call(labels, y_pred) * weights), self.dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        real = counts(y_true, y_pred, self.ignore_class)
        labels = ops.where(real, y_true, 0)  # -100 is no index of a logit
        nats = smoothed_token_nats(labels, y_pred, self.label_smoothing)  # [B, T]
        return nats * ops.cast(real, nats.dtype)

    def get_config(self) -> dict[str, Any]:
        names = "name", "dtype", "label_smoothing", "ignore_class"
        return {name: getattr(self, name) for name in names}
