"""What `keras-transformer train` does, step by step, with the package's public parts."""

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_transformer import callbacks, data, evaluation, losses, metrics, models, text
from keras_transformer.checkpoint_files import replacing, write_json
from keras_transformer.checkpoints import RunDirectory
from keras_transformer.optimizers import LossScale, PaperAdam
from keras_transformer.schedules import PaperSchedule
from keras_transformer.translator import Translator

# What may differ when a run is resumed: none of it changes an update that was already made.
CHANGEABLE = ("updates", "log_every", "stop_early", "patience", "keep_checkpoints", "average")


class Text(NamedTuple):
    """Pairs of strings to train on and to validate with."""

    train: list
    valid: list


class Prepared(NamedTuple):
    """Everything up to `fit`."""

    tokenizer: text.Tokenizer
    target_tokenizer: text.Tokenizer
    train: data.EncodedPairs
    plan: data.BatchPlan
    validation: object
    model: keras.Model
    validate_every: int  # updates
    epochs: int  # validations


def train(settings):
    """Trains, or goes on training, in `settings["run_dir"]`; see the command's help."""
    pairs = read_text(settings)
    settings = {**settings, "text_sha256": _digest(pairs)}
    with RunDirectory.start(settings["run_dir"], settings, CHANGEABLE) as run:
        if settings["hold_out"]:
            _write_lines(run.path / "held_out.tsv", ("\t".join(pair) for pair in pairs.valid))
        ready = prepare(settings, pairs, run.path)
        _write_lines(run.path / "report.txt", [describe(settings, pairs, ready)])
        say((run.path / "report.txt").read_text(encoding="utf-8"))
        write_json(run.path / "resolved.json", resolved(settings, ready))
        fit(settings, pairs, ready, run)
        finish(settings, pairs, ready, run)


def dry_run(settings):
    """The report on data, model, shapes and memory, as text. Writes nothing."""
    pairs = read_text(settings)
    return describe(settings, pairs, prepare(settings, pairs))


def read_text(settings):
    """Reads and checks the files that the settings name, before anything is written."""
    evaluation.bleu(["a"], ["a"], tokenize=settings["tokenize"])  # fails now, not in an hour
    train_pairs = _read_side(settings, "train")
    if train_pairs is None:
        raise ValueError(
            "Nothing to train on: give --train-source and --train-target, or --train-tsv."
        )
    valid_pairs = _read_side(settings, "valid")
    if valid_pairs is None:
        if not settings["hold_out"]:
            raise ValueError(
                "Nothing to validate with: give --valid-source and --valid-target, --valid-tsv, or "
                "--hold-out N."
            )
        return _hold_out(train_pairs, settings["hold_out"], settings["seed"])
    if settings["hold_out"]:
        raise ValueError("Give either validation files or --hold-out, not both.")
    return Text(train_pairs, valid_pairs)


def _read_side(settings, name):
    source, target, tsv = (settings[f"{name}_{part}"] for part in ("source", "target", "tsv"))
    if tsv and (source or target):
        raise ValueError(f"Give either --{name}-tsv, or --{name}-source and --{name}-target.")
    if bool(source) != bool(target):
        raise ValueError(f"--{name}-source and --{name}-target go together.")
    if tsv:
        return data.read_tsv(tsv, settings["source_column"], settings["target_column"])
    return data.read_parallel(source, target) if source else None


def _hold_out(pairs, count, seed):
    """Splits by source, so that no held-out sentence is trained on in another translation."""
    sources = list(dict.fromkeys(source for source, _ in pairs))
    if count >= len(sources):
        raise ValueError(
            f"--hold-out {count} leaves nothing to train on: there are {len(sources)} different "
            "sources."
        )
    chosen = np.random.default_rng(seed).choice(len(sources), count, replace=False)
    held_out = {sources[i] for i in chosen}
    return Text(
        [pair for pair in pairs if pair[0] not in held_out],
        [pair for pair in pairs if pair[0] in held_out],
    )


