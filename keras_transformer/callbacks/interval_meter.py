"""What every display shares: exact figures of the updates between two readings."""

import math
import time

from keras import ops

from keras_transformer.data.feed import FeedMeter


def perplexity(nats_per_token):
    """e^(nats per token), of the unsmoothed cross-entropy; infinity where floats overflow."""
    return math.inf if nats_per_token > 700 else math.exp(nats_per_token)


def validation_figures(logs):
    """The `val_*` entries of an epoch's logs without their prefix, and the perplexity."""
    figures = {k.removeprefix("val_"): v for k, v in logs.items() if k.startswith("val_")}
    if "nats_per_token" in figures:
        figures["perplexity"] = perplexity(figures["nats_per_token"])
    return figures


def innermost(optimizer):
    """The optimizer that counts updates, without the `LossScaleOptimizer` that float16 adds."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def batches_per_update(optimizer):
    return innermost(optimizer).gradient_accumulation_steps or 1


def count_updates(optimizer):
    """Updates applied so far, as an int. Waits for the device."""
    optimizer = innermost(optimizer)
    return int(scalar(getattr(optimizer, "updates", optimizer.iterations)))


def scalar(value):
    return ops.convert_to_numpy(ops.convert_to_tensor(value)).item()


class IntervalMeter:
    """Exact training figures of the updates between two readings.

    Keras' metrics are averages since the epoch began. Each keeps a sum (`total`) and a weight
    (`count`), so the differences between two readings give the average over the interval itself:
    nats over target tokens, not over batches. So is the loss of a `kt.models.LossPerLabel`, as the
    models of this package are; Keras weights that of other models by rows.
    It looks for `keras_transformer.metrics` of the default names, and for Keras' `"accuracy"` of
    classes; what is missing is left out.

    Args:
        every: Updates between two readings. A reading waits for the device, so it should stay
            rare. Readings fall on multiples of `every`, the same ones in a resumed run, and on
            the end of an epoch.
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
        self._feed = FeedMeter() if meter is None else meter  # one that stays empty
        self._epoch_open = False

    def start(self, model):
        """Begins an epoch: the metrics count from 0, and the time between epochs is left out."""
        self._epoch_open = True
        self._batches_per_update = batches_per_update(model.optimizer)
        self._first = count_updates(model.optimizer)
        self._intervals = self._first // self.every
        self._sums = {}
        self._fed = self._read_feed()
        self._clock = time.perf_counter()

    def due(self, batch):
        """Whether the updates before this batch of the epoch end an interval. True once each."""
        intervals = (self._first + batch // self._batches_per_update) // self.every
        ended = intervals > self._intervals
        self._intervals = intervals
        return ended

    def read(self, model):
        """Reads the interval that ends now, and begins the next.

        Returns:
            dict: `update`, `loss` and `nats_per_token` (nats), `token_accuracy` and `accuracy` (0
            to 1), `perplexity`, `target_tokens`, `target_tokens_per_second`, `learning_rate` as
            really applied, and, where the optimizer has them, `gradient_norm` (of the last update,
            before clipping) and `skipped_updates` (since training began). With a `meter` also
            `padding_share` of the ids' positions, and `waiting_share`, the share of the time
            that training waited for a batch (both 0 to 1).
        """
        sums = {
            metric.name: (scalar(metric.total), scalar(metric.count))
            for group in model.metrics
            for metric in getattr(group, "metrics", [group])
            if metric.name in ("loss", "nats_per_token", "token_accuracy", "accuracy")
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

    def _read_feed(self):
        return self._feed.waited, self._feed.positions, self._feed.padding

    def read_rest(self, model):
        """What the epoch's last full interval left over, once per epoch; None after that."""
        if not self._epoch_open:
            return None
        self._epoch_open = False
        return self.read(model)
