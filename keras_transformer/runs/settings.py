"""Every option of a training, once: the command line, its help and what a run records follow."""

import dataclasses
from collections.abc import Callable
from typing import Any

# The groups of `keras-transformer train --help`.
TEXT, VOCABULARY, MODEL = "text", "vocabulary", "model"
FINE_TUNING, TRAINING, WATCHING = "fine-tuning", "training", "validation and checkpoints"


def positive(value: str | int) -> int:
    """A whole number from 1."""
    if not str(value).isdigit() or int(value) < 1:
        raise ValueError(f"expected a whole number above 0, got {value!r}")
    return int(value)


def share(value: str | float) -> float:
    """A number above 0, at most 1."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise ValueError(f"expected a number above 0, at most 1, got {value!r}")
    return number


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known about one field of `TrainSettings` beside its name and its default.

    Args:
        group: The heading it has in the help.
        help: One line for the help.
        parse: A function of the text on the command line; None for a flag.
        choices: The values that are possible; empty if there are more than can be listed.
        metavar: How the help names the value.
        unless_init_from: The default of a run that does not start from an earlier one, which
            brings its own.
        changeable: Whether it may differ when the run is resumed. It then changes no update that
            was already made.
        derived: Whether it follows from the size of the text unless given (runs/derivation.py).
        hparam: Whether TensorBoard's HParams table has a column for it.
        recorded: Whether the run records it.
    """

    group: str
    help: str
    parse: Callable[[str], Any] | None = str
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    unless_init_from: Any = None
    changeable: bool = False
    derived: bool = False
    hparam: bool = False
    recorded: bool = True


def option(
    default: Any, group: str, help: str, parse: Callable[[Any], Any] | None = str, **known: Any
) -> Any:
    """A field of `TrainSettings`; `known` are further arguments of `Option`."""
    known = {"option": Option(group, help, parse, **known)}
    return dataclasses.field(default=default, metadata=known)


def required(group: str, help: str, **known: Any) -> Any:
    """A field of `TrainSettings` without a default."""
    return dataclasses.field(metadata={"option": Option(group, help, **known)})


