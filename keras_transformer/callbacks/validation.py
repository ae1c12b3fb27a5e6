"""What happens after a validation: translations are scored, the run is saved."""

import time

import keras

from keras_transformer.callbacks.interval_meter import batches_per_update, count_updates
from keras_transformer.progress import passing


class TranslationScore(keras.callbacks.Callback):
    """Translates the validation sources after a validation and adds the score to the logs.

    That is at the end of what `fit` calls an epoch. Translate the pairs that the validation loss
    counts, those of `kt.data.kept_pairs`.

    `logs[name]` and `logs[name + "_seconds"]` (translating and scoring) are then seen by the
    callbacks that come later in the list and by the `History` that `fit` returns: Keras hands the
    same dict to all of them.

    Args:
        translate: Callable, list of str -> list of str, with the model's present weights.
        sources: List of str.
        references: List of str, one per source.
        score: Callable, (hypotheses, references) -> float, or a dictionary of several, which
            are then `logs["val_" + key]`.
        every: Score after every n-th validation (the n-th, the 2n-th, ...).
        name: Key in the logs.
        samples: Callable that gets `update` and a list with a `(source, reference, hypothesis)`
            for every source.
        below: Nats per token. Nothing is translated while `logs["val_nats_per_token"]` is higher:
            an untrained model writes noise up to the longest length, which takes long. None
            translates always.

    Example:

    >>> TranslationScore(translator.translate, sources, references, score=bleu, every=2)
    """

    def __init__(
        self,
        translate,
        sources,
        references,
        score,
        every=1,
        name="val_bleu",
        samples=None,
        below=None,
    ):
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

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        if self.below is not None and not logs["val_nats_per_token"] <= self.below:
            return
        start = time.perf_counter()
        with passing():  # the validation has a line of its own
            hypotheses = self.translate(self.sources)
        scores = self.score(hypotheses, self.references)
        if isinstance(scores, dict):
            logs.update({f"val_{name}": float(value) for name, value in scores.items()})
        else:
            logs[self.name] = float(scores)
        logs[f"{self.name}_seconds"] = time.perf_counter() - start
        if self.samples:
            triples = list(zip(self.sources, self.references, hypotheses, strict=True))
            self.samples(count_updates(self.model.optimizer), triples)


class Checkpoints(keras.callbacks.Callback):
    """Calls `save(update, logs)` after every validation, at the end of what `fit` calls an epoch.

    Put it last in the list of callbacks, where `logs` is complete.

    `update` is the position in the data (`plan(seed, update)`) where a resumed run goes on. It is
    counted in batches, not asked of the optimizer: an update that float16's loss scaling skips has
    used up its batch all the same.

    Args:
        save: Callable, (update, logs). An error in it ends the training.
        first_update: Where in the data this call of `fit` begins.

    Example:

    >>> Checkpoints(lambda update, logs: model.save_weights(f"{update}.weights.h5"))
    """

    def __init__(self, save, first_update=0):
        super().__init__()
        self.save = save
        self.first_update = first_update

    def on_train_begin(self, logs=None):
        self._batches = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._batches_before = self._batches

    def on_train_batch_begin(self, batch, logs=None):
        # `self.model` would bring the whole state back from JAX at every batch
        self._batches = self._batches_before + batch + self._model.steps_per_execution

    def on_epoch_end(self, epoch, logs=None):
        updates = self._batches // batches_per_update(self.model.optimizer)
        self.save(self.first_update + updates, logs)
