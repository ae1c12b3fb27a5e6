"""The training log in a terminal, a pipe or a file."""

import sys
import time

import keras

from keras_transformer.callbacks.interval_meter import (
    IntervalMeter,
    batches_per_update,
    count_updates,
    perplexity,
    validation_figures,
)
from keras_transformer.progress import Line, duration

# Updates of a call of `fit` after which a line is shown, whatever the interval.
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


def columns(figures):
    return [text.format(figures[name]) for name, text in COLUMNS.items() if name in figures]


class Progress(keras.callbacks.Callback):
    """One line of figures per interval of updates, and one per validation. For `fit(verbose=0)`.

    In a terminal the line is rewritten in place and each validation leaves one finished line; in a
    pipe or a log file every interval is a plain line of its own. Nats and accuracy are averages
    over the target tokens of the interval (in a validation's line: of the validation data), `ppl`
    is e^nats of the unsmoothed cross-entropy, `loss` is the training objective (with label
    smoothing, in nats per target token), `lr` is the rate really applied, `grad` the gradient norm
    before clipping, `tokens/s` counts real target tokens, `left` goes by the speed of this call of
    `fit`, without its first update, which waits for the compilation.

    The first update and the eleventh have a line of their own, so that it is soon seen how long the
    training will take. `fit` calls the updates from one validation to the next an epoch. Here an
    epoch is a pass over the data, as in `BatchPlan`, so the lines count validations.

    Args:
        total_updates: Updates at the end of training, for `left`. None: `epochs` times the steps
            per epoch that `fit` was given, divided by the accumulation steps.
        every: Updates per interval.
        stream: Where to print. None: `sys.stderr`.
        log: Callable that gets a flat, JSON-able dict per interval (`"event": "interval"`, with
            what `IntervalMeter.read` returns) and at the end of each of Keras' epochs (`"event":
            "validation"`, with Keras' logs, the perplexities, `seconds` and the number of the
            `validation`, from 1). Both have `update`.
        meter: The `FeedMeter` of the dataset, for `padding_share` and `waiting_share` in the log.

    Example:

    >>> model.fit(batches, epochs=10, steps_per_epoch=500, verbose=0, callbacks=[Progress()])
    """

    def __init__(self, total_updates=None, every=50, stream=None, log=None, meter=None):
        super().__init__()
        self.total_updates = total_updates
        self._line = Line(stream or sys.stderr)
        self.log = log
        self._meter = IntervalMeter(every, meter)

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        self._first = count_updates(optimizer)
        self._total = self.total_updates
        if self._total is None and self.params["steps"]:
            batches = self.params["epochs"] * self.params["steps"]
            self._total = batches // batches_per_update(optimizer)
        self._batches_per_update = batches_per_update(optimizer)
        self._done = 0  # updates of this call of `fit`, in the epochs before this one
        self._early = [number for number in EARLY if number < self._meter.every]
        self._start = 0, time.perf_counter()  # what the speed is measured from: updates and clock
        self._line.show(f"update {self._first}{self._of()}  compiling the first update")

    def on_epoch_begin(self, epoch, logs=None):
        self._validation = epoch + 1
        self._epoch_clock = time.perf_counter()
        self._meter.start(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        updates = self._done + batch // self._batches_per_update
        if batch and self._early and updates >= self._early[0]:
            self._early.pop(0)
            self._show_early(updates)
        if self._meter.due(batch):
            self._show_interval(self._meter.read(self.model))

    def on_test_begin(self, logs=None):
        self._finish_intervals()  # validation is about to reset the metrics

    def on_epoch_end(self, epoch, logs=None):
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
        """How long the first update took, then how long the rest will take."""
        self._update = count_updates(self.model.optimizer)  # waits for the device
        clock = time.perf_counter()
        parts = self._left(updates, clock)
        if updates == 1:
            seconds = clock - self._start[1]
            parts = [f"the first update took {seconds:.1f} s with its compilation"]
            self._start = updates, clock
        self._line.show("  ".join([self._position(), *parts]))

    def _left(self, updates, clock):
        """The time left, by the speed of those of these updates that came after the first."""
        before, start = self._start
        if not self._total or updates <= before:
            return []
        left = max(self._total - self._first - updates, 0)
        return [f"left {duration((clock - start) / (updates - before) * left)}"]

    def _position(self):
        return f"update {self._update}{self._of()}"

    def _of(self):
        return f"/{self._total}" if self._total else ""
