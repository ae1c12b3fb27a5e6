"""Train a Transformer on parallel text.

  keras-transformer train --train-source a.en --train-target a.de \\
                          --valid-source b.en --valid-target b.de --run-dir runs/en-de
  keras-transformer train --train-tsv pairs.tsv --hold-out 500 --run-dir runs/mine
  keras-transformer train --init-from runs/en-de --train-tsv ours.tsv --hold-out 100 \\
                          --run-dir runs/ours

The run directory gets all that is needed to translate, resume and reproduce. The same command again
resumes from the last checkpoint, also where the text has moved; --updates may be raised.
Vocabulary, updates and warm-up follow from the size of the text unless given, and are printed
first. Text may be gzipped (.gz). Lengths and budgets are in tokens (sub-words), progress in
updates, losses in nats per target token."""

import argparse

from keras_transformer.models.presets import PRESETS, label_smoothing

# Of what --init-from takes over: not argparse's, so that a value that is given can be told apart.
DEFAULTS = {
    "vocabulary_type": "bpe",
    "normalization": "identity",
    "separate_vocabularies": False,
    "preset": "tiny",
}


def add_arguments(parser):
    from keras_transformer.cli.translate import positive

    text = parser.add_argument_group("text")
    text.add_argument("--train-source", metavar="FILE", help="one sentence a line")
    text.add_argument("--train-target", metavar="FILE", help="its translations, line by line")
    text.add_argument("--train-tsv", metavar="FILE", help="in their place: both in one TSV file")
    text.add_argument("--valid-source", metavar="FILE", help="validation text")
    text.add_argument("--valid-target", metavar="FILE", help="its translations")
    text.add_argument("--valid-tsv", metavar="FILE", help="in their place: both in one TSV file")
    text.add_argument(
        "--hold-out",
        type=positive,
        metavar="N",
        help="without validation files: hold out N sources with all their translations; they are "
        "written to RUN/held_out.source.txt and RUN/held_out.target.txt",
    )
    text.add_argument("--source-column", type=int, default=0, help="of the TSV, from 0")
    text.add_argument("--target-column", type=int, default=1, help="of the TSV, from 0")
    text.add_argument("--max-length", type=positive, default=256, help="longer pairs are dropped")

    vocabulary = parser.add_argument_group("vocabulary")
    vocabulary.add_argument(
        "--vocabulary-size",
        type=positive,
        metavar="V",
        help="pieces; by default 260, the text's frequent characters, and 2 x sqrt(length of the "
        "text in characters), 32,000 at most; of char and word 10,000 at most",
    )
    vocabulary.add_argument(
        "--vocabulary-type",
        choices=("bpe", "unigram", "char", "word"),
        help=f"SentencePiece's{_default('vocabulary_type')}",
    )
    vocabulary.add_argument(
        "--normalization",
        choices=("identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"),
        help="identity is lossless, the others are SentencePiece's rules"
        + _default("normalization"),
    )
    vocabulary.add_argument(
        "--separate-vocabularies",
        action="store_true",
        default=None,
        help="one a side, not one for both",
    )
    vocabulary.add_argument(
        "--subword-sampling",
        type=alpha,
        metavar="ALPHA",
        help="cut the text anew at random in each pass: BPE-dropout with bpe (0.1 for example, the "
        "share of merges left out), subword regularization with unigram",
    )

    model = parser.add_argument_group("model")
    model.add_argument(
        "--preset",
        choices=PRESETS,
        metavar="NAME",
        help=f"tiny, or a row of the paper's Table 3: {', '.join(list(PRESETS)[1:])}"
        + _default("preset"),
    )
    model.add_argument("--num-layers", type=positive, help="of encoder and decoder each")
    model.add_argument("--d-model", type=positive)
    model.add_argument("--num-heads", type=positive)
    model.add_argument("--d-ff", type=positive)
    model.add_argument("--dropout", type=float)
    model.add_argument("--attention-dropout", type=float)
    model.add_argument("--norm", choices=("post", "pre"))

    earlier = parser.add_argument_group("fine-tuning")
    earlier.add_argument(
        "--init-from",
        metavar="RUN",
        help="go on from the weights of an earlier run, with its vocabulary and architecture; "
        "update and optimizer begin anew, dropout may differ",
    )
    earlier.add_argument(
        "--init-weights",
        metavar="WHICH",
        help="average, best, last, or an update; by default the average, or the last where there "
        "is none or the last were better in validation",
    )

    training = parser.add_argument_group("training")
    training.add_argument("--run-dir", required=True, metavar="RUN")
    training.add_argument(
        "--updates",
        type=positive,
        help="length of training; by default about 100 passes over the text, 300 to 10,000 updates",
    )
    training.add_argument(
        "--tokens-per-batch",
        type=positive,
        default=4096,
        help="positions of a batch on either side, padding included",
    )
    training.add_argument(
        "--accumulate", type=positive, default=1, help="batches of an update, as one big batch"
    )
    training.add_argument(
        "--shapes",
        default="auto",
        choices=("auto", "dynamic", "static"),
        help="static: at most 16 batch shapes, for XLA; auto: static where the step is compiled",
    )
    training.add_argument(
        "--warmup-steps",
        type=positive,
        help="in updates; by default a fifth of them, at most 4,000",
    )
    training.add_argument(
        "--learning-rate",
        type=float,
        metavar="PEAK",
        help="highest rate; by default the paper's for --warmup-steps, or for 4,000 without that",
    )
    training.add_argument("--label-smoothing", type=float, help="by default the preset's, 0.1")
    training.add_argument("--clip-norm", type=float, help="longest gradient; longer are scaled")
    training.add_argument("--seed", type=int, default=1)
    training.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16", "float16")
    )
    training.add_argument("--jit", default="auto", choices=("auto", "on", "off"), help="XLA")
    training.add_argument(
        "--deterministic", action="store_true", help="bit-equal when repeated, slower"
    )
    training.add_argument(
        "--dry-run",
        action="store_true",
        help="print parameters, shapes and memory; train and write nothing",
    )

    watching = parser.add_argument_group("validation and checkpoints")
    watching.add_argument(
        "--validate-every",
        type=positive,
        metavar="UPDATES",
        help="validation and a checkpoint; by default a pass over the data, 100 to 1,000 updates",
    )
    watching.add_argument("--tokenize", default="13a", help="sacreBLEU's, for validation BLEU")
    watching.add_argument(
        "--bleu-every",
        type=positive,
        metavar="N",
        help="translate at every Nth validation; by default at each one once the validation loss "
        "is at most two thirds of what guessing by the tokens' frequencies reaches",
    )
    watching.add_argument("--keep-checkpoints", type=positive, default=10, metavar="K")
    watching.add_argument(
        "--average",
        type=int,
        default=10,
        metavar="K",
        help="the last K of the second half, at the end; 0: no average",
    )
    watching.add_argument("--stop-early", choices=("bleu", "loss"), help="by validation")
    watching.add_argument(
        "--patience", type=positive, default=10, help="validations without a better one"
    )
    watching.add_argument("--log-every", type=positive, default=50, metavar="UPDATES")


def _default(name):
    return f" (default: {DEFAULTS[name]})"


def alpha(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 1, got {text!r}")
    return value


def run(args):
    import keras

    from keras_transformer.cli.ends import command, say_next
    from keras_transformer.ops.memory import keep_freed_memory
    from keras_transformer.runs import train as training

    keep_freed_memory()
    settings = vars(args).copy()
    for name in ("command", "verb", "dry_run"):
        del settings[name]
    if settings["label_smoothing"] is None:
        settings["label_smoothing"] = label_smoothing(args.preset)
    settings["backend"] = keras.backend.backend()
    if args.dry_run:
        print(training.dry_run(settings))
        return
    training.train(settings)
    say_next(
        {
            "Translate": command(
                "keras-transformer", "translate", args.run_dir, rest="< source.txt"
            ),
            "Evaluate": command(
                "keras-transformer", "evaluate", args.run_dir, rest="--source F --reference F"
            ),
            "Look at one": command("keras-transformer", "show", args.run_dir, rest='"A sentence"'),
            "TensorBoard": command("tensorboard", "--logdir", args.run_dir),
        }
    )
