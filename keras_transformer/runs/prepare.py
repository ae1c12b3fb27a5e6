"""From the settings of `keras-transformer train` to everything that `fit` needs."""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import keras

from keras_transformer import data, losses, metrics, models, text
from keras_transformer.data.encoded_pairs import counts_of
from keras_transformer.ops import backend, processes
from keras_transformer.ops.capabilities import make_deterministic
from keras_transformer.ops.devices import share_batches
from keras_transformer.optimizers import LossScale, PaperAdam
from keras_transformer.optimizers.schedules import PaperSchedule
from keras_transformer.progress import say
from keras_transformer.runs.fine_tune import Initial
from keras_transformer.runs.reading import Text
from keras_transformer.runs.settings import TrainSettings
from keras_transformer.text.seen import Seen

# Pairs that a vocabulary is trained on. SentencePiece holds them in memory.
VOCABULARY_SAMPLE = 1_000_000


class Prepared(NamedTuple):
    """Everything up to `fit`."""

    tokenizer: text.Tokenizer
    target_tokenizer: text.Tokenizer
    train: data.EncodedPairs
    plan: data.BatchPlan
    validation: object
    model: keras.Model
    validate_every: int  # updates
    updates: int  # whole validations
    scored: list  # the validation pairs that the validation loss counts; these are translated


def set_precision(name: str) -> None:
    """Models that are built from now on compute in `"float32"`, `"bfloat16"` or `"float16"`.

    Their weights stay in float32.
    """
    keras.config.set_dtype_policy(name if name == "float32" else f"mixed_{name}")


def prepare(
    settings: TrainSettings,
    pairs: Text,
    folder: Path | None = None,
    initial: Initial | None = None,
    size_derived: bool = False,
) -> Prepared:
    """Vocabulary, ids, batches and model. Vocabulary and ids are kept in `folder`.

    Args:
        settings: The options, without gaps.
        pairs: The text.
        folder: The run, or None to write nothing.
        initial: A trained model to start from, which brings its vocabulary (see fine_tune.py).
        size_derived: Whether the vocabulary may be smaller than the settings say, if the text
            does not allow that size.
    """
    set_precision(settings.precision)
    with processes.first_process_first():  # which writes what the others read
        tokenizer, target_tokenizer, train_ids, valid_ids = _ids(
            settings, pairs, folder, initial, size_derived
        )

    shapes = settings.shapes
    if shapes == "auto" and settings.jit != "auto":
        shapes = {"on": "static", "off": "dynamic"}[settings.jit]
    sampling = None
    if settings.subword_sampling:
        sampling = data.SubwordSampling(
            train_ids, tokenizer, target_tokenizer, alpha=settings.subword_sampling
        )
    wanted = None if settings.devices == "all" else int(settings.devices)
    devices, scope = share_batches(wanted, settings.accumulate)
    plan = data.BatchPlan(
        train_ids,
        settings.tokens_per_batch,
        seed=settings.seed,
        shapes=shapes,
        accumulate=settings.accumulate,
        devices=devices,
        sampling=sampling,
    )
    per_pass = min(max(round(plan.updates_per_epoch), 100), 1000)
    assert settings.updates is not None  # derived by now
    validate_every = min(settings.validate_every or per_pass, settings.updates)

    # Seeded here, so that model and dropout are those of a recipe that does the same.
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        make_deterministic()
    with scope:
        if initial is None:
            model = build_model(settings, tokenizer, target_tokenizer)
        else:
            model = initial.model(settings)
        compile_model(model, settings, devices)
    return Prepared(
        tokenizer,
        target_tokenizer,
        train_ids,
        plan,
        plan.evaluation(valid_ids),
        model,
        validate_every,
        math.ceil(settings.updates / validate_every) * validate_every,
        data.kept_pairs(pairs.valid, tokenizer, target_tokenizer, settings.max_length),
    )


