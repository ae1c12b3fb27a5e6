"""`loss` and `val_loss` of `fit` and `evaluate` as means over labels."""

from typing import Any

import keras
from keras import ops

from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.ops.keras_hooks import check_calls, guarded, no_longer
from keras_transformer.ops.labels import (
    counts,
    integer_labels,
    label_weights,
    replicas,
    sum_over_replicas,
)


@guarded(keras.Model)
class LossPerLabel:
    """Mixin for a Keras model: `loss` and `val_loss` are means over labels.

    Keras displays the mean over batches, weighted by their rows. If batches are cut by tokens, this
    is no mean over tokens, because long sentences make few rows. With this mixin a loss that sums
    is divided by the weights of its batch, and averaged over the labels of all batches and
    replicas. So training and validation show the same figure for the same weights and data, for any
    batches and accumulation steps. Gradients do not change.

    Losses that do not sum, or sum without weights, are displayed as by Keras;
    `SmoothedCrossentropy` needs no weights. If labels have different weights, a batch counts by its
    number of labels.

    Example:

    ```python
    class Mine(LossPerLabel, keras.Model):
        pass


    model = Mine(inputs, outputs)  # like keras.Model(inputs, outputs), with exact losses
    ```
    """

    @property
    def _loss_tracker(self):
        return self.__dict__.get("_loss_tracker")

    @_loss_tracker.setter
    def _loss_tracker(self, tracker):
        # `compile` sets Keras' tracker, which ours replaces. Overriding `compile` would keep Keras
        # from compiling a loaded model, and another attribute would be saved with the weights.
        self.__dict__["_loss_tracker"] = tracker and _MeanLoss()

    def _compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # Keras' steps call this method around `compute_loss`, which users may override.
        value = super()._compute_loss(x, y, y_pred, sample_weight, training)
        if not isinstance(self._loss_tracker, _MeanLoss):
            raise RuntimeError(no_longer("LossPerLabel", "sets", "_loss_tracker"))
        self._loss_tracker.add(self.loss, value, y, y_pred, sample_weight)
        return value

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' step, which checks that Keras still computes the loss as expected here."""
        result = super().train_step(*args, **kwargs)  # type: ignore[misc]
        check_calls(self, LossPerLabel, "update")
        return result


class _MeanLoss(keras.metrics.Mean):
    """Total loss and number of labels, for `LossPerLabel`."""

    def __init__(self):
        super().__init__(name="loss", dtype="float32")
        self._counts_labels = False

    def add(self, loss, value, y_true, y_pred, sample_weight):
        """Counts a batch by its labels, if the `value` of its loss is a sum over labels."""
        self._counts_labels = _sums_over_labels(loss, y_pred, sample_weight)
        if not self._counts_labels:
            return
        ignore_class = getattr(loss, "ignore_class", None)
        if ignore_class is None:
            labels = ops.zeros(ops.shape(y_pred)[:-1], dtype="int32")
        else:
            labels = integer_labels(y_true, y_pred)
        real = counts(labels, y_pred, ignore_class)
        weights = label_weights(labels, real, sample_weight)
        number = ops.sum(ops.cast(weights > 0, "float32"))
        number, weight = ops.unstack(
            sum_over_replicas(ops.stack([number, ops.sum(weights)])), num=2
        )
        # During an epoch Keras displays the mean of the replicas' results, after it the result of
        # their sums. Both are right if every replica counts the same number of labels.
        self.total.assign_add(ops.stop_gradient(value) * ops.divide_no_nan(number, weight))
        self.count.assign_add(number / replicas())

    def update_state(self, values, sample_weight=None):
        """Counts a batch by its rows, as Keras does, unless `add` has counted its labels."""
        if not self._counts_labels:
            super().update_state(values, sample_weight)


def _sums_over_labels(loss, y_pred, sample_weight):
    if not isinstance(loss, keras.losses.Loss) or keras.tree.is_nested(y_pred):
        return False
    weighted = sample_weight is not None or isinstance(loss, SmoothedCrossentropy)
    return loss.reduction == "sum" and weighted
