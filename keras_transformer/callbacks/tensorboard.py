"""TensorBoard curves over updates, on every backend."""

import os
import time

import keras

from keras_transformer.callbacks.interval_meter import (
    IntervalMeter,
    count_updates,
    validation_figures,
)


class EventFile:
    """A TensorBoard event file of scalars, written with the `tensorboard` package alone.

    Keras' callback needs TensorFlow, and `tensorboard.summary.Writer` loads it where it is
    installed; a run on JAX or PyTorch should do neither.
    """

    def __init__(self, log_dir, first_step):
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        os.makedirs(log_dir, exist_ok=True)
        # one file per session: TensorBoard reads them in this order, as one run
        path = os.path.join(log_dir, f"events.out.tfevents.{time.time_ns()}")
        self._writer = RecordWriter(open(path, "xb"))
        self._event = event_pb2.Event
        self._write(file_version="brain.Event:2")
        # TensorBoard drops what a broken-off session wrote after the checkpoint we start from
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_step, session_log=start)

    def scalars(self, step, values):
        self.summary(step, [{"tag": tag, "simple_value": x} for tag, x in values.items()])

    def summary(self, step, values):
        """Writes `Summary.Value`s, as messages or as dictionaries of their fields."""
        self._write(step=step, summary={"value": values})

    def close(self):
        self._writer.close()

    def _write(self, **fields):
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()


class TensorBoard(keras.callbacks.TensorBoard):
    """`keras.callbacks.TensorBoard` with the curves of a translation run, over updates.

    Per interval, under `train/`: `nats_per_token`, `perplexity` and `token_accuracy` (means over
    the interval's target tokens), `loss`, `learning_rate` as really applied, `gradient_norm`,
    `target_tokens_per_second`, `skipped_updates`. Per epoch, under `validation/`: every `val_*`
    entry of the logs (`nats_per_token`, `token_accuracy`, `bleu`, ...) and the `perplexity`.
    The x axis is the update; a resumed run with the same `log_dir` continues the curves.

    The scalars need the `tensorboard` package only. Keras' own pictures (the other arguments, off
    by default, written to `log_dir/train`) need TensorFlow to be installed, on any backend.

    Args:
        log_dir: Folder for the event files.
        update_freq: Updates per interval (Keras counts batches here).
        histogram_freq, write_graph, write_images, profile_batch: As in
            `keras.callbacks.TensorBoard`.

    Example:

    >>> model.fit(batches, epochs=10, steps_per_epoch=500, callbacks=[TensorBoard("logs")])
    """

    def __init__(
        self,
        log_dir="logs",
        update_freq=50,
        histogram_freq=0,
        write_graph=False,
        write_images=False,
        profile_batch=0,
    ):
        super().__init__(
            log_dir,
            histogram_freq=histogram_freq,
            write_graph=write_graph,
            write_images=write_images,
            update_freq="epoch",  # Keras' own scalars stay out of the way
            profile_batch=profile_batch,
        )
        self._meter = IntervalMeter(update_freq)
        # only the profiler uses `on_train_batch_end`; without it no step has to be waited for
        self.async_safe = not self._should_trace

    def on_train_begin(self, logs=None):
        self._global_train_batch = 0
        self._update = count_updates(self.model.optimizer)
        self._events = EventFile(self.log_dir, first_step=self._update + 1)

    def on_epoch_begin(self, epoch, logs=None):
        self._meter.start(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch)
        if self._meter.due(batch):
            self._write_interval(self._meter.read(self.model))

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch)  # without the logs: Keras would write them, every batch

    def on_test_begin(self, logs=None):
        self._finish_intervals()  # validation is about to reset the metrics

    def on_test_end(self, logs=None):
        """Nothing: the epoch's end has these values, and the score of the translations too."""

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self._events.close()

    def _log_epoch_metrics(self, epoch, logs):  # called by Keras' `on_epoch_end`
        self._finish_intervals()
        values = {f"validation/{name}": value for name, value in validation_figures(logs).items()}
        if values:
            self._events.scalars(self._update, values)

    def _finish_intervals(self):
        figures = self._meter.read_rest(self.model)
        if figures:
            self._write_interval(figures)

    def _write_interval(self, figures):
        self._update = figures["update"]
        values = {
            f"train/{name}": value
            for name, value in figures.items()
            if name not in ("update", "target_tokens")
        }
        self._events.scalars(self._update, values)
