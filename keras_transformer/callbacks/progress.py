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
    """One line of figures per interval of updates, and one per epoch. For `fit(verbose=0)`.

    In a terminal the line is rewritten in place and each epoch leaves one finished line; in a pipe
    or a log file every interval is a plain line of its own. Nats and accuracy are averages over the
    target tokens of the interval (in the epoch's line: of the validation data), `ppl` is e^nats of
    the unsmoothed cross-entropy, `loss` is the training objective (with label smoothing, in nats
    per target token), `lr` is the rate really applied, `grad` the gradient norm before
    clipping, `tokens/s` counts real target tokens, `left` goes by the speed of this call of `fit`.

    Args:
        total_updates: Updates at the end of training, for `left`. None: `epochs` times the steps
            per epoch that `fit` was given, divided by the accumulation steps.
        every: Updates per interval.
        stream: Where to print. None: `sys.stderr`.
        log: Callable that gets a flat, JSON-able dict per interval (`"event": "interval"`, with
            what `IntervalMeter.read` returns) and per epoch (`"event": "epoch"`, with Keras' epoch
            logs, the perplexities and `seconds`), both with `epoch` (from 1) and `update`.

    Example:

    >>> model.fit(batches, epochs=10, steps_per_epoch=500, verbose=0, callbacks=[Progress()])
    """

    def __init__(self, total_updates=None, every=50, stream=None, log=None):
        super().__init__()
        self.total_updates = total_updates
        self._line = Line(stream or sys.stderr)
        self.log = log
        self._meter = IntervalMeter(every)

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        self._first = count_updates(optimizer)
        self._total = self.total_updates
        if self._total is None and self.params["steps"]:
            batches = self.params["epochs"] * self.params["steps"]
            self._total = batches // batches_per_update(optimizer)
        self._train_clock = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1
        self._epoch_clock = time.perf_counter()
        self._meter.start(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        if self._meter.due(batch):
            self._show_interval(self._meter.read(self.model))

    def on_test_begin(self, logs=None):
        self._finish_intervals()  # validation is about to reset the metrics

    def on_epoch_end(self, epoch, logs=None):
        self._finish_intervals()
        seconds = time.perf_counter() - self._epoch_clock
        validation = validation_figures(logs)
        record = {"event": "epoch", "epoch": self._epoch, "update": self._update, **logs}
        for prefix in ("", "val_"):
            if f"{prefix}nats_per_token" in logs:
                record[f"{prefix}perplexity"] = perplexity(logs[f"{prefix}nats_per_token"])
        if self.log:
            self.log(record | {"seconds": seconds})
        shown = ["validation:", *columns(validation)] if validation else columns(record)
        self._line.leave("  ".join([*self._position(), *shown, f"in {duration(seconds)}"]))

    def _finish_intervals(self):
        figures = self._meter.read_rest(self.model)
        if figures:
            self._show_interval(figures)

    def _show_interval(self, figures):
        self._update = figures["update"]
        if self.log:
            self.log({"event": "interval", "epoch": self._epoch, **figures})
        parts = [*self._position()]
        if self._total and self._update > self._first:
            seconds = (time.perf_counter() - self._train_clock) / (self._update - self._first)
            parts.append(f"left {duration(seconds * max(self._total - self._update, 0))}")
        if figures.get("skipped_updates"):
            parts.append(f"skipped {figures['skipped_updates']}")
        self._line.show("  ".join([*parts, *columns(figures)]))

    def _position(self):
        total = f"/{self._total}" if self._total else ""
        return f"epoch {self._epoch}/{self.params['epochs']}", f"update {self._update}{total}"
