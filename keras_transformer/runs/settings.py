"""Every option of a training, once: the command line, its help and what a run records follow."""

import dataclasses
import functools
from typing import Any

from keras_transformer.runs.options import (
    Option,
    count,
    device_count,
    group,
    positive,
    process_count,
    random_seed,
    rate,
    share,
    size,
)

# The groups of `keras-transformer train --help`.
text, vocabulary, model = map(group, ("text", "vocabulary", "model"))
fine_tuning, training = map(group, ("fine-tuning", "training"))
watching = group("validation and checkpoints")
TSV = "train_tsv", "valid_tsv"
file = functools.partial(text, metavar="FILE", changeable=True, many=True)


@dataclasses.dataclass(kw_only=True)
class TrainSettings:
    """The options of `keras-transformer train`, whose `--help` explains each.

    Example:

    ```python
    settings = kt.runs.TrainSettings(train_tsv="pairs.tsv", hold_out=50, run_dir="runs/mine")
    kt.runs.train(settings)
    ```
    """

    train_source: Any = file(
        "one sentence per line; several files, and patterns such as 'web-*.gz', are read one after "
        "another; with :3 behind a file each pass holds its pairs three times"
    )
    train_target: Any = file("their translations, line by line")
    train_tsv: Any = file("instead of these two: both in TSV files")
    valid_source: Any = file("validation text")
    valid_target: Any = file("its translations")
    valid_tsv: Any = file("instead of these two: both in TSV files")
    hold_out: int | None = text(
        "without validation files: hold out N sources with all their translations; they are "
        "written to RUN/held_out.source.txt and RUN/held_out.target.txt",
        parse=positive,
        metavar="N",
    )
    source_column: int = text("column of the TSV, from 0", 0, count, changeable=True, needs=TSV)
    target_column: int = text("column of the TSV, from 0", 1, count, changeable=True, needs=TSV)
    max_length: int = text("longer pairs are dropped", 256, positive)

    vocabulary_size: int | None = vocabulary(
        "number of pieces; by default 260, the text's frequent characters, and 2 x sqrt(length of "
        "the text in characters), at most 32,000; for char and word at most 10,000",
        parse=positive,
        metavar="V",
        derived=True,
    )
    vocabulary_type: str | None = vocabulary(
        "SentencePiece's", choices=("bpe", "unigram", "char", "word"), unless_init_from="bpe"
    )
    vocabulary_sample: int | None = vocabulary(
        "train it on N pairs, evenly spread over the text; by default on at most 1,000,000",
        parse=positive,
        metavar="N",
    )
    normalization: str | None = vocabulary(
        "identity is lossless, the others are SentencePiece's rules",
        choices=("identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"),
        unless_init_from="identity",
    )
    separate_vocabularies: bool | None = vocabulary(
        "one per side instead of a shared one", parse=None, unless_init_from=False
    )
    subword_sampling: float | None = vocabulary(
        "cut the text anew at random in each pass: BPE-dropout with bpe (0.1 for example, the "
        "share of merges left out), subword regularization with unigram",
        parse=share,
        metavar="ALPHA",
        hparam=True,
    )

    preset: str | None = model(
        "tiny, base, big, or another row of the paper's Table 3, such as A-heads-1 "
        "(keras_transformer.models.PRESETS lists them)",
        metavar="NAME",
        unless_init_from="tiny",
        hparam=True,
    )
    num_layers: int | None = model(
        "number of layers in the encoder, and in the decoder", parse=positive
    )
    d_model: int | None = model("width of the model", parse=positive)
    num_heads: int | None = model("number of attention heads", parse=positive)
    d_ff: int | None = model("width inside the feed-forward layers", parse=positive)
    dropout: float | None = model("share dropped of each sub-layer's output", parse=rate)
    attention_dropout: float | None = model("share dropped of the attention weights", parse=rate)
    norm: str | None = model(
        "normalise after each sub-layer (post, as in the paper) or before it (pre)",
        choices=("post", "pre"),
    )

    init_from: str | None = fine_tuning(
        "start from the weights of an earlier run, with its vocabulary and architecture; update "
        "and optimizer begin anew, dropout may differ",
        metavar="RUN",
        changeable=True,
    )
    init_weights: str | None = fine_tuning(
        "average, best, last, or an update; by default the average, or the last where there is "
        "none or the last were better in validation",
        metavar="WHICH",
        needs=("init_from",),
    )
    lora_rank: int | None = fine_tuning(
        "train only adapters of this rank (LoRA), and write them to RUN/adapter.npz",
        parse=positive,
        metavar="R",
        hparam=True,
        needs=("init_from",),
    )
    lora_targets: str | None = fine_tuning(
        "which layers get one: of query, key, value, output, inner, outer, token; by default "
        "query,value",
        metavar="NAMES",
        hparam=True,
        needs=("lora_rank",),
    )

    run_dir: str = training(
        "folder of the run", dataclasses.MISSING, metavar="RUN", changeable=True
    )
    updates: int | None = training(
        "length of training; by default about 100 passes over the text, 300 to 10,000 updates",
        parse=positive,
        changeable=True,
        derived=True,
    )
    tokens_per_batch: int = training(
        "positions of a batch on either side, padding included", 4096, positive, hparam=True
    )
    accumulate: int = training(
        "batches per update, added up as one big batch", 1, positive, hparam=True
    )
    devices: str = training(
        "how many share each batch, or all that the backend sees; what is learned does not depend "
        "on it",
        "all",
        device_count,
        metavar="N",
        changeable=True,
    )
    processes: int | str | None = training(
        "how many train together, each started by this command (JAX only); auto: as SLURM, Open "
        "MPI, Cloud TPU or Kubernetes says",
        parse=process_count,
        metavar="N",
        changeable=True,
        recorded=False,
    )
    coordinator: str | None = training(
        "where process 0 listens; the same in all processes",
        metavar="HOST:PORT",
        changeable=True,
        recorded=False,
        needs=("processes",),
    )
    process: int | None = training(
        "the number of this process, from 0; by default that of an indexed job of Kubernetes",
        parse=count,
        metavar="I",
        changeable=True,
        recorded=False,
        needs=("processes",),
    )
    shapes: str = training(
        "static: at most 16 batch shapes, for XLA; auto: static where the step is compiled",
        "auto",
        choices=("auto", "dynamic", "static"),
    )
    warmup_steps: int | None = training(
        "in updates; by default a fifth of them, at most 4,000",
        parse=positive,
        derived=True,
        hparam=True,
    )
    learning_rate: float | None = training(
        "highest rate; by default the paper's for --warmup-steps, or for 4,000 without that",
        parse=size,
        metavar="PEAK",
        derived=True,
        hparam=True,
    )
    label_smoothing: float | None = training(
        "by default the preset's, 0.1", parse=rate, hparam=True
    )
    r_drop: float | None = training(
        "weight of R-Drop, such as 1: two passes per update, which shall agree",
        parse=size,
        metavar="ALPHA",
        hparam=True,
    )
    clip_norm: float | None = training(
        "longer gradients are scaled down to this length", parse=size, hparam=True
    )
    seed: int = training("of weights, order, dropout and sampling", 1, random_seed, hparam=True)
    precision: str = training(
        "what the model computes in; weights stay in float32",
        "float32",
        choices=("float32", "bfloat16", "float16"),
        hparam=True,
    )
    jit: str = training("compile by XLA", "auto", choices=("auto", "on", "off"))
    deterministic: bool = training("bit-equal when repeated, slower", False, None)
    dry_run: bool = training(
        "print parameters, shapes and memory; train and write nothing", False, None, recorded=False
    )

    validate_every: int | None = watching(
        "validation and a checkpoint; by default after each pass over the data, 100 to 1,000 "
        "updates",
        parse=positive,
        metavar="UPDATES",
    )
    tokenize: str = watching("sacreBLEU's tokenizer, for validation BLEU", "13a")
    bleu_every: int | None = watching(
        "translate at every Nth validation; by default at each one once the validation loss is at "
        "most two thirds of what guessing by the tokens' frequencies reaches",
        parse=positive,
        metavar="N",
        derived=True,
    )
    keep_checkpoints: int = watching(
        "how many to keep, and the best one", 10, positive, metavar="K", changeable=True
    )
    average: int = watching(
        "average the last K of the second half at the end; 0: no average",
        10,
        count,
        metavar="K",
        changeable=True,
    )
    stop_early: str | None = watching(
        "stop when this no longer improves in validation", choices=("bleu", "loss"), changeable=True
    )
    patience: int = watching(
        "validations without a better one", 10, positive, changeable=True, needs=("stop_early",)
    )
    checkpoint_on_signal: str = watching(
        "SIGTERM and SIGHUP save the present update before the training ends",
        "on",
        choices=("on", "off"),
        changeable=True,
    )
    log_every: int = watching(
        "interval of the display", 50, positive, metavar="UPDATES", changeable=True
    )

    def __post_init__(self):
        for name, known in OPTIONS.items():
            value = getattr(self, name)
            flag = _flag(name)
            if known.many and isinstance(value, list | tuple) and len(value) == 1:
                setattr(self, name, value[0])
            if known.choices and value is not None and value not in known.choices:
                raise ValueError(
                    f"{flag} {value}: expected one of {', '.join(known.choices)}. Choose one."
                )
            if known.parse not in (None, str) and value is not None:
                try:
                    setattr(self, name, known.parse(value))
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{flag}: {error}. Give another value.") from None

    def refuse_ignored(self) -> None:
        """Refuses an option that has no effect without another.

        Raises:
            ValueError: If such an option differs from its default and the other is not given.
        """
        for field in dataclasses.fields(self):
            needs = OPTIONS[field.name].needs
            if not needs or getattr(self, field.name) == field.default:
                continue
            if all(getattr(self, other) is None for other in needs):
                raise ValueError(
                    f"{_flag(field.name)} has an effect only with "
                    f"{' or '.join(map(_flag, needs))}: give that too, or leave it out."
                )

    def changed(self, **values: Any) -> "TrainSettings":
        """A copy in which some options have other values."""
        return dataclasses.replace(self, **values)

    def given(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Those of the options `names` that are not None."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def record(self) -> dict[str, Any]:
        """The options as `settings.json` keeps them."""
        return {name: getattr(self, name) for name in names_where(recorded=True)}


def _flag(name):
    return f"--{name.replace('_', '-')}"


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
