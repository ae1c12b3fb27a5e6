"""Trains a Transformer on parallel text: what `keras-transformer train` does."""

import math
from pathlib import Path

from keras_transformer import callbacks, data, evaluation
from keras_transformer.data.report import report_of
from keras_transformer.decoding import Translator
from keras_transformer.files import write_json, write_lines
from keras_transformer.models.presets import PRESETS, label_smoothing
from keras_transformer.ops import backend, processes
from keras_transformer.ops.memory import keep_freed_memory, training_step_bytes
from keras_transformer.ops.processes import join_processes
from keras_transformer.progress import say
from keras_transformer.runs import prepare
from keras_transformer.runs.checkpoints import load_weights
from keras_transformer.runs.derivation import loss_worth_translating, with_derived, with_recorded
from keras_transformer.runs.fine_tune import VOCABULARY, start_from
from keras_transformer.runs.fit import translation_score
from keras_transformer.runs.loading import load_translator
from keras_transformer.runs.reading import Text, read_text
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.runs.settings import TrainSettings, names_where

# What a vocabulary is made from.
VOCABULARY_FROM = ("text_sha256", "init_sha256", "vocabulary_sample", *VOCABULARY)


def train(settings: TrainSettings) -> RunDirectory:
    """Trains a `Transformer` on parallel text, or continues a training that was stopped.

    Does what `keras-transformer train` does with the options of the same names. The run directory
    gets all that is needed to translate, resume and reproduce.

    Args:
        settings: The options. Those that are None follow from the size of the text.

    Returns:
        The run: `kt.load_translator(run.path)` translates with it.

    Raises:
        ValueError: For options or text that do not fit, or a folder that holds something else.
        MemoryError: If a batch is too large; says which option to lower.

    Example:

    ```python
    run = kt.runs.train(kt.runs.TrainSettings(train_tsv="pairs.tsv", hold_out=50, run_dir="r"))
    kt.load_translator(run.path).translate(["A man rides a horse."])
    ```
    """
    keep_freed_memory()
    with join_processes(settings.processes, settings.coordinator, settings.process):
        return _train(settings)


def _train(settings):
    pairs, initial, settings, derived = _read(settings)
    processes.wait_for_all()  # until all have read, before the first one writes into the run
    record = {
        **settings.record(),
        "backend": backend.name(),
        "text_sha256": pairs.sha256,
    }
    if initial is None:  # runs without them are older than these options
        del record["init_from"], record["init_weights"]
    else:
        record["init_sha256"] = initial.digest()
    changeable = names_where(changeable=True)
    with RunDirectory.start(settings.run_dir, record, changeable, VOCABULARY_FROM) as run:
        if derived:
            say(derived)
        if settings.hold_out and run.writes:
            names = (f"held_out.{side}.txt" for side in ("source", "target"))
            data.write_parallel(pairs.valid, *(run.path / name for name in names))
        with processes.first_process_first():
            initial = initial and initial.keep(run.path)
        ready = prepare.prepare(settings, pairs, run.path, initial, "vocabulary-size" in derived)
        report = describe(settings, pairs, ready)
        say(report)
        if run.writes:
            write_lines(run.path / "report.txt", [report])
            write_json(run.path / "resolved.json", resolved(ready))
        fit(settings, ready, run, log_start=initial is not None)
        finish(settings, ready, run)
    return run


def dry_run(settings: TrainSettings) -> str:
    """The report on data, model, shapes and memory. Writes nothing."""
    pairs, initial, settings, derived = _read(settings)
    if derived:
        say(derived)
    ready = prepare.prepare(settings, pairs, None, initial, "vocabulary-size" in derived)
    return describe(settings, pairs, ready)


def _read(settings):
    """The text, what to start from, the settings without gaps, and what was derived, in words."""
    settings.refuse_ignored()
    settings = with_recorded(with_smoothing(settings))
    pairs = read_text(settings, Path(settings.run_dir) / "ids")
    initial, settings = start_from(settings)
    chosen = settings.d_model or PRESETS[settings.preset or "tiny"]["d_model"]
    d_model = initial.architecture()["d_model"] if initial else chosen
    return pairs, initial, *with_derived(settings, pairs, d_model)


def with_smoothing(settings: TrainSettings) -> TrainSettings:
    """The settings with the label smoothing of their preset, unless they have another."""
    if settings.preset is not None and settings.preset not in PRESETS:
        raise ValueError(
            f"--preset {settings.preset}: expected one of {', '.join(PRESETS)}. Choose one."
        )
    if settings.label_smoothing is not None:
        return settings
    return settings.changed(label_smoothing=label_smoothing(settings.preset or "tiny"))


def resolved(ready: prepare.Prepared) -> dict:
    """What the options left open, as it came out."""
    return {
        "jit_compile": ready.model.jit_compile,
        "shapes": "static" if ready.plan.static else "dynamic",
        "validate_every": ready.validate_every,
        "updates": ready.updates,
        "vocabulary_sizes": [
            ready.tokenizer.vocabulary_size,
            ready.target_tokenizer.vocabulary_size,
        ],
        "parameters": ready.model.count_params(),
        "model": ready.model.get_config(),
    }


