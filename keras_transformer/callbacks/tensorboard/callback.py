"""TensorBoard over updates, on every backend: curves, pictures, texts, weights."""

import sys
import time

import keras

from keras_transformer.callbacks.interval_meter import (
    IntervalMeter,
    count_updates,
    validation_figures,
)
from keras_transformer.callbacks.tensorboard.event_file import EventFile
from keras_transformer.callbacks.tensorboard.hparams import write_hparams

# What the Custom Scalars page shows, and in which order: tags of curves as regular expressions.
LAYOUT = {
    "Is it learning?": {
        "nats per token": ["train/nats_per_token", "validation/nats_per_token"],
        "BLEU and chrF": ["validation/bleu$", "validation/chrf$"],
        "accuracy": ["train/(token_)?accuracy", "validation/(token_)?accuracy"],
    },
    "Is it healthy?": {
        "learning rate": ["train/learning_rate"],
        "gradient norm": ["train/gradient_norm"],
        "skipped updates": ["train/skipped_updates"],
    },
    "Is it fast?": {
        "target tokens per second": ["train/target_tokens_per_second"],
        "shares of padding and of waiting": ["train/(padding|waiting)_share"],
    },
}


class TensorBoard(keras.callbacks.TensorBoard):
    """`keras.callbacks.TensorBoard` with what one wants to see of a translation run, over updates.

    Curves, per interval, under `train/`: `nats_per_token`, `perplexity` and `token_accuracy` (means
    over the interval's target tokens), `loss`, `learning_rate` as really applied, `gradient_norm`,
    `target_tokens_per_second`, `padding_share`, `waiting_share` (of the time, for data),
    `skipped_updates`. Per epoch, under `validation/`: every `val_*` entry of the logs
    (`nats_per_token`, `token_accuracy`, `bleu`, `chrf`, ...) and the `perplexity`. Custom Scalars
    has what matters of them on one page. The x axis is the update; a resumed run with the same
    `log_dir` continues the curves.

    With `probes` also, at the end of an epoch: what every layer and head attends to in fixed pairs
    of sentences (Images), histograms of the weights, and at the end the embedding with its tokens
    (Projector); once at the start the masks, the positional encoding, and the layers (Graphs).
    Give `samples` to `TranslationScore`, and translations of fixed sentences stand under Text.

    The cost of all that is measured and printed at the end of training; what is drawn in between
    waits where it has taken more than `picture_share` of the time so far. The `tensorboard` and
    `matplotlib` packages are all that is needed, on any backend; only the profiler
    (off by default, written to `log_dir/train`) needs TensorFlow.

    Args:
        log_dir: Folder for the event files.
        update_freq: Updates per interval (Keras counts batches here).
        probes: A `Probes`.
        picture_share: Most of the time that pictures of probes may take, 0 to 1. Those of the first
            and of the last epoch are always drawn.
        hparams: `{name: number, string or boolean}` for the HParams table, beside the model's own
            sizes; the results are the last validation's. None: this run is not in the table.
        profile_batch: As in `keras.callbacks.TensorBoard`.
        meter: The `FeedMeter` of the dataset, for `padding_share` and `waiting_share`.

    Example:

    >>> model.fit(batches, epochs=10, steps_per_epoch=500, callbacks=[TensorBoard("logs")])
    """

    def __init__(
        self,
        log_dir="logs",
        update_freq=50,
        probes=None,
        picture_share=0.02,
        hparams=(),
        profile_batch=0,
        meter=None,
    ):
        super().__init__(
            log_dir,
            histogram_freq=0,
            write_graph=False,
            update_freq="epoch",  # Keras' own scalars stay out of the way
            profile_batch=profile_batch,
        )
        self.probes = probes
        self.picture_share = picture_share
        self.hparams = hparams
        self.meter = meter
        self._every = IntervalMeter(update_freq).every  # which checks it
        self._seconds = {"curves": 0.0, "pictures": 0.0}
        self._pending, self._drawn = None, False
        # only the profiler uses `on_train_batch_end`; without it no step has to be waited for
        self.async_safe = not self._should_trace

    def samples(self, update, triples, shown=8):
        """Writes translations of fixed sentences, for `TranslationScore(samples=...)`.

        Args:
            update: Where in training they were made.
            triples: A list of (source, reference, translation).
            shown: How many of them are written.
        """
        rows = ["| source | reference | translation |", "|---|---|---|"]
        for triple in triples[:shown]:
            cells = (text.replace("|", "\\|").replace("\n", " ") for text in triple)
            rows.append(f"| {' | '.join(cells)} |")
        self._events.text(update, "translations", "\n".join(rows))

    def on_train_begin(self, logs=None):
        self._global_train_batch = 0
        self._meter = IntervalMeter(self._every, self.meter)
        self._update = count_updates(self.model.optimizer)
        self._events = EventFile(self.log_dir, first_step=self._update + 1)
        self._begin = time.perf_counter()
        if self._update == 0:
            self._events.layout(LAYOUT)
            if self.probes is not None:
                with self._timed("pictures"):
                    self.probes.draw_once(self._events, self.model)

    def on_epoch_begin(self, epoch, logs=None):
        self._meter.start(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch)
        if self._meter.due(batch):
            self._write_interval()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch)  # without the logs: Keras would write them, every batch

    def on_test_begin(self, logs=None):
        self._finish_intervals()  # validation is about to reset the metrics

    def on_test_end(self, logs=None):
        """Nothing: the epoch's end has these values, and the score of the translations too."""

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if self.probes is not None:
            if self._pending is not None:
                self._draw()
            with self._timed("pictures"):
                self.probes.write_embedding(self.log_dir, self.model)
        self._events.close()
        if self.hparams is not None:  # its results are the curves' ends, written already
            settings = {**sizes(self.model), **dict(self.hparams)}
            write_hparams(self.log_dir, settings, {}, self._update)
        whole = time.perf_counter() - self._begin
        shares = ", ".join(f"{t / whole:.1%} {name}" for name, t in self._seconds.items() if t)
        print(f"TensorBoard took {shares} of {whole:,.0f} s: {self.log_dir}", file=sys.stderr)

    def _log_epoch_metrics(self, epoch, logs):  # called by Keras' `on_epoch_end`
        self._finish_intervals()
        values = {f"validation/{name}": value for name, value in validation_figures(logs).items()}
        if values:
            self._events.scalars(self._update, values)
        if self.probes is None:
            return
        first = self._pending is None and not self._drawn
        self._pending = self._update
        share = self._seconds["pictures"] / (time.perf_counter() - self._begin)
        if first or share < self.picture_share:
            self._draw()

    def _draw(self):
        with self._timed("pictures"):
            self.probes.draw(self._events, self.model, self._pending)
        self._pending, self._drawn = None, True

    def _finish_intervals(self):
        with self._timed("curves"):
            figures = self._meter.read_rest(self.model)
            if figures:
                self._write(figures)

    def _write_interval(self):
        figures = self._meter.read(self.model)  # waits for the step under way, as it would anyway
        with self._timed("curves"):
            self._write(figures)

    def _write(self, figures):
        self._update = figures["update"]
        values = {
            f"train/{name}": value
            for name, value in figures.items()
            if name not in ("update", "target_tokens")
        }
        self._events.scalars(self._update, values)

    def _timed(self, name):
        return _Stopwatch(self._seconds, name)


def sizes(model):
    """What of a model's config is a number, a string or a boolean, but for its name."""
    try:
        config = model.get_config()
    except NotImplementedError:  # a subclass of keras.Model without one
        return {}
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, (bool, int, float, str)) and name not in ("name", "trainable")
    }


class _Stopwatch:
    def __init__(self, seconds, name):
        self.seconds, self.name = seconds, name

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *error):
        self.seconds[self.name] += time.perf_counter() - self.start
