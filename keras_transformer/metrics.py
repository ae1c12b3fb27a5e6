"""Metrics per target token, for `compile(weighted_metrics=[...])`.

Keras averages `metrics=` over rows and never shows them the weights. These metrics keep a sum and a
count over real target tokens: labels other than `ignore_class` with a weight above 0. So their
value over an epoch is the exact mean over its tokens, for any sizes of batches and any scale of
weights. `ignore_class` and the labels' shapes are those of `kt.losses.SmoothedCrossentropy`.
"""

from typing import Any

import keras
from keras import ops

from keras_transformer.ops import Tensor
from keras_transformer.ops.crossentropy import label_logits, token_nats
from keras_transformer.ops.labels import counts, integer_labels, label_weights


class TokenMean(keras.metrics.Metric):
    """The mean of a value per target token; subclasses compute it in `values`.

    Args:
        name: The metric's name.
        ignore_class: The label of padding. With None every label counts.
    """

    def __init__(self, name: str, ignore_class: int | None = 0, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype or "float32")  # float16 cannot count to 100,000
        self.ignore_class = ignore_class
        self.total = self.add_variable((), initializer="zeros", name="total")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The value of each label: [B, T] integers and logits [B, T, V] -> [B, T]."""
        raise NotImplementedError(f"{type(self).__name__} has no method values.")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> None:
        y_pred = ops.convert_to_tensor(y_pred)
        labels = integer_labels(y_true, y_pred)
        real = counts(labels, y_pred, self.ignore_class)
        if sample_weight is not None:
            real = label_weights(labels, real, sample_weight) > 0
        labels = ops.where(real, labels, 0)  # -100 is no index of a logit
        values = ops.where(real, ops.cast(self.values(labels, y_pred), self.dtype), 0.0)
        self.total.assign_add(ops.sum(values))
        self.count.assign_add(ops.sum(ops.cast(real, self.dtype)))

    def result(self) -> Tensor:
        return self.total / ops.maximum(self.count, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="keras_transformer")
class NatsPerToken(TokenMean):
    """Cross-entropy in nats per target token, without label smoothing.

    Args:
        ignore_class: The label of padding. With None every label counts.

    Example:

    ```python
    loss, metrics = SmoothedCrossentropy(), [NatsPerToken(), TokenAccuracy()]
    model.compile(loss=loss, weighted_metrics=metrics)
    ```
    """

    def __init__(
        self, name: str = "nats_per_token", ignore_class: int | None = 0, dtype: Any = None
    ) -> None:
        super().__init__(name, ignore_class, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return token_nats(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_transformer")
class Perplexity(NatsPerToken):
    """exp(nats per target token), without label smoothing; arguments as in `NatsPerToken`.

    Example:

    ```python
    model.compile(loss=SmoothedCrossentropy(), weighted_metrics=[Perplexity()])
    ```
    """

    def __init__(
        self, name: str = "perplexity", ignore_class: int | None = 0, dtype: Any = None
    ) -> None:
        super().__init__(name, ignore_class, dtype)

    def result(self) -> Tensor:
        return ops.exp(super().result())


@keras.saving.register_keras_serializable(package="keras_transformer")
class TokenAccuracy(TokenMean):
    """Share of target tokens whose label has the highest logit; a label that ties for it counts.

    Its arguments are those of `NatsPerToken`.

    Example:

    ```python
    model.compile(loss=SmoothedCrossentropy(), weighted_metrics=[TokenAccuracy()])
    ```
    """

    def __init__(
        self, name: str = "token_accuracy", ignore_class: int | None = 0, dtype: Any = None
    ) -> None:
        super().__init__(name, ignore_class, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        # The loss computes the highest logit too; an argmax would be one more pass over the logits.
        y_pred = ops.cast(y_pred, "float32")
        return label_logits(y_true, y_pred) >= ops.max(y_pred, axis=-1)
