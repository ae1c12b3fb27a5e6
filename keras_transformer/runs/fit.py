"""The training loop, once: the command, every recipe and a script of your own call `run.fit`."""

import math
import time
from collections.abc import Sequence
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import keras

from keras_transformer import callbacks as kt_callbacks
from keras_transformer import evaluation
from keras_transformer.callbacks.interval_meter import batches_per_update
from keras_transformer.data import FeedMeter
from keras_transformer.decoding import Translator
from keras_transformer.files import write_lines
from keras_transformer.ops import processes
from keras_transformer.ops.memory import keep_freed_memory
from keras_transformer.progress import say
from keras_transformer.runs.settings import names_where
from keras_transformer.runs.signals import signals_noted

if TYPE_CHECKING:
    from keras_transformer.runs.run_directory import RunDirectory


def fit(
    run: "RunDirectory",
    model: keras.Model,
    plan: Any,
    *,
    updates: int,
    validate_every: int,
    validation: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    average: int = 0,
    keep_checkpoints: int = 10,
    log_every: int = 50,
    checkpoint_on_signal: bool = True,
) -> dict:
    """`model.fit` within a run directory: resumed, watched, saved.

    A run that was stopped, by Ctrl-C or a failure, continues at its last checkpoint, and ends with
    the same weights to the bit. The display, TensorBoard, checkpoints and the end of a training
    that diverges are there without being asked for.

    Args:
        run: The run, locked by `RunDirectory.start`.
        model: A compiled model. If it shall be resumed to the bit, build it after
            `keras.utils.set_random_seed`.
        plan: Where the data comes from, such as a `kt.data.BatchPlan`: `plan.dataset(update,
            meter)` is an endless dataset that begins at that update. It may ignore the meter, a
            `kt.data.FeedMeter` of padding and waiting.
        updates: Length of the training, rounded up to whole validations.
        validate_every: Updates between two validations; each is followed by a checkpoint.
        validation: What `model.evaluate` takes, such as `plan.evaluation(encoded)`.
        callbacks: More of them, called before the display, which shows what they add to the logs.
            A `TensorBoard` replaces the default one. A `StopEarly` is saved and resumed with the
            run, and its best checkpoint is kept. A `TranslationScore` has its samples written to
            TensorBoard and to `RUN/samples`.
        average: Number of checkpoints to average at the end, the last ones of the second half; 0
            for none. With `validation`, the better of average and last weights is the default.
        keep_checkpoints: How many checkpoints are kept.
        log_every: Updates between two lines of the display and of `log.jsonl`.
        checkpoint_on_signal: Whether SIGTERM and SIGHUP, which schedulers and closed terminals
            send, save the present update before the process ends with status 128 + the signal's
            number. Only in the main thread.

    Returns:
        The state of the last checkpoint: `"update"`, `"seconds"` of training over all starts,
        `"logs"` of the last validation, and of a `StopEarly` its `"scores"` and `"best_update"`.

    Example:

    ```python
    with kt.RunDirectory.start("runs/mine", {"seed": 1}) as run:
        tokenizer.save(run.path / "tokenizer.model")
        run.fit(model, plan, updates=5000, validate_every=500, validation=plan.evaluation(valid))
    ```
    """
    keep_freed_memory()
    meter = FeedMeter()
    board = _first(callbacks, kt_callbacks.TensorBoard) or kt_callbacks.TensorBoard(
        str(run.path), log_every, hparams=_hparams(run)
    )
    board.meter = meter
    stop = _first(callbacks, kt_callbacks.StopEarly)
    score = _first(callbacks, kt_callbacks.TranslationScore)
    state: dict[str, Any] = {"update": 0, "seconds": 0.0}
    checkpoint = _newest(run)
    if checkpoint is not None:
        state |= run.restore(model, checkpoint)
        if "keep_checkpoints" in state:  # killed between the last save and this
            run.prune(state["keep_checkpoints"])
    update, seconds_before = state["update"], state["seconds"]
    run.truncate_log(update)
    if stop is not None:
        if state.get("monitor", stop.monitor) != stop.monitor:
            say(f"early stopping begins anew: until now it watched {state['monitor']}")
            state.update(scores=[], best_update=None)
        stop.state = state.get("scores", [])
    validations = math.ceil(updates / validate_every)
    if update >= validations * validate_every or (stop is not None and stop.finished):
        more = "raise updates to continue"
        if stop is not None and stop.finished:
            more = "stopped early; to continue, raise patience or train without early stopping"
        say(f"{run.path}: trained already, {update:,} updates: {more}.")
        board.finish(model)
        _average_late(run, model, validation, average)
        return state
    if update:
        say(f"resuming at update {update:,}")

    start = time.perf_counter()

    def note(update):
        seconds = seconds_before + time.perf_counter() - start
        state.update(update=update, seconds=seconds, keep_checkpoints=keep_checkpoints)

    def save(update, logs):
        note(update)
        state["logs"] = dict(logs)
        if stop is not None:
            best = stop.best and stop.best["update"]
            state.update(scores=stop.state, best_update=best, monitor=stop.monitor)
        run.save_checkpoint(model, update, state)
        run.prune(keep_checkpoints)

    if score is not None and score.samples is None:
        score.samples = _sample_writer(run, board)
    own = [each for each in callbacks if each not in (board, stop)]

    def end(signal):
        say(f"{signal.name}: saved update {state['update']:,}; the same command continues there")
        processes.wait_for_all()  # until the first process has saved
        raise SystemExit(128 + signal)

    def train(update, updates, signals, *more):
        """Trains from this update on, with a validation after each `updates`."""

        def between(update):
            if processes.asked_to_stop(update):
                signals.append(SIGTERM)
            if signals:
                note(update)
                run.save_between(model, update, state)
                end(signals[0])

        model.fit(
            plan.dataset(update, meter),
            validation_data=validation,
            epochs=validations,
            initial_epoch=update // validate_every,
            steps_per_epoch=updates * batches_per_update(model.optimizer),
            shuffle=False,
            verbose=0,
            callbacks=[
                kt_callbacks.StopOnNonFinite(every=log_every),
                *own,
                kt_callbacks.Progress(
                    validations * validate_every, log_every, log=run.append_log, meter=meter
                ),
                board,
                *([stop] if stop is not None else []),
                kt_callbacks.Checkpoints(save, update, between),
                *more,
            ],
        )

    def end_after_validation(*_):
        model.stop_training = True

    with signals_noted(checkpoint_on_signal) as signals:
        if update % validate_every:  # a signal ended it between two validations
            rest = validate_every - update % validate_every
            once = keras.callbacks.LambdaCallback(on_epoch_end=end_after_validation)
            train(update, rest, signals, once)
            update += rest
        if update < validations * validate_every and not (stop is not None and stop.finished):
            train(update, validate_every, signals)
        if signals:  # after the last update
            end(signals[0])
    processes.wait_for_all()
    _average_late(run, model, validation, average)
    return state