@dataclasses.dataclass(kw_only=True)
class TrainSettings:
    """The options of `keras-transformer train`, under the same names (`keras-transformer train
    --help` explains each).

    Example:

    ```python
    settings = kt.runs.TrainSettings(train_tsv="pairs.tsv", hold_out=50, run_dir="runs/mine")
    kt.runs.train(settings)
    ```
    """

    train_source: str | None = option(
        None, TEXT, "one sentence per line", metavar="FILE", changeable=True
    )
    train_target: str | None = option(
        None, TEXT, "its translations, line by line", metavar="FILE", changeable=True
    )
    train_tsv: str | None = option(
        None, TEXT, "instead of these two: both in one TSV file", metavar="FILE", changeable=True
    )
    valid_source: str | None = option(
        None, TEXT, "validation text", metavar="FILE", changeable=True
    )
    valid_target: str | None = option(
        None, TEXT, "its translations", metavar="FILE", changeable=True
    )
    valid_tsv: str | None = option(
        None, TEXT, "instead of these two: both in one TSV file", metavar="FILE", changeable=True
    )
    hold_out: int | None = option(
        None,
        TEXT,
        "without validation files: hold out N sources with all their translations; they are "
        "written to RUN/held_out.source.txt and RUN/held_out.target.txt",
        positive,
        metavar="N",
    )
    source_column: int = option(0, TEXT, "column of the TSV, from 0", int, changeable=True)
    target_column: int = option(1, TEXT, "column of the TSV, from 0", int, changeable=True)
    max_length: int = option(256, TEXT, "longer pairs are dropped", positive)

    vocabulary_size: int | None = option(
        None,
        VOCABULARY,
        "number of pieces; by default 260, the text's frequent characters, and 2 x sqrt(length of "
        "the text in characters), at most 32,000; for char and word at most 10,000",
        positive,
        metavar="V",
        derived=True,
    )
    vocabulary_type: str | None = option(
        None,
        VOCABULARY,
        "SentencePiece's",
        choices=("bpe", "unigram", "char", "word"),
        unless_init_from="bpe",
    )
    normalization: str | None = option(
        None,
        VOCABULARY,
        "identity is lossless, the others are SentencePiece's rules",
        choices=("identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"),
        unless_init_from="identity",
    )
    separate_vocabularies: bool | None = option(
        None, VOCABULARY, "one per side instead of a shared one", None, unless_init_from=False
    )
    subword_sampling: float | None = option(
        None,
        VOCABULARY,
        "cut the text anew at random in each pass: BPE-dropout with bpe (0.1 for example, the "
        "share of merges left out), subword regularization with unigram",
        share,
        metavar="ALPHA",
        hparam=True,
    )

    preset: str | None = option(
        None,
        MODEL,
        "tiny, base, big, or another row of the paper's Table 3, such as A-heads-1 "
        "(keras_transformer.models.PRESETS lists them)",
        metavar="NAME",
        unless_init_from="tiny",
        hparam=True,
    )
    num_layers: int | None = option(
        None, MODEL, "number of layers in the encoder, and in the decoder", positive
    )
    d_model: int | None = option(None, MODEL, "width of the model", positive)
    num_heads: int | None = option(None, MODEL, "number of attention heads", positive)
    d_ff: int | None = option(None, MODEL, "width inside the feed-forward layers", positive)
    dropout: float | None = option(None, MODEL, "share dropped of each sub-layer's output", float)
    attention_dropout: float | None = option(
        None, MODEL, "share dropped of the attention weights", float
    )
    norm: str | None = option(
        None, MODEL, "where layer normalisation stands; post in the paper", choices=("post", "pre")
    )

    init_from: str | None = option(
        None,
        FINE_TUNING,
        "start from the weights of an earlier run, with its vocabulary and architecture; update "
        "and optimizer begin anew, dropout may differ",
        metavar="RUN",
        changeable=True,
    )
    init_weights: str | None = option(
        None,
        FINE_TUNING,
        "average, best, last, or an update; by default the average, or the last where there is "
        "none or the last were better in validation",
        metavar="WHICH",
    )

    run_dir: str = required(TRAINING, "folder of the run", metavar="RUN", changeable=True)
    updates: int | None = option(
        None,
        TRAINING,
        "length of training; by default about 100 passes over the text, 300 to 10,000 updates",
        positive,
        changeable=True,
        derived=True,
    )
    tokens_per_batch: int = option(
        4096,
        TRAINING,
        "positions of a batch on either side, padding included",
        positive,
        hparam=True,
    )
    accumulate: int = option(
        1, TRAINING, "batches per update, added up as one big batch", positive, hparam=True
    )
    shapes: str = option(
        "auto",
        TRAINING,
        "static: at most 16 batch shapes, for XLA; auto: static where the step is compiled",
        choices=("auto", "dynamic", "static"),
    )
    warmup_steps: int | None = option(
        None,
        TRAINING,
        "in updates; by default a fifth of them, at most 4,000",
        positive,
        derived=True,
        hparam=True,
    )
    learning_rate: float | None = option(
        None,
        TRAINING,
        "highest rate; by default the paper's for --warmup-steps, or for 4,000 without that",
        float,
        metavar="PEAK",
        derived=True,
        hparam=True,
    )
    label_smoothing: float | None = option(
        None, TRAINING, "by default the preset's, 0.1", float, hparam=True
    )
    clip_norm: float | None = option(
        None, TRAINING, "longer gradients are scaled down to this length", float, hparam=True
    )
    seed: int = option(1, TRAINING, "of weights, order, dropout and sampling", int, hparam=True)
    precision: str = option(
        "float32",
        TRAINING,
        "what the model computes in; weights stay in float32",
        choices=("float32", "bfloat16", "float16"),
        hparam=True,
    )
    jit: str = option("auto", TRAINING, "compile by XLA", choices=("auto", "on", "off"))
    deterministic: bool = option(False, TRAINING, "bit-equal when repeated, slower", None)
    dry_run: bool = option(
        False,
        TRAINING,
        "print parameters, shapes and memory; train and write nothing",
        None,
        recorded=False,
    )

    validate_every: int | None = option(
        None,
        WATCHING,
        "validation and a checkpoint; by default after each pass over the data, 100 to 1,000 "
        "updates",
        positive,
        metavar="UPDATES",
    )
    tokenize: str = option("13a", WATCHING, "sacreBLEU's tokenizer, for validation BLEU")
    bleu_every: int | None = option(
        None,
        WATCHING,
        "translate at every Nth validation; by default at each one once the validation loss is at "
        "most two thirds of what guessing by the tokens' frequencies reaches",
        positive,
        metavar="N",
        derived=True,
    )
    keep_checkpoints: int = option(
        10, WATCHING, "how many to keep, and the best one", positive, metavar="K", changeable=True
    )
    average: int = option(
        10,
        WATCHING,
        "average the last K of the second half at the end; 0: no average",
        int,
        metavar="K",
        changeable=True,
    )
    stop_early: str | None = option(
        None,
        WATCHING,
        "stop when this no longer improves in validation",
        choices=("bleu", "loss"),
        changeable=True,
    )
    patience: int = option(
        10, WATCHING, "validations without a better one", positive, changeable=True
    )
    log_every: int = option(
        50, WATCHING, "interval of the display", positive, metavar="UPDATES", changeable=True
    )

    def __post_init__(self):
        for name, known in OPTIONS.items():
            value = getattr(self, name)
            flag = f"--{name.replace('_', '-')}"
            if known.choices and value is not None and value not in known.choices:
                raise ValueError(
                    f"{flag} {value}: expected one of {', '.join(known.choices)}. Choose one."
                )
            if known.parse not in (None, str) and value is not None:
                try:
                    setattr(self, name, known.parse(value))
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{flag}: {error}. Give another value.") from None

    def changed(self, **values: Any) -> "TrainSettings":
        """A copy in which some options have other values."""
        return dataclasses.replace(self, **values)

    def given(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Those of the options `names` that are not None."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def record(self) -> dict[str, Any]:
        """The options as `settings.json` keeps them."""
        return {name: getattr(self, name) for name, known in OPTIONS.items() if known.recorded}


OPTIONS: dict[str, Option] = {
    field.name: field.metadata["option"] for field in dataclasses.fields(TrainSettings)
}


def names_where(**known: Any) -> tuple[str, ...]:
    """The names of the options of which all of this is true: `names_where(hparam=True)`."""
    return tuple(
        name
        for name, one in OPTIONS.items()
        if all(getattr(one, key) == value for key, value in known.items())
    )
