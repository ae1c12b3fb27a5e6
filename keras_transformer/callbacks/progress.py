"""The training log in a terminal, a pipe or a file."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import keras

from keras_transformer.callbacks.interval_meter import (
    IntervalMeter,
    batches_per_update,
    count_updates,
    perplexity,
    validation_figures,
)
from keras_transformer.data.feed import FeedMeter
from keras_transformer.progress import Line, duration

# After these updates of a call of `fit` a line is shown, before the first interval ends.
EARLY = (1, 11)

COLUMNS = {
    "loss": "loss {:.3f}",
    "nats_per_token": "nats/token {:.3f}",
    "perplexity": "ppl {:.2f}",
    "token_accuracy": "acc {:.1%}",
    "accuracy": "acc {:.1%}",
    "bleu": "BLEU {:.2f}",
    "learning_rate": "lr {:.2e}",
    "gradient_norm": "grad {:.2f}",
    "target_tokens_per_second": "{:,.0f} tokens/s",
}


def columns(figures: Mapping[str, float]) -> list[str]:
    return [text.format(figures[name]) for name, text in COLUMNS.items() if name in figures]


class Progress(keras.callbacks.Callback):
    """One line of figures per interval of updates, and one per validation. For `fit(verbose=0)`.

    In a terminal the line is rewritten in place, and each validation leaves a finished line. In a
    pipe or a log file every interval is a line of its own.

    Nats and accuracy are averages over the target tokens of the interval, or of the validation
    data. `ppl` is e^nats of the unsmoothed cross-entropy. `loss` is the training objective in nats
    per target token, with label smoothing. `lr` is the rate as applied, `grad` the gradient norm
    before clipping. `tokens/s` counts target tokens without padding. `left` follows from the speed
    of this call of `fit` without its first update, which waits for the compilation.

    The first and the eleventh update have their own lines, so that you soon see how long the
    training will take. To `fit` an epoch is the updates between two validations; in this package
    it is a pass over the data, as in `BatchPlan`. So the lines count validations.

    Args:
        total_updates: Updates at the end of training, for `left`. Unless given, `fit`'s `epochs`
            times its steps per epoch, divided by the accumulation steps.
        every: Updates per interval.
        stream: Where to print; `sys.stderr` unless given.
        log: Called with a flat dictionary, to be written as JSON, per interval (`"event":
            "interval"` and the figures of `IntervalMeter.read`) and per validation (`"event":
            "validation"`, the logs of Keras, the perplexities, `seconds`, and the number of the
            `validation` from 1). Both have `update`.
        meter: The `FeedMeter` of the dataset, for `padding_share` and `waiting_share` in the log.

    Example:

    >>> model.fit(batches, epochs=10, steps_per_epoch=500, verbose=0, callbacks=[Progress()])
    """

    def __init__(
        self,
        total_updates: int | None = None,
        every: int = 50,
        stream: TextIO | None = None,
        log: Callable[[dict[str, Any]], Any] | None = None,
        meter: FeedMeter | None = None,
    ) -> None:
        super().__init__()
        self.total_updates = total_updates
        self._line = Line(stream or sys.stderr)
        self.log = log
        self._meter = IntervalMeter(every, meter)

    def on_train_begin(self, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        self._first = count_updates(optimizer)
        self._total = self.total_updates
        if self._total is None and self.params["steps"]:
            batches = self.params["epochs"] * self.params["steps"]
            self._total = batches // batches_per_update(optimizer)
        self._batches_per_update = batches_per_update(optimizer)
        self._done = 0  # updates of this call of `fit`, in the epochs before this one
        self._early = [number for number in EARLY if number < self._meter.every]
        self._start = 0, time.perf_counter()  # the speed is measured from here: updates and clock
        self._line.show(f"update {self._first}{self._of()}  compiling the first update")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._validation = epoch + 1
        self._epoch_clock = time.perf_counter()
        self._meter.start(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        updates = self._done + batch // self._batches_per_update
        if batch and self._early and updates >= self._early[0]:
            self._early.pop(0)
            self._show_early(updates)
        if self._meter.due(batch):
            self._show_interval(self._meter.read(self.model))

    def on_test_begin(self, logs: Any = None) -> None:
        self._finish_intervals()  # validation is about to reset the metrics

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._finish_intervals()
        self._done = self._update - self._first
        seconds = time.perf_counter() - self._epoch_clock
        validation = validation_figures(logs)
        record = {"event": "validation", "validation": self._validation, "update": self._update}
        record |= logs
        for prefix in ("", "val_"):
            if f"{prefix}nats_per_token" in logs:
                record[f"{prefix}perplexity"] = perplexity(logs[f"{prefix}nats_per_token"])
        if self.log:
            self.log(record | {"seconds": seconds})
        shown = columns(record)
        if validation:
            number = f"validation {self._validation}/{self.params['epochs']}:"
            shown = [number, *columns(validation)]
        self._line.leave("  ".join([self._position(), *shown, f"in {duration(seconds)}"]))

    def _finish_intervals(self):
        figures = self._meter.read_rest(self.model)
        if figures:
            self._show_interval(figures)

    def _show_interval(self, figures):
        self._update = figures["update"]
        if self.log:
            self.log({"event": "interval", **figures})
        parts = [self._position(), *self._left(self._update - self._first, time.perf_counter())]
        if figures.get("skipped_updates"):
            parts.append(f"skipped {figures['skipped_updates']}")
        self._line.show("  ".join([*parts, *columns(figures)]))

    def _show_early(self, updates):
        """Shows how long the first update took, then how long the rest will take."""
        self._update = count_updates(self.model.optimizer)  # waits for the device
        clock = time.perf_counter()
        parts = self._left(updates, clock)
        if updates == 1:
            seconds = clock - self._start[1]
            parts = [f"the first update took {seconds:.1f} s with its compilation"]
            self._start = updates, clock
        self._line.show("  ".join([self._position(), *parts]))

    def _left(self, updates, clock):
        """The time left, by the speed of the updates after the first one."""
        before, start = self._start
        if not self._total or updates <= before:
            return []
        left = max(self._total - self._first - updates, 0)
        return [f"left {duration((clock - start) / (updates - before) * left)}"]

    def _position(self):
        return f"update {self._update}{self._of()}"

    def _of(self):
        return f"/{self._total}" if self._total else ""
