"""What the Transformer replaced, measured: five models on the same batches.

    python recipes/compare_seq2seq.py --data FOLDER     # train.en, train.de, val.*, test2016.*
    python recipes/compare_seq2seq.py --task copy       # made-up symbols, copied; or reversed
    python recipes/compare_seq2seq.py --task reverse

    rnn            Keras' SimpleRNN, encoder and decoder, joined by a vector of fixed width
    lstm           the same of LSTMs (Sutskever et al., 2014)
    lstm-additive  an LSTM with additive attention (Bahdanau et al., 2015)
    lstm-dot       LSTMs with dot-product attention and input feeding (Luong et al., 2015)
    transformer    `kt.models.Transformer`

All have about the same number of parameters, see the same batches for as many updates, and are
searched by the same `kt.Translator`. With `--rate`, `--dropout` and `--measure valid` a run is a
trial that does not see the test text. A run that was stopped continues with the model that it was
training. The run directory gets a table as JSON and a picture of quality against length, training
speed, and how far gradients reach. Speeds are compared on one device, so there is no --devices.
"""

import argparse
import functools
import os
import string
from pathlib import Path
from typing import NamedTuple

import seq2seq_measures as measures
import seq2seq_reports as reports
import seq2seq_tasks as tasks
from recurrent_models import RecurrentSeq2Seq, matching_units

import keras_transformer as kt
from keras_transformer.cli import INTERRUPTED, command, program, say_next, without_notices
from keras_transformer.progress import say

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options

# Small versions of their papers' models. Sutskever et al. stack 4 layers that read the source from
# its end, here 2; "rnn" has plain layers instead of LSTMs. Bahdanau et al. have one layer in both
# directions, of gated units and a maxout layer; here of LSTMs.
RECURRENT = {
    "rnn": {"cell": "rnn", "num_layers": 2},
    "lstm": {"num_layers": 2},
    "lstm-additive": {"attention": "additive", "num_layers": 1, "bidirectional": True},
    "lstm-dot": {"attention": "dot", "num_layers": 2},
}
MODELS = (*RECURRENT, "transformer")


class Settings(NamedTuple):
    """The defaults of a task."""

    updates: int
    validate_every: int
    layers: int  # of the Transformer's encoder, and of its decoder
    beam_size: int
    rates: dict  # the learning rates at their peak
    dropouts: dict


# The best of up to four per model by the validation loss on Multi30k, after 400 updates; of those
# with attention after 2,500.
RATES = {
    "rnn": 0.004,
    "lstm": 0.01,
    "lstm-additive": 0.005,
    "lstm-dot": 0.005,
    "transformer": 0.006,
}
# The best of 0.001, 0.002, 0.004 and 0.008 per model, after 500 updates of "reverse".
SYMBOL_RATES = {
    "rnn": 0.002,
    "lstm": 0.008,
    "lstm-additive": 0.004,
    "lstm-dot": 0.004,
    "transformer": 0.004,
}
# The better of 0.1 and 0.2 for those with attention. The others were trained only with 0.2.
WITH_ATTENTION = ("lstm-additive", "lstm-dot", "transformer")
DROPOUTS = dict.fromkeys(MODELS, 0.2) | dict.fromkeys(WITH_ATTENTION, 0.1)
SYMBOL_DROPOUTS = dict.fromkeys(MODELS, 0.1)
SETTINGS = {
    "translate": Settings(2500, 250, 4, 4, RATES, DROPOUTS),
    "copy": Settings(1500, 250, 2, 1, SYMBOL_RATES, SYMBOL_DROPOUTS),
    "reverse": Settings(1500, 250, 2, 1, SYMBOL_RATES, SYMBOL_DROPOUTS),
}


@program("compare_seq2seq", INTERRUPTED)
def main():
    args = arguments()
    settings = {k: v for k, v in vars(args).items() if k not in ("run_dir", "data", "models")}
    task = tasks.load(args)
    recorded = {"recipe": "compare_seq2seq", **settings}
    with kt.RunDirectory.start(args.run_dir, recorded, ("measure",)) as run:
        task.tokenizer.save(run.path / "tokenizer.model")  # refuses another one of an earlier start
        compare(run.path, args, task, settings)
    say(f"\nin {args.run_dir}: quality, speed and gradient_reach, each .json and .png")
    commands = {"TensorBoard": command("tensorboard", "--logdir", args.run_dir)}
    if "transformer" in args.models:  # the classes of the others are defined in this recipe
        run = args.run_dir / "transformer"
        translate = command("keras-transformer", "translate", run, rest="< source.txt")
        commands = {"Translate": translate, **commands}
    say_next(commands)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=tuple(SETTINGS), default="translate")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with the text; by default multi30k_en_de in KERAS_TRANSFORMER_DATA",
    )
    parser.add_argument("--run-dir", type=Path, help="runs/compare-TASK by default")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--updates", type=int, help="2,500; copy and reverse: 1,500")
    parser.add_argument("--validate-every", type=int, help="in updates; 250")
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    parser.add_argument("--layers", type=int, help="of the Transformer; 4; copy and reverse: 2")
    parser.add_argument("--width", type=int, default=128, help="of all embeddings")
    parser.add_argument("--vocabulary-size", type=int, default=6000, help="translate: word pieces")
    parser.add_argument("--symbols", type=int, default=16, help="copy, reverse: different symbols")
    parser.add_argument("--train-length", type=int, default=20, help="copy, reverse: longest")
    parser.add_argument("--test-length", type=int, default=40, help="copy, reverse: longest")
    parser.add_argument("--size", type=int, default=100_000, help="copy, reverse: to train on")
    parser.add_argument("--test-size", type=int, default=100, help="copy, reverse: a length")
    parser.add_argument("--dropout", type=float, help="by default each model's best")
    parser.add_argument("--rate", type=float, help="highest rate; by default each model's best")
    parser.add_argument("--beam-size", type=int, help="4; copy and reverse: 1, greedy")
    parser.add_argument(
        "--measure",
        choices=("valid", "test"),
        default="test",
        help="text to score at the end",
    )
    parser.add_argument("--reach-pairs", type=int, default=8, help="that gradients are taken of")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name in ("updates", "validate_every", "layers", "beam_size"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(SETTINGS[args.task], name))
    args.run_dir = args.run_dir or Path(f"runs/compare-{args.task}")
    options.require_whole_validations(parser, args)
    if args.task == "translate" and args.data is None:
        if not (folder := os.environ.get("KERAS_TRANSFORMER_DATA")):
            parser.error("--data names the folder with train.en, train.de, val.*, test2016.*")
        args.data = Path(folder) / "multi30k_en_de"
    if not 1 < args.symbols <= len(string.ascii_lowercase):
        parser.error(f"--symbols {args.symbols} is to be from 2 to {len(string.ascii_lowercase)}")
    return args