def translation_score(
    translator: Translator,
    pairs: Sequence[tuple[str, str]],
    tokenize: str = "13a",
    every: int = 1,
    below: float | None = None,
    batch_size: int = 64,
) -> kt_callbacks.TranslationScore:
    """A callback for `fit`: greedy translations at each validation, scored by BLEU and chrF.

    Args:
        translator: The `Translator` of the model that is trained.
        pairs: `(source, reference)` strings, such as `kt.data.kept_pairs(valid, tokenizer)`.
        tokenize: sacreBLEU's tokenizer.
        every: Translate after every n-th validation.
        below: Translate nothing while the validation loss is higher, in nats per token.
        batch_size: Sentences that are translated at once.

    Example:

    >>> score = translation_score(translator, pairs, every=2)
    >>> run.fit(model, plan, updates=5000, validate_every=500, callbacks=[score])
    """

    def translate(lines):
        return translator.translate(lines, beam_size=1, batch_size=batch_size)

    def scores(hypotheses, references):
        bleu = evaluation.bleu(hypotheses, references, tokenize=tokenize)
        return {"bleu": bleu.value, "chrf": evaluation.chrf(hypotheses, references).value}

    sources, references = zip(*pairs, strict=True)
    return kt_callbacks.TranslationScore(
        translate, sources, references, scores, every=every, below=below
    )


def _newest(run):
    """The checkpoint where all processes of a training continue, or None."""
    found = run.newest()
    here = found and found.update
    there = processes.from_first(here)
    if here != there:
        raise ValueError(
            f"{run.path}: the newest checkpoint of this process is of update {here}, that of the "
            f"first process of update {there}. Give a run on a file system that all share."
        )
    return found


def _first(callbacks, kind):
    return next((each for each in callbacks if isinstance(each, kind)), None)


def _hparams(run):
    """The settings that TensorBoard's HParams table shows, as far as the run has them."""
    found = {name: run.settings.get(name) for name in names_where(hparam=True)}
    return {name: value for name, value in found.items() if value is not None}


def _sample_writer(run, board):
    """Keeps translations of fixed sentences in TensorBoard and in `RUN/samples`."""

    def write(update, triples):
        if not run.writes:
            return
        board.samples(update, triples)
        (run.path / "samples").mkdir(exist_ok=True)
        names = ("source", "reference", "translation")
        lines = []
        for triple in triples[:8]:
            lines += [f"{name}: {line}" for name, line in zip(names, triple, strict=True)] + [""]
        write_lines(run.path / "samples" / f"update-{update:08}.txt", lines[:-1])

    return write


def _average_late(run, model, validation, count):
    """Averages the last `count` checkpoints of the second half.

    Earlier weights would pull the average of a short run back.
    """
    if not count:
        return
    complete = run.checkpoints()
    late = [each for each in complete if 2 * each.update >= complete[-1].update][-count:]
    if len(late) > 1:
        compared = () if validation is None else (model, validation)
        run.save_average(late, *compared)
