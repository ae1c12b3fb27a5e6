"""TensorBoard over updates, on every backend: curves, pictures, texts, weights."""

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_transformer.callbacks.interval_meter import (
    IntervalMeter,
    count_updates,
    validation_figures,
)
from keras_transformer.callbacks.tensorboard.event_file import EventFile
from keras_transformer.callbacks.tensorboard.hparams import write_hparams
from keras_transformer.callbacks.tensorboard.probes import Probes
from keras_transformer.data.feed import FeedMeter
from keras_transformer.ops import processes
from keras_transformer.progress import say

# The charts of the page Custom Scalars in their order: regular expressions of the curves' tags.
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
    """Keras' TensorBoard over updates, with the figures and pictures of a translation run.

    Curves per interval, under `train/`: `nats_per_token`, `perplexity` and `token_accuracy` (means
    over the interval's target tokens), `loss`, `learning_rate` as applied, `gradient_norm`,
    `target_tokens_per_second`, `skipped_updates`, and with a `meter` `padding_share` and
    `waiting_share`. Per epoch, under `validation/`: every `val_*` entry of the logs
    (`nats_per_token`, `token_accuracy`, `bleu`, `chrf`, ...) and the `perplexity`. Custom Scalars
    has the most important ones on one page. The x axis is the update. A resumed run with the same
    `log_dir` continues the curves.

    `probes` add what every layer and head attends to in fixed pairs of sentences (Images) and
    histograms of the weights, both at the end of an epoch; at the start the masks, the positional
    encoding and the layers (Graphs); at the end the embedding with its tokens (Projector). Pass
    `samples` to `TranslationScore`, and Text shows translations of fixed sentences.

    The cost is measured and printed at the end of training. Pictures wait while they have taken
    more than `picture_share` of the time so far. On any backend, the `tensorboard` and `matplotlib`
    packages suffice. Only the profiler (off by default, written to `log_dir/train`) needs
    TensorFlow.

    Args:
        log_dir: Folder for the event files.
        update_freq: Updates per interval (Keras counts batches here).
        probes: Pairs of sentences to draw pictures of.
        picture_share: The share of the time, 0 to 1, that pictures may take. The first and the last
            epoch are always drawn.
        hparams: `{name: number, string or boolean}` for the HParams table, beside the model's own
            sizes. The table's results are those of the last validation. None leaves this run out.
        profile_batch: As in `keras.callbacks.TensorBoard`.
        meter: The `FeedMeter` of the dataset, for `padding_share` and `waiting_share`.

    Example:

    >>> model.fit(batches, epochs=10, steps_per_epoch=500, callbacks=[TensorBoard("logs")])
    """

    def __init__(
        self,
        log_dir: str | os.PathLike = "logs",
        update_freq: int = 50,
        probes: Probes | None = None,
        picture_share: float = 0.02,
        hparams: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = (),
        profile_batch: int | tuple[int, int] = 0,
        meter: FeedMeter | None = None,
    ) -> None:
        super().__init__(
            str(log_dir),
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
        self._pending: int | None = None
        self._drawn = False
        # Only the profiler uses `on_train_batch_end`. Without it no step has to be waited for.
        self.async_safe = not profile_batch

    def samples(self, update: int, triples: list[tuple[str, str, str]], shown: int = 8) -> None:
        """Writes translations of fixed sentences, for `TranslationScore(samples=...)`.

        Args:
            update: The update after which they were made.
            triples: A list of (source, reference, translation).
            shown: How many of them are written.
        """
        rows = ["| source | reference | translation |", "|---|---|---|"]
        for triple in triples[:shown]:
            cells = (text.replace("|", "\\|").replace("\n", " ") for text in triple)
            rows.append(f"| {' | '.join(cells)} |")
        self._events.text(update, "translations", "\n".join(rows))

    @property
    def _folder(self):
        """Every process computes what is drawn, and the first one writes it."""
        return self.log_dir if processes.is_first() else None

    def on_train_begin(self, logs: Any = None) -> None:
        self._global_train_batch = 0
        self._meter = IntervalMeter(self._every, self.meter)
        self._update = count_updates(self.model.optimizer)
        self._events = EventFile(self._folder, self._update + 1)
        self._begin = time.perf_counter()
        if self.probes is not None and self._folder is not None:
            self.probes.forget_embedding(self._folder)
        if self._update == 0:
            self._events.layout(LAYOUT)
            if self.probes is not None:
                with self._timed("pictures"):
                    self.probes.draw_once(self._events, self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._meter.start(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_begin(batch)
        if self._meter.due(batch):
            self._write_interval()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch)  # without the logs, which Keras would write

    def on_test_begin(self, logs: Any = None) -> None:
        self._finish_intervals()  # validation is about to reset the metrics

    def on_test_end(self, logs: Any = None) -> None:
        """Nothing: `on_epoch_end` writes these values, with the score of the translations."""

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if self.probes is not None:
            if self._pending is not None:
                self._draw()
            with self._timed("pictures"):
                self.probes.write_embedding(self._folder, self.model)
        self._events.close()
        if self.hparams is not None and self._folder is not None:
            # The results are the ends of the curves, already written.
            settings = {**sizes(self.model), **dict(self.hparams)}
            write_hparams(self.log_dir, settings, {}, self._update)
        whole = time.perf_counter() - self._begin
        shares = ", ".join(f"{t / whole:.1%} {name}" for name, t in self._seconds.items() if t)
        say(f"TensorBoard took {shares} of {whole:,.0f} s: {self.log_dir}")

    def finish(self, model: keras.Model) -> None:
        """Writes the embedding of a trained model, if a killed training left it out."""
        if self.probes is not None:
            if not processes.from_first(self.probes.has_embedding(self.log_dir)):
                self.probes.write_embedding(self._folder, model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._finish_intervals()
        values = {f"validation/{name}": value for name, value in validation_figures(logs).items()}
        if values:
            self._events.scalars(self._update, values)
        if self.probes is None:
            return
        first = self._pending is None and not self._drawn
        self._pending = self._update
        share = self._seconds["pictures"] / (time.perf_counter() - self._begin)
        if processes.from_first(first or share < self.picture_share):
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
        figures = self._meter.read(self.model)  # waits for the present step, as `fit` would
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

    @contextlib.contextmanager
    def _timed(self, name):
        start = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - start


def sizes(model: keras.Model) -> dict[str, Any]:
    """Returns the numbers, strings and booleans of a model's config, without its name."""
    try:
        config = model.get_config()
    except NotImplementedError:  # a subclass of keras.Model without one
        return {}
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, (bool, int, float, str)) and name not in ("name", "trainable")
    }
