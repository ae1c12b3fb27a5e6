"""What happens after a validation: translations are scored, the run is saved."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_transformer.callbacks.interval_meter import batches_per_update, count_updates
from keras_transformer.progress import passing


class TranslationScore(keras.callbacks.Callback):
    """Translates the validation sources after each validation and adds the score to the logs.

    A validation is the end of an epoch of `fit`. Translate the pairs that the validation loss
    counts, those of `kt.data.kept_pairs`.

    The callbacks that come later in the list, and the `History` that `fit` returns, see
    `logs[name]` and `logs[name + "_seconds"]`, the time of translating and scoring.

    Args:
        translate: Translates a list of strings with the model's present weights.
        sources: The strings to translate.
        references: One string per source.
        score: Maps hypotheses and references to a number, or to a dictionary of several numbers,
            which become `logs["val_" + key]`.
        every: Score after every n-th validation (the n-th, the 2n-th, ...).
        name: Key in the logs.
        samples: Called with `update` and the list of all `(source, reference, hypothesis)`.
        below: Nats per token. Nothing is translated while `logs["val_nats_per_token"]` is higher,
            because an untrained model writes noise up to the longest length, which takes long.
            None translates always.

    Example:

    >>> TranslationScore(translator.translate, sources, references, score=bleu, every=2)
    """

    def __init__(
        self,
        translate: Callable[[Sequence[str]], list[str]],
        sources: Sequence[str],
        references: Sequence[str],
        score: Callable[[list[str], Sequence[str]], float | Mapping[str, float]],
        every: int = 1,
        name: str = "val_bleu",
        samples: Callable[[int, list[tuple[str, str, str]]], Any] | None = None,
        below: float | None = None,
    ) -> None:
        super().__init__()
        if len(sources) != len(references):
            raise ValueError(
                f"Every source needs one reference. Got: {len(sources)} sources, "
                f"{len(references)} references. Are the two files aligned line by line?"
            )
        self.translate = translate
        self.sources = sources
        self.references = references
        self.score = score
        self.every = every
        self.name = name
        self.samples = samples
        self.below = below

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every:
            return
        if self.below is not None and not logs["val_nats_per_token"] <= self.below:
            return
        start = time.perf_counter()
        with passing():  # the validation has a line of its own
            hypotheses = self.translate(self.sources)
        scores = self.score(hypotheses, self.references)
        if isinstance(scores, Mapping):
            logs.update({f"val_{name}": float(value) for name, value in scores.items()})
        else:
            logs[self.name] = float(scores)
        logs[f"{self.name}_seconds"] = time.perf_counter() - start
        if self.samples:
            triples = list(zip(self.sources, self.references, hypotheses, strict=True))
            self.samples(count_updates(self.model.optimizer), triples)


class Checkpoints(keras.callbacks.Callback):
    """Calls `save(update, logs)` after every validation, at the end of an epoch of `fit`.

    Put it last in the list of callbacks, where `logs` is complete.

    `update` is the position in the data (`plan(seed, update)`) at which a resumed run continues. It
    is counted in batches, not read from the optimizer: an update that the loss scaling of float16
    skips has used up its batch all the same.

    Args:
        save: Called with the update and the logs. An error in it ends the training.
        first_update: Where in the data this call of `fit` begins.
        between: Called with the update before every update but the first, between two validations.
            It may save too, and end the training by an exception.

    Example:

    >>> Checkpoints(lambda update, logs: model.save_weights(f"{update}.weights.h5"))
    """

    def __init__(
        self,
        save: Callable[[int, Any], Any],
        first_update: int = 0,
        between: Callable[[int], Any] | None = None,
    ) -> None:
        super().__init__()
        self.save = save
        self.first_update = first_update
        self.between = between

    def on_train_begin(self, logs: Any = None) -> None:
        self._batches = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._batches_before = self._batches

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # Not `self.model`, which would fetch the whole state from JAX at every batch.
        done, rest = divmod(self._batches_before + batch, batches_per_update(self._model.optimizer))
        if self.between is not None and done and not rest:
            self.between(self.first_update + done)
        self._batches = self._batches_before + batch + self._model.steps_per_execution

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        updates = self._batches // batches_per_update(self.model.optimizer)
        self.save(self.first_update + updates, logs)