def describe(settings: TrainSettings, pairs: Text, ready: prepare.Prepared) -> str:
    """The report before training: text, batches, model, memory."""
    shapes = ready.plan.shapes()
    rows, source, target = _largest(shapes)
    if len(shapes) > 16:
        listed = f"{shapes[0]} ... {shapes[-1]}"
    else:
        listed = ", ".join(map(str, shapes))
    return (
        f"{report_of(pairs.survey, ready.train)}\n"
        f"{ready.plan.summary()}\n"
        f"shapes (rows, source, target): {listed}\n"
        f"model: {ready.model.count_params():,} parameters, {_trained(ready.model)}"
        f"vocabulary {ready.tokenizer.vocabulary_size:,}, "
        f"jit_compile={ready.model.jit_compile}, {settings.precision}\n"
        f"memory: about {training_step_bytes(ready.model, shapes) / 2**20:,.0f} MiB at the largest "
        f"batch, {rows} x {source} x {target}\n"
        f"{ready.updates:,} updates, {ready.updates / ready.plan.updates_per_epoch:,.1f} epochs "
        f"(passes over the text); validation and checkpoint every {ready.validate_every:,} updates"
    )


def fit(
    settings: TrainSettings, ready: prepare.Prepared, run: RunDirectory, log_start: bool
) -> None:
    """`run.fit` with what the settings ask for."""
    if log_start and run.newest() is None:
        run.truncate_log(0)
        _log_start(ready, run)
    translator = Translator(ready.model, ready.tokenizer, ready.target_tokenizer)
    below = None if settings.bleu_every else loss_worth_translating(ready.train)
    probes = callbacks.Probes(ready.scored[:2], ready.tokenizer, ready.target_tokenizer)
    hparams = settings.given(names_where(hparam=True))
    listeners = [
        translation_score(
            translator, ready.scored, settings.tokenize, settings.bleu_every or 1, below
        ),
        callbacks.TensorBoard(str(run.path), settings.log_every, probes, hparams=hparams),
    ]
    if settings.stop_early is not None:
        watched = {"bleu": ("val_bleu", "max"), "loss": ("val_nats_per_token", "min")}
        listeners.append(callbacks.StopEarly(*watched[settings.stop_early], settings.patience))
    try:
        run.fit(
            ready.model,
            ready.plan,
            updates=ready.updates,
            validate_every=ready.validate_every,
            validation=ready.validation,
            callbacks=listeners,
            average=settings.average,
            keep_checkpoints=settings.keep_checkpoints,
            log_every=settings.log_every,
            checkpoint_on_signal=settings.checkpoint_on_signal == "on",
        )
    except Exception as error:
        if _is_out_of_memory(error):
            raise MemoryError(_out_of_memory(settings, ready)) from error
        raise


def finish(settings: TrainSettings, ready: prepare.Prepared, run: RunDirectory) -> None:
    """Scores the result on the validation text, and says what the run holds."""
    translator = load_translator(run.path)
    sources, references = zip(*ready.scored, strict=True)
    hypotheses = translator.translate(sources, beam_size=1)
    score = evaluation.bleu(hypotheses, references, tokenize=settings.tokenize)
    say(
        f"validation BLEU (weights: {translator.weights}), greedy: {score.value:.2f}  "
        f"{score.signature}"
    )
    complete = run.checkpoints()
    end = {"event": "end", "update": complete[-1].update}
    end |= {"validation_bleu": score.value, "signature": score.signature}
    if end not in run.read_log():  # the same command again
        run.append_log(end)
    if settings.lora_rank is not None:
        load_weights(ready.model, run.weights_file())
        if run.writes:
            ready.model.save_adapter(run.path / "adapter.npz")
    written = ["adapter.npz"] * (settings.lora_rank is not None)
    written += ["averaged.npz"] * (run.path / "averaged.npz").exists()
    written += [f"{len(complete)} checkpoint(s)", "report.txt", "samples", "log.jsonl"]
    say(f"in {run.path}: {', '.join(written)}, and what TensorBoard shows")


def _log_start(ready, run):
    """What the weights of another run are worth on this run's validation text."""
    scores = ready.model.evaluate(ready.validation, verbose=0, return_dict=True)
    say(f"before the first update: {scores['nats_per_token']:.4f} nats per token in validation")
    start = {"event": "start", "update": 0} | {f"val_{k}": v for k, v in scores.items()}
    if start not in run.read_log():  # killed before the first checkpoint and started again
        run.append_log(start)


def _trained(model):
    """With adapters: how many of the parameters are trained."""
    count = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return "" if count == model.count_params() else f"{count:,} of them trained, "


def _largest(shapes):
    return max(shapes, key=lambda shape: shape[0] * shape[1] * shape[2])


def _is_out_of_memory(error):
    words = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OutOfMemory", "out of memory", "OOM when")
    return isinstance(error, MemoryError) or any(
        word in f"{type(error).__name__}: {error}" for word in words
    )


def _out_of_memory(settings, ready):
    rows, source, target = _largest(ready.plan.shapes())
    budget, accumulate = settings.tokens_per_batch, settings.accumulate
    return (
        f"Out of memory: the largest batch is {rows} rows x {source} source x {target} target "
        f"positions (--tokens-per-batch {budget}). Try --tokens-per-batch {budget // 2} "
        f"--accumulate {2 * accumulate} in a new --run-dir: the updates stay as large."
    )