def _ids(settings, pairs, folder, initial, size_derived):
    """Both vocabularies, and the text of training and validation in their ids."""
    written = folder if processes.is_first() else None
    if written is not None:
        (written / "ids").mkdir(exist_ok=True)
        pairs.keep(written / "ids")
    if initial is None:
        tokenizer, target_tokenizer = tokenizers(settings, pairs, folder, size_derived)
    else:
        tokenizer, target_tokenizer = initial.tokenizers(written)
    encoded = []
    for name, chosen in (("train", pairs.train), ("valid", pairs.valid)):
        cache = None
        if folder is not None:
            cache = folder / "ids" / f"{name}.npz"
        limit = settings.max_length
        encoded.append(data.encode_pairs(chosen, tokenizer, target_tokenizer, limit, cache))
    train_ids, valid_ids = encoded
    if written is not None:
        ids = counts_of(train_ids.source_ids, tokenizer.vocabulary_size) > 0
        longest = int(train_ids.source_lengths.max())
        seen = Seen(ids, pairs.seen.words, pairs.seen.invisible, longest)
        known = seen if initial is None else initial.seen_with(seen)
        if known is not None:
            known.save(written)
    return tokenizer, target_tokenizer, train_ids, valid_ids


def tokenizers(
    settings: TrainSettings, pairs: Text, folder: Path | None, size_derived: bool = False
) -> tuple[text.Tokenizer, text.Tokenizer]:
    """The vocabularies of both sides: those of the run, or newly trained ones."""
    options = {
        "vocabulary_size": settings.vocabulary_size,
        "model_type": settings.vocabulary_type,
        "normalization": settings.normalization,
    }
    most = settings.vocabulary_sample or VOCABULARY_SAMPLE

    def side(number):
        return (pair[number] for pair in pairs.train.sample(most))

    if settings.separate_vocabularies:
        return tuple(
            _tokenizer(name, functools.partial(side, number), options, folder, size_derived)
            for number, name in enumerate(("source", "target"))
        )
    both = functools.partial(pairs.train.sample, most)
    shared = _tokenizer("tokenizer", both, options, folder, size_derived)
    return shared, shared


def _tokenizer(name, lines, options, folder, size_derived):
    path = folder and folder / f"{name}.model"
    if path and path.exists():
        return text.Tokenizer.load(path)
    size, kind = options["vocabulary_size"], options["model_type"]
    say(f"training a {kind} vocabulary of {size:,} pieces ...")
    try:
        tokenizer = text.train_tokenizer(lines(), **options)
    except text.VocabularySizeError as error:
        if not size_derived:
            raise
        say(f"the text allows {error.possible:,} pieces")
        tokenizer = text.train_tokenizer(lines(), **options | {"vocabulary_size": error.possible})
    if path:
        tokenizer.save(path)
    return tokenizer


def build_model(
    settings: TrainSettings, tokenizer: text.Tokenizer, target_tokenizer: text.Tokenizer
) -> models.Transformer:
    assert settings.preset is not None  # filled in unless the run starts from another
    names = ("num_layers", "d_model", "num_heads", "d_ff", "dropout", "attention_dropout", "norm")
    overrides = settings.given(names)
    if settings.separate_vocabularies:
        overrides["target_vocabulary_size"] = target_tokenizer.vocabulary_size
    if "max_length" in models.PRESETS[settings.preset]:  # learned positions: one for each token
        overrides["max_length"] = settings.max_length
    return models.Transformer.from_preset(settings.preset, tokenizer.vocabulary_size, **overrides)


def compile_model(model: keras.Model, settings: TrainSettings, devices: int = 1) -> None:
    warmup, peak = settings.warmup_steps, settings.learning_rate
    assert warmup is not None  # derived by now
    d_model = model.target_embedding.d_model
    optimizer = PaperAdam(
        learning_rate=PaperSchedule.with_peak(peak, warmup)
        if peak
        else PaperSchedule(d_model, warmup),
        global_clipnorm=settings.clip_norm,
        # Keras takes None for no accumulation, and at least 2.
        gradient_accumulation_steps=settings.accumulate if settings.accumulate > 1 else None,
    )
    if settings.precision == "float16":
        optimizer = LossScale(optimizer)
    assert settings.label_smoothing is not None  # resolved by now
    if settings.r_drop:
        model.enable_r_drop(settings.r_drop)
    model.compile(
        optimizer=optimizer,
        loss=losses.SmoothedCrossentropy(settings.label_smoothing),
        weighted_metrics=[metrics.NatsPerToken(), metrics.TokenAccuracy()],
        jit_compile={"auto": "auto", "on": True, "off": False}[
            "off" if devices > 1 and backend.name() == "tensorflow" else settings.jit
        ],
    )