def prepare(settings, pairs, folder=None):
    """Vocabulary, ids, batches and model; what can be kept is kept in `folder`."""
    keras.config.set_dtype_policy(
        {"float32": "float32"}.get(settings["precision"], f"mixed_{settings['precision']}")
    )
    tokenizer, target_tokenizer = tokenizers(settings, pairs, folder)
    encoded = []
    for name, chosen in (("train", pairs.train), ("valid", pairs.valid)):
        cache = None
        if folder is not None:
            (folder / "ids").mkdir(exist_ok=True)
            cache = folder / "ids" / f"{name}.npz"
        limit = settings["max_length"]
        encoded.append(data.encode_pairs(chosen, tokenizer, target_tokenizer, limit, cache))
    train_ids, valid_ids = encoded
    if folder is not None:
        with replacing(folder / "seen_ids.npy") as file:
            np.save(file, tokenizer.seen_ids([train_ids.source_ids]))

    shapes = settings["shapes"]
    if shapes == "auto" and settings["jit"] != "auto":
        shapes = {"on": "static", "off": "dynamic"}[settings["jit"]]
    plan = data.BatchPlan(
        train_ids,
        settings["tokens_per_batch"],
        seed=settings["seed"],
        shapes=shapes,
        accumulate=settings["accumulate"],
    )
    per_pass = min(max(round(plan.updates_per_epoch), 100), 1000)
    validate_every = min(settings["validate_every"] or per_pass, settings["updates"])

    # Seeded here, so that model and dropout are those of a recipe that does the same.
    keras.utils.set_random_seed(settings["seed"])
    if settings["deterministic"] and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    model = build_model(settings, tokenizer, target_tokenizer)
    compile_model(model, settings)
    return Prepared(
        tokenizer,
        target_tokenizer,
        train_ids,
        plan,
        plan.evaluation(valid_ids),
        model,
        validate_every,
        math.ceil(settings["updates"] / validate_every),
    )


def tokenizers(settings, pairs, folder):
    """The vocabularies of both sides: those of the run, or newly trained ones."""
    options = {
        "vocabulary_size": settings["vocabulary_size"],
        "model_type": settings["vocabulary_type"],
        "normalization": settings["normalization"],
    }
    if not settings["separate_vocabularies"]:
        shared = _tokenizer("tokenizer", pairs.train, options, folder)
        return shared, shared
    sides = zip(*pairs.train, strict=True)
    return tuple(
        _tokenizer(name, side, options, folder)
        for name, side in zip(("source", "target"), sides, strict=True)
    )


def _tokenizer(name, lines, options, folder):
    path = folder and folder / f"{name}.model"
    if path and path.exists():
        return text.Tokenizer.load(path)
    size, kind = options["vocabulary_size"], options["model_type"]
    say(f"training a {kind} vocabulary of {size:,} pieces ...")
    tokenizer = text.train_tokenizer(lines, **options)
    if path:
        tokenizer.save(path)
    return tokenizer


def build_model(settings, tokenizer, target_tokenizer):
    names = ("num_layers", "d_model", "num_heads", "d_ff", "dropout", "attention_dropout", "norm")
    overrides = {name: settings[name] for name in names if settings[name] is not None}
    if settings["separate_vocabularies"]:
        overrides["target_vocabulary_size"] = target_tokenizer.vocabulary_size()
    return models.Transformer.from_preset(
        settings["preset"], tokenizer.vocabulary_size(), **overrides
    )


def compile_model(model, settings):
    warmup, peak = settings["warmup_steps"], settings["learning_rate"]
    d_model = model.target_embedding.d_model
    optimizer = PaperAdam(
        learning_rate=PaperSchedule.with_peak(peak, warmup)
        if peak
        else PaperSchedule(d_model, warmup),
        global_clipnorm=settings["clip_norm"],
        # Keras takes None for no accumulation, and at least 2.
        gradient_accumulation_steps=settings["accumulate"] if settings["accumulate"] > 1 else None,
    )
    if settings["precision"] == "float16":
        optimizer = LossScale(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=losses.SmoothedCrossentropy(settings["label_smoothing"]),
        weighted_metrics=[metrics.NatsPerToken(), metrics.TokenAccuracy()],
        jit_compile={"auto": "auto", "on": True, "off": False}[settings["jit"]],
    )


