"""What every display shares: exact figures of the updates between two readings."""

import math
import time
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_transformer.data.feed import FeedMeter

METRICS = ("loss", "nats_per_token", "token_accuracy", "accuracy")


def perplexity(nats_per_token: float) -> float:
    """Returns e^(nats per token) of the unsmoothed cross-entropy; infinity if that overflows."""
    return math.inf if nats_per_token > 700 else math.exp(nats_per_token)


def validation_figures(logs: Mapping[str, float]) -> dict[str, float]:
    """Returns the `val_*` entries of an epoch's logs without their prefix, and the perplexity."""
    figures = {k.removeprefix("val_"): v for k, v in logs.items() if k.startswith("val_")}
    if "nats_per_token" in figures:
        figures["perplexity"] = perplexity(figures["nats_per_token"])
    return figures


def innermost(optimizer: Any) -> Any:
    """Returns the optimizer that counts updates, inside a `LossScaleOptimizer` under float16."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def batches_per_update(optimizer: Any) -> int:
    return innermost(optimizer).gradient_accumulation_steps or 1


def count_updates(optimizer: Any) -> int:
    """Returns the number of updates so far. Waits for the device."""
    optimizer = innermost(optimizer)
    return int(scalar(getattr(optimizer, "updates", optimizer.iterations)))


def scalar(value: Any) -> Any:
    return ops.convert_to_numpy(ops.convert_to_tensor(value)).item()


class IntervalMeter:
    """Exact training figures of the updates between two readings.

    Keras' metrics are averages since the epoch began. Each keeps a sum (`total`) and a weight
    (`count`), so the differences between two readings give the average over the interval: nats per
    target token, not per batch. The same holds for the loss of a `kt.models.LossPerLabel`, as all
    models of this package are; Keras weights the loss of other models by rows.

    The meter looks for the metrics of `keras_transformer.metrics` by their default names, and for
    Keras' `"accuracy"` of classes. It leaves out those that it does not find.

    Args:
        every: Updates between two readings. A reading waits for the device, so it should be rare.
            Readings fall on multiples of `every`, also in a resumed run, and on the end of an
            epoch.
        meter: The `FeedMeter` of the training's dataset, for `padding_share` and `waiting_share`.

    Example:

    >>> meter = IntervalMeter(every=50)
    >>> meter.start(model)              # on_epoch_begin, when Keras has just reset its metrics
    >>> if meter.due(batch):            # on_train_batch_begin
    ...     figures = meter.read(model)
    """

    def __init__(self, every: int = 50, meter: FeedMeter | None = None) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"An interval is a positive whole number of updates, for example 50. Got: {every!r}"
            )
        self.every = every
        self._feed = FeedMeter() if meter is None else meter  # without one: one that stays empty
        self._epoch_open = False

    def start(self, model: keras.Model) -> None:
        """Begins an epoch: the metrics count from 0, and the time between epochs is left out."""
        self._epoch_open = True
        self._batches_per_update = batches_per_update(model.optimizer)
        self._first = count_updates(model.optimizer)
        self._intervals = self._first // self.every
        self._sums: dict[str, tuple] = {}
        self._fed = self._read_feed()
        self._clock = time.perf_counter()

    def due(self, batch: int) -> bool:
        """Whether an interval ends before this batch of the epoch. True once per interval."""
        intervals = (self._first + batch // self._batches_per_update) // self.every
        ended = intervals > self._intervals
        self._intervals = intervals
        return ended

    def read(self, model: keras.Model) -> dict[str, float]:
        """Reads the interval that ends now, and begins the next.

        Returns:
            `update`, `loss` and `nats_per_token` (nats), `token_accuracy` and `accuracy` (0 to 1),
            `perplexity`, `target_tokens`, `target_tokens_per_second`, `learning_rate` as applied
            and, if the optimizer has them, `gradient_norm` (of the last update, before clipping)
            and `skipped_updates` (since training began). With a `meter` also `padding_share` (of
            the positions of the ids) and `waiting_share` (of the time, for batches), 0 to 1.
        """
        sums = {
            metric.name: (scalar(metric.total), scalar(metric.count))
            for group in model.metrics
            for metric in getattr(group, "metrics", [group])
            if metric.name in METRICS
        }
        clock = time.perf_counter()  # after the reading, which waited for the last update
        optimizer = innermost(model.optimizer)
        figures = {
            "update": count_updates(optimizer),
            "learning_rate": scalar(optimizer.learning_rate),
        }
        for name in ("gradient_norm", "skipped_updates"):
            if hasattr(optimizer, name):
                figures[name] = scalar(getattr(optimizer, name))
        for name, (total, count) in sums.items():
            total_before, count_before = self._sums.get(name, (0.0, 0.0))
            weight = count - count_before
            figures[name] = (total - total_before) / weight if weight else math.nan
            if name == "nats_per_token":
                figures["perplexity"] = perplexity(figures[name])
                figures["target_tokens"] = weight
                figures["target_tokens_per_second"] = weight / (clock - self._clock)
        fed = self._read_feed()
        waited, positions, padding = (a - b for a, b in zip(fed, self._fed, strict=True))
        if positions:
            figures["padding_share"] = padding / positions
        if waited:
            figures["waiting_share"] = waited / (clock - self._clock)
        self._sums, self._fed, self._clock = sums, fed, clock
        return figures

    def read_rest(self, model: keras.Model) -> dict[str, float] | None:
        """Reads what follows the last full interval of the epoch, once; then returns None."""
        if not self._epoch_open:
            return None
        self._epoch_open = False
        return self.read(model)

    def _read_feed(self):
        return self._feed.waited, self._feed.positions, self._feed.padding
