"""What `keras-transformer train` does, step by step, with the package's public parts."""

from pathlib import Path

from keras_transformer import callbacks, data, evaluation
from keras_transformer.decoding.translator import Translator
from keras_transformer.files import replacing, write_json
from keras_transformer.models.presets import PRESETS
from keras_transformer.ops.memory import training_step_bytes
from keras_transformer.progress import say
from keras_transformer.runs.derivation import loss_worth_translating, with_derived, with_recorded
from keras_transformer.runs.fine_tune import VOCABULARY, start_from
from keras_transformer.runs.prepare import prepare, read_text
from keras_transformer.runs.run_directory import RunDirectory

# What may differ when a run is resumed: none of it changes an update that was already made.
# Run and text may also be moved: "text_sha256" says that the text is the same, and "init_sha256"
# the weights of --init-from.
CHANGEABLE = (
    *("train_source", "train_target", "train_tsv", "valid_source", "valid_target", "valid_tsv"),
    *("source_column", "target_column", "init_from"),
    "updates",
    "log_every",
    "stop_early",
    "patience",
    "keep_checkpoints",
    "average",
    "run_dir",
)
# What a vocabulary is made from.
VOCABULARY_FROM = ("text_sha256", "init_sha256", *VOCABULARY)
# What TensorBoard's HParams table shows beside the model's own sizes.
HPARAMS = (
    "preset",
    "learning_rate",
    "warmup_steps",
    "label_smoothing",
    "tokens_per_batch",
    "accumulate",
    "clip_norm",
    "subword_sampling",
    "precision",
    "seed",
)


def train(settings):
    """Trains, or goes on training, in `settings["run_dir"]`; see the command's help."""
    pairs, initial, settings, derived = _read(settings)
    settings = {**settings, "text_sha256": data.text_sha256(*pairs)}
    with RunDirectory.start(
        settings["run_dir"], settings, CHANGEABLE, vocabulary_from=VOCABULARY_FROM
    ) as run:
        if derived:
            say(derived)
        if settings["hold_out"]:
            names = (f"held_out.{side}.txt" for side in ("source", "target"))
            data.write_parallel(pairs.valid, *(run.path / name for name in names))
        initial = initial and initial.keep(run.path)
        ready = prepare(settings, pairs, run.path, initial, "vocabulary-size" in derived)
        _write_lines(run.path / "report.txt", [describe(settings, pairs, ready)])
        say((run.path / "report.txt").read_text(encoding="utf-8"))
        write_json(run.path / "resolved.json", resolved(settings, ready))
        fit(settings, pairs, ready, run)
        finish(settings, pairs, ready, run)


def dry_run(settings):
    """The report on data, model, shapes and memory, as text. Writes nothing."""
    pairs, initial, settings, derived = _read(settings)
    if derived:
        say(derived)
    ready = prepare(settings, pairs, None, initial, "vocabulary-size" in derived)
    return describe(settings, pairs, ready)


def _read(settings):
    """The text, what to start from, the settings without gaps, and what was derived, in words."""
    settings = with_recorded(settings)
    pairs = read_text(settings)
    initial, settings = start_from(settings)
    chosen = settings["d_model"] or PRESETS[settings["preset"] or "tiny"]["d_model"]
    d_model = initial.architecture()["d_model"] if initial else chosen
    return pairs, initial, *with_derived(settings, pairs.train, d_model)


def resolved(settings, ready):
    """What the options left open, as it came out."""
    return {
        "jit_compile": ready.model.jit_compile,
        "shapes": "static" if ready.plan.static else "dynamic",
        "validate_every": ready.validate_every,
        "updates": ready.validations * ready.validate_every,
        "vocabulary_sizes": [
            ready.tokenizer.vocabulary_size,
            ready.target_tokenizer.vocabulary_size,
        ],
        "parameters": ready.model.count_params(),
        "model": ready.model.get_config(),
    }


def describe(settings, pairs, ready):
    """The report before training: text, batches, model, memory."""
    shapes = ready.plan.shapes()
    rows, source, target = max(shapes, key=lambda shape: shape[0] * shape[1] * shape[2])
    if len(shapes) > 16:
        listed = f"{shapes[0]} ... {shapes[-1]}"
    else:
        listed = ", ".join(map(str, shapes))
    updates = ready.validations * ready.validate_every
    return (
        f"{data.report(pairs.train, ready.train, pairs.valid)}\n"
        f"{ready.plan.summary()}\n"
        f"shapes (rows, source, target): {listed}\n"
        f"model: {ready.model.count_params():,} parameters, "
        f"vocabulary {ready.tokenizer.vocabulary_size:,}, "
        f"jit_compile={ready.model.jit_compile}, {settings['precision']}\n"
        f"memory: about {training_step_bytes(ready.model, shapes) / 2**20:,.0f} MiB at the largest "
        f"batch, {rows} x {source} x {target}\n"
        f"{updates:,} updates, {updates / ready.plan.updates_per_epoch:,.1f} epochs (passes over "
        f"the text); validation and checkpoint every {ready.validate_every:,} updates"
    )


