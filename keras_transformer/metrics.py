"""Metrics that count target tokens, for `compile(weighted_metrics=[...])`.

Keras averages `metrics=` over rows and never shows them the weights. These keep a sum and a count
of real target tokens (a label other than `ignore_class`, of weight above 0): the value over an
epoch is the exact mean over its tokens, whatever the batches' sizes and the weights' scale.
`ignore_class` and the labels' shapes are as in `kt.losses.SmoothedCrossentropy`.
"""

import keras
from keras import ops

from keras_transformer.losses import label_logits, token_nats
from keras_transformer.ops.labels import counts, integer_labels, label_weights


class TokenMean(keras.metrics.Metric):
    """Mean of a value per target token. Subclasses say which, in `values`."""

    def __init__(self, name, ignore_class=0, dtype=None):
        super().__init__(name=name, dtype=dtype or "float32")  # float16 cannot count to 100,000
        self.ignore_class = ignore_class
        self.total = self.add_variable((), initializer="zeros", name="total")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.convert_to_tensor(y_pred)
        labels = integer_labels(y_true, y_pred)
        real = counts(labels, y_pred, self.ignore_class)
        if sample_weight is not None:
            real = label_weights(labels, real, sample_weight) > 0
        labels = ops.where(real, labels, 0)  # -100 is no index of a logit
        values = ops.where(real, ops.cast(self.values(labels, y_pred), self.dtype), 0.0)
        self.total.assign_add(ops.sum(values))
        self.count.assign_add(ops.sum(ops.cast(real, self.dtype)))

    def result(self):
        return self.total / ops.maximum(self.count, 1.0)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype, "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="keras_transformer")
class NatsPerToken(TokenMean):
    """Cross-entropy in nats per target token, without label smoothing.

    Args:
        ignore_class: the label of padding; None where every label counts.

    Example:

    ```python
    model.compile(loss=..., weighted_metrics=[NatsPerToken(), TokenAccuracy()])
    ```
    """

    def __init__(self, name="nats_per_token", ignore_class=0, dtype=None):
        super().__init__(name, ignore_class, dtype)

    def values(self, y_true, y_pred):
        return token_nats(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_transformer")
class Perplexity(NatsPerToken):
    """exp(nats per target token), of the cross-entropy without label smoothing.

    Args:
        ignore_class: the label of padding; None where every label counts.

    Example:

    ```python
    model.compile(loss=..., weighted_metrics=[Perplexity()])
    ```
    """

    def __init__(self, name="perplexity", ignore_class=0, dtype=None):
        super().__init__(name, ignore_class, dtype)

    def result(self):
        return ops.exp(super().result())


@keras.saving.register_keras_serializable(package="keras_transformer")
class TokenAccuracy(TokenMean):
    """Share of target tokens whose label has the highest logit (one that ties for it counts).

    Args:
        ignore_class: the label of padding; None where every label counts.

    Example:

    ```python
    model.compile(loss=..., weighted_metrics=[TokenAccuracy()])
    ```
    """

    def __init__(self, name="token_accuracy", ignore_class=0, dtype=None):
        super().__init__(name, ignore_class, dtype)

    def values(self, y_true, y_pred):
        # The loss has the largest logit already; an argmax would be one more pass over them.
        y_pred = ops.cast(y_pred, "float32")
        return label_logits(y_true, y_pred) >= ops.max(y_pred, axis=-1)