def resolved(settings, ready):
    """What the options left open, as it came out."""
    return {
        "jit_compile": ready.model.jit_compile,
        "shapes": "static" if ready.plan.static else "dynamic",
        "validate_every": ready.validate_every,
        "updates": ready.epochs * ready.validate_every,
        "vocabulary_sizes": [
            ready.tokenizer.vocabulary_size(),
            ready.target_tokenizer.vocabulary_size(),
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
    return (
        f"{data.report(pairs.train, ready.train, pairs.valid)}\n"
        f"{ready.plan.summary()}\n"
        f"shapes (rows, source, target): {listed}\n"
        f"model: {ready.model.count_params():,} parameters, "
        f"vocabulary {ready.tokenizer.vocabulary_size():,}, "
        f"jit_compile={ready.model.jit_compile}, {settings['precision']}\n"
        f"memory: about {memory(ready.model, shapes) / 2**20:,.0f} MiB at the largest batch, "
        f"{rows} x {source} x {target}\n"
        f"{ready.epochs * ready.validate_every:,} updates, validation and checkpoint every "
        f"{ready.validate_every:,}"
    )


def memory(model, shapes):
    """Estimated bytes of a training step at the largest of the shapes, in float32.

    Weights, gradients and two moments; and what the backward pass needs again, counted from the
    layers' own tensors: per position about 14 (encoder) or 24 (decoder) vectors of width D and 3 of
    width F a layer, three copies of the attention weights, and three of the logits.
    """
    encoder = model.encoder.layers[0]
    d_model, d_ff, heads = encoder.d_model, encoder.d_ff, encoder.num_heads
    encoder_layers, decoder_layers = model.encoder.num_layers, model.decoder.num_layers
    vocabulary = model.output_shape[-1]

    def activations(rows, source, target):
        encoded = source * (14 * d_model + 3 * d_ff) + 3 * heads * source * source
        decoded = target * (24 * d_model + 3 * d_ff) + 3 * heads * target * (target + source)
        floats = encoder_layers * encoded + decoder_layers * decoded + 3 * target * vocabulary
        return rows * floats

    return 4 * (4 * model.count_params() + max(activations(*shape) for shape in shapes))


def fit(settings, pairs, ready, run):
    """`model.fit`, from the last checkpoint on."""
    model, update, scores = ready.model, 0, []
    checkpoint = run.latest_checkpoint()
    if checkpoint is not None:
        state = run.restore(model, checkpoint)
        update, scores = state["update"], state["scores"]
        say(f"resuming at update {update:,}")
    run.truncate_log(update)
    stop = _early_stopping(settings, scores)
    if update >= ready.epochs * ready.validate_every or stop is not None and stop.finished:
        say(f"trained already, {update:,} updates: raise --updates to go on.")
        return

    translator = Translator(model, ready.tokenizer, ready.target_tokenizer)
    sources, references = zip(*pairs.valid, strict=True)

    def translate(lines):
        return translator.translate(lines, beam_size=1)

    def bleu(hypotheses, references):
        return evaluation.bleu(hypotheses, references, tokenize=settings["tokenize"]).value

    def keep_samples(update, triples):
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
            translate, sources, references, bleu, settings["bleu_every"], samples=keep_samples
        ),
        callbacks.Progress(
            ready.epochs * ready.validate_every, settings["log_every"], log=run.append_log
        ),
        callbacks.TensorBoard(str(run.path), settings["log_every"]),
        *([stop] if stop is not None else []),
        callbacks.Checkpoints(save, update),
    ]
    try:
        model.fit(
            ready.plan.dataset(update),
            validation_data=ready.validation,
            epochs=ready.epochs,
            initial_epoch=update // ready.validate_every,
            steps_per_epoch=ready.validate_every * settings["accumulate"],
            shuffle=False,
            verbose=0,
            callbacks=listeners,
        )
    except KeyboardInterrupt:
        say(f"\ninterrupted: the same command goes on from the last checkpoint in {run.path}")
        raise
    except Exception as error:
        if _is_out_of_memory(error):
            raise MemoryError(_out_of_memory(settings, ready)) from error
        raise


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
    checkpoints = complete[-settings["average"] :] if settings["average"] else []
    if len(checkpoints) > 1:
        run.save_average(checkpoints)
    translator = Translator.load(run.path)
    sources, references = zip(*pairs.valid, strict=True)
    hypotheses = translator.translate(sources, beam_size=1)
    score = evaluation.bleu(hypotheses, references, tokenize=settings["tokenize"])
    what = f"the average of {len(checkpoints)} checkpoints" if len(checkpoints) > 1 else "the model"
    say(f"validation BLEU of {what}, greedy: {score.value:.2f}  {score.signature}")
    end = {"event": "end", "update": complete[-1].update}
    end |= {"validation_bleu": score.value, "signature": score.signature}
    if end not in run.read_log():  # the same command again
        run.append_log(end)


def say(message):
    print(message, file=sys.stderr, flush=True)


def _digest(pairs):
    text = json.dumps(pairs, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _write_lines(path, lines):
    with replacing(Path(path)) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