def fit(settings, pairs, ready, run):
    """`model.fit`, from the last checkpoint on."""
    model, update, scores = ready.model, 0, []
    checkpoint = run.latest_checkpoint()
    if checkpoint is not None:
        state = run.restore(model, checkpoint)
        update, scores = state["update"], state["scores"]
        say(f"resuming at update {update:,}")
    run.truncate_log(update)
    if checkpoint is None and "init_from" in settings:
        _log_start(ready, run)
    stop = _early_stopping(settings, scores)
    total = ready.validations * ready.validate_every
    if update >= total or stop is not None and stop.finished:
        say(f"trained already, {update:,} updates: raise --updates to go on.")
        return

    translator = Translator(model, ready.tokenizer, ready.target_tokenizer)
    sources, references = zip(*ready.scored, strict=True)

    def translate(lines):
        return translator.translate(lines, beam_size=1)

    def scores_of(hypotheses, references):
        bleu = evaluation.bleu(hypotheses, references, tokenize=settings["tokenize"])
        return {"bleu": bleu.value, "chrf": evaluation.chrf(hypotheses, references).value}

    board = callbacks.TensorBoard(
        str(run.path),
        settings["log_every"],
        callbacks.Probes(ready.scored[:2], ready.tokenizer, ready.target_tokenizer),
        hparams={name: settings[name] for name in HPARAMS if settings[name] is not None},
    )

    def keep_samples(update, triples):
        board.samples(update, triples)
        names = ("source", "reference", "translation")
        blocks = [
            "\n".join(f"{name}: {line}" for name, line in zip(names, triple, strict=True))
            for triple in triples[:8]
        ]
        (run.path / "samples").mkdir(exist_ok=True)
        _write_lines(
            run.path / "samples" / f"update-{update:08}.txt", "\n\n".join(blocks).split("\n")
        )

    def save(update, logs):
        state = {"update": update, "scores": [], "logs": logs}
        if stop is not None:
            state |= {"scores": stop.state, "best_update": stop.best and stop.best["update"]}
        run.save_checkpoint(model, update, state)
        run.prune(settings["keep_checkpoints"])

    listeners = [
        callbacks.StopOnNonFinite(every=settings["log_every"]),
        callbacks.TranslationScore(
            translate,
            sources,
            references,
            scores_of,
            settings["bleu_every"] or 1,
            samples=keep_samples,
            below=None if settings["bleu_every"] else loss_worth_translating(ready.train),
        ),
        callbacks.Progress(total, settings["log_every"], log=run.append_log),
        board,
        *([stop] if stop is not None else []),
        callbacks.Checkpoints(save, update),
    ]
    try:
        model.fit(
            ready.plan.dataset(update),
            validation_data=ready.validation,
            epochs=ready.validations,
            initial_epoch=update // ready.validate_every,
            steps_per_epoch=ready.validate_every * settings["accumulate"],
            shuffle=False,
            verbose=0,
            callbacks=listeners,
        )
    except Exception as error:
        if _is_out_of_memory(error):
            raise MemoryError(_out_of_memory(settings, ready)) from error
        raise


def _log_start(ready, run):
    """What the weights of another run are worth on this run's validation text."""
    scores = ready.model.evaluate(ready.validation, verbose=0, return_dict=True)
    say(f"before the first update: {scores['nats_per_token']:.4f} nats per token in validation")
    start = {"event": "start", "update": 0} | {f"val_{k}": v for k, v in scores.items()}
    if start not in run.read_log():  # killed before the first checkpoint and started again
        run.append_log(start)


def _early_stopping(settings, scores):
    if settings["stop_early"] is None:
        return None
    monitor, mode = {"bleu": ("val_bleu", "max"), "loss": ("val_nats_per_token", "min")}[
        settings["stop_early"]
    ]
    return callbacks.StopEarly(monitor, mode, settings["patience"], scores)


def _is_out_of_memory(error):
    words = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OutOfMemory", "out of memory", "OOM when")
    return isinstance(error, MemoryError) or any(
        word in f"{type(error).__name__}: {error}" for word in words
    )


def _out_of_memory(settings, ready):
    shape = max(ready.plan.shapes(), key=lambda shape: shape[0] * shape[1] * shape[2])
    budget, accumulate = settings["tokens_per_batch"], settings["accumulate"]
    return (
        f"Out of memory: the largest batch is {shape[0]} rows x {shape[1]} source x {shape[2]} "
        f"target positions (--tokens-per-batch {budget}). Try --tokens-per-batch {budget // 2} "
        f"--accumulate {2 * accumulate} in a new --run-dir: the updates stay as large."
    )


def finish(settings, pairs, ready, run):
    """Averages the last checkpoints and scores the result on the validation text."""
    complete = run.checkpoints()
    # Early weights would pull a short run's average back.
    late = [each for each in complete if 2 * each.update >= complete[-1].update]
    checkpoints = late[-settings["average"] :] if settings["average"] else []
    if len(checkpoints) > 1:
        run.save_average(checkpoints, ready.model, ready.validation)
    translator = Translator.load(run.path)
    sources, references = zip(*ready.scored, strict=True)
    hypotheses = translator.translate(sources, beam_size=1)
    score = evaluation.bleu(hypotheses, references, tokenize=settings["tokenize"])
    say(
        f"validation BLEU (weights: {translator.weights}), greedy: {score.value:.2f}  "
        f"{score.signature}"
    )
    end = {"event": "end", "update": complete[-1].update}
    end |= {"validation_bleu": score.value, "signature": score.signature}
    if end not in run.read_log():  # the same command again
        run.append_log(end)
    written = ["averaged.npz"] * (run.path / "averaged.npz").exists()
    written += [f"{len(complete)} checkpoint(s)", "report.txt", "samples", "log.jsonl"]
    say(f"in {run.path}: {', '.join(written)}, and what TensorBoard shows")


def _write_lines(path, lines):
    with replacing(Path(path)) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
