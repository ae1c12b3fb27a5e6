"""Two reasons to end a run: it has diverged, or it no longer gets better."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import keras

from keras_transformer.callbacks.interval_meter import (
    IntervalMeter,
    count_updates,
    innermost,
    scalar,
)
from keras_transformer.progress import say


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training with an error when the optimizer has skipped `patience` updates in a row.

    One non-finite gradient is skipped and forgotten. Many in a row mean that the run has diverged
    and would take hours without learning. The count is checked once per `every` updates and at the
    end of an epoch.

    Args:
        patience: Skipped updates in a row that end the run.
        every: Updates between two checks.

    Raises:
        FloatingPointError: If that many updates in a row were not finite.
        ValueError: If the optimizer does not count skipped updates as `PaperAdam` does.

    Example:

    >>> model.fit(batches, epochs=10, steps_per_epoch=500, callbacks=[StopOnNonFinite()])
    """

    def __init__(self, patience: int = 20, every: int = 50) -> None:
        super().__init__()
        self.patience = patience
        self._meter = IntervalMeter(every)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._meter.start(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._meter.due(batch):
            self._check()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check()

    def _check(self):
        optimizer = innermost(self.model.optimizer)
        if not hasattr(optimizer, "skipped_in_a_row"):
            raise ValueError(
                "StopOnNonFinite needs an optimizer that counts `skipped_in_a_row`, such as "
                f"PaperAdam. Got: {type(optimizer).__name__}. Use PaperAdam, or "
                "keras.callbacks.TerminateOnNaN instead."
            )
        skipped = scalar(optimizer.skipped_in_a_row)
        if skipped >= self.patience:
            raise FloatingPointError(
                f"Training has diverged: {skipped} updates in a row were not finite and were "
                f"skipped, at update {count_updates(optimizer)} (learning rate "
                f"{scalar(optimizer.learning_rate):.3g}, gradient norm "
                f"{scalar(optimizer.gradient_norm):.3g}). Go back to the last checkpoint and try "
                "a lower learning rate, a longer warm-up, clip_norm=1.0, or float32 or bfloat16 "
                "instead of float16."
            )


class StopEarly(keras.callbacks.Callback):
    """Stops when `patience` scores in a row were no better than the best one, resumed or not.

    `keras.callbacks.EarlyStopping` starts anew at every `fit`, so a resumed run takes longer than
    one that was never stopped. Here the list of scores is the whole state: save `state` with a
    checkpoint, pass it as `history` when resuming, and the decisions are the same.

    Epochs whose logs lack `monitor` (`TranslationScore(every=2)`) do not count. The first of equal
    scores is the best. A score that is not a number is never the best.

    Args:
        monitor: Key in the logs.
        mode: `"max"` if higher is better (BLEU), or `"min"` (`val_nats_per_token`).
        patience: Scores without improvement after which training stops.
        history: The `state` of the run that is resumed.

    Attributes:
        state: A list of `{"epoch": 1, "update": 500, "score": 12.3}`, epochs from 1, for JSON.
        best: The entry of `state` with the best score, or None.
        finished: Whether the scores so far end the run. Check it before resuming, because `fit`
            always takes a step before it asks.

    Example:

    >>> stop = StopEarly(patience=3, history=json.load(open("scores.json")))
    >>> if not stop.finished:
    ...     model.fit(batches, initial_epoch=len(stop.state), callbacks=[score, stop])
    """

    def __init__(
        self,
        monitor: str = "val_bleu",
        mode: str = "max",
        patience: int = 5,
        history: Iterable[dict[str, Any]] = (),
    ) -> None:
        super().__init__()
        if mode not in ("max", "min"):
            raise ValueError(f"`mode` is 'max' (as for BLEU) or 'min' (as for nats). Got: {mode!r}")
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.state = list(history)

    @property
    def best(self) -> dict[str, Any] | None:
        numbers = [entry for entry in self.state if not math.isnan(entry["score"])]
        sign = 1 if self.mode == "max" else -1
        return max(numbers, key=lambda entry: sign * entry["score"], default=None)

    @property
    def finished(self) -> bool:
        scores_up_to_best = self.state.index(self.best) + 1 if self.best else 0
        return len(self.state) - scores_up_to_best >= self.patience

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.monitor not in logs:
            return
        update = count_updates(self.model.optimizer)
        score = float(logs[self.monitor])
        self.state.append({"epoch": epoch + 1, "update": update, "score": score})
        if self.finished:
            self.model.stop_training = True
            best = self.best or {"score": math.nan, "update": 0}
            say(
                f"Stopped early at update {update}: {self.monitor} has not improved "
                f"{self.patience} times in a row; best {best['score']:.4g} at update "
                f"{best['update']}."
            )

    def on_train_end(self, logs: Any = None) -> None:
        if not self.state:
            warnings.warn(
                f"StopEarly never saw {self.monitor!r} in the logs: is it spelled right, and does "
                "the callback that adds it come earlier in the list?",
                stacklevel=2,
            )