def with_defaults(args, name):
    """Returns the options of one model: its own rate and dropout, unless they were given."""
    defaults = SETTINGS[args.task]
    own = {"rate": defaults.rates[name], "dropout": defaults.dropouts[name]}
    given = {option: value for option, value in vars(args).items() if value is not None}
    return argparse.Namespace(**{**vars(args), **own, **given})


def build(name, vocabulary_size, args):
    """Builds a model of the comparison. Recurrent ones are as wide as the parameters allow."""
    if name == "transformer":
        return transformer(vocabulary_size, args.layers, args.width, args.dropout)
    # All have the same embeddings, so any vocabulary serves to count the other parameters.
    parameters = beside_embeddings(args.layers, args.width)
    return RecurrentSeq2Seq(
        vocabulary_size,
        matching_units(parameters, args.width, **RECURRENT[name]),
        d_model=args.width,
        dropout=args.dropout,
        # Read from its end, the source's first words come last, near the target's first words,
        # unless the target itself is reversed.
        reverse_source=args.task != "reverse",
        **RECURRENT[name],
    )


def transformer(vocabulary_size, layers, width, dropout=0.0):
    sizes = {"num_layers": layers, "d_model": width, "d_ff": 2 * width}
    return kt.models.Transformer.from_preset(
        "tiny", vocabulary_size, norm="pre", dropout=dropout, **sizes
    )


@functools.cache
def beside_embeddings(layers, width):
    """Returns how many parameters the Transformer has without its embeddings."""
    return transformer(8, layers, width).count_params() - 8 * width


def fit(name, path, args, task, settings, reached):
    """Trains one model, or continues. Returns it, its `reached` before training, and its log."""
    args = with_defaults(args, name)
    # A later default must not continue an earlier run.
    settings = {**settings, "model": name, "rate": args.rate, "dropout": args.dropout}
    encoded = kt.data.encode_pairs(task.train, task.tokenizer)
    plan = kt.data.BatchPlan(encoded, args.tokens_per_batch, seed=args.seed)
    beside_embeddings(args.layers, args.width)  # before the seed, because counting builds a model
    keras.utils.set_random_seed(args.seed)
    model = build(name, task.tokenizer.vocabulary_size, args)
    print(f"{name}: {model.count_params():,} parameters\n{plan.summary()}")
    warmup = min(400, args.updates // 4)
    rate = objective.cosine(args.updates, args.rate, warmup, alpha=0.01)
    optimizer = kt.optimizers.PaperAdam(learning_rate=rate, global_clipnorm=1.0)
    objective.compile_for_tokens(model, optimizer)
    start = reached(model)
    with kt.RunDirectory.start(path, settings, ("measure",)) as run:
        task.tokenizer.save(run.path / "tokenizer.model")
        run.fit(
            model,
            plan,
            updates=args.updates,
            validate_every=args.validate_every,
            validation=plan.evaluation(kt.data.encode_pairs(task.valid, task.tokenizer)),
            keep_checkpoints=2,
        )
        return model, start, run.read_log()


def compare(path, args, task, settings):
    """Trains all models, then measures and reports."""
    encoded = kt.data.encode_pairs(task.valid, task.tokenizer)
    sequences = measures.longest_pairs(encoded, args.reach_pairs, longest=25)
    sources, references = zip(*getattr(task, args.measure), strict=True)
    quality, speed, reach = {}, {}, {}
    for name in args.models:
        model, start, log = fit(
            name,
            path / name,
            args,
            task,
            settings,
            lambda model: measures.model_reach(model, sequences),
        )
        reach[name] = {"start": start, "end": measures.model_reach(model, sequences)}
        trained = [each for each in log if each["event"] == "validation"]
        speed[name] = {
            "parameters": model.count_params(),
            "updates": args.updates,
            "validation_nats_per_token": trained[-1]["val_nats_per_token"],
            "target_tokens_per_second": measures.training_speed(log),
        }
        translator = kt.Translator(model, task.tokenizer)
        # Score / length: better on the validation text than GNMT 0.6, which is too short there.
        hypotheses = translator.translate(sources, args.beam_size, "average", batch_size=128)
        lines = (line.replace("\n", " ") for line in hypotheses)  # byte pieces can spell it
        kt.files.write_lines(path / name / "hypotheses.txt", lines)
        if args.task == "translate":
            quality[name] = measures.bleu_by_length(sources, references, hypotheses)
        else:
            quality[name] = measures.accuracy_by_length(references, hypotheses)
    reports.report_speed(path, speed)
    reports.report_quality(path, quality, args)
    reports.report_reach(path, reach)


if __name__ == "__main__":
    main()
