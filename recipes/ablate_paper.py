"""The paper's Table 3 on your own machine: every row from (A) to (E), in small, and what it says.

    python recipes/ablate_paper.py --quick                 # each row once, within the hour
    python recipes/ablate_paper.py --precision bfloat16    # two seeds of each, overnight
    python recipes/ablate_paper.py --rows C-layers-2 D-dropout-0 --seeds 1 2
    tensorboard --logdir runs/table3                       # HPARAMS has the table

Each row keeps its ratios to the paper's base: a row with twice the d_ff has twice the d_ff of the
small base here. Heads, dropout, smoothing and the formula of the schedule are the paper's. The
warm-up is shorter, and the norm comes first, which learns sooner (--norm post is the paper's). As
in the paper, no checkpoints are averaged for Table 3, and the figures are of the development text.
The same command continues where it was stopped. You may add rows and seeds.

The data is Multi30k English-German (from the folder multi30k_en_de of KERAS_TRANSFORMER_DATA, or
downloaded, 4 MB), or any parallel text. The run directory gets table3.json, table3.txt, table3.png,
and in ROW/seed-N a run of each training, for `keras-transformer translate`.
"""

import argparse
import gc
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import ablation_report
import ablation_rows
import translate_multi30k
from hparams_columns import write_hparams_columns

import keras_transformer as kt
from keras_transformer.cli import (
    INTERRUPTED,
    command,
    positive,
    program,
    say_next,
    without_notices,
)

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options

FULL = {
    "run_dir": "runs/table3",
    "seeds": [1, 2],
    "d_model": 128,
    "vocabulary_size": 6000,
    "updates": 1500,
    "warmup_steps": 500,
    "tokens_per_batch": 4096,
    "beam_size": 4,
}
QUICK = {
    "run_dir": "runs/table3-quick",
    "seeds": [1],
    "d_model": 64,
    "vocabulary_size": 4000,
    "updates": 1500,
    "warmup_steps": 400,
    "tokens_per_batch": 2048,
    "beam_size": 1,
}
# What may change when a run is resumed, because it does not change a training that has begun.
FILES = ("train_source", "train_target", "valid_source", "valid_target")
CHANGEABLE = ("rows", "seeds", "run_dir", "data", "devices", *FILES)


@program("ablate_paper", INTERRUPTED)
def main(argv=None):
    args = parse(argv)
    ablate(args)
    kt.progress.say(f"\nin {args.run_dir}: table3.txt, .json and .png, and a run of each training")
    base = args.run_dir / "base" / f"seed-{args.seeds[0]}"
    say_next(
        {
            "The table": command("tensorboard", "--logdir", args.run_dir),
            "Translate": command("keras-transformer", "translate", base, rest="< source.txt"),
        }
    )


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def option(name, text, **how):
        key = name.removeprefix("--").replace("-", "_")
        parser.add_argument(name, help=f"{text}; {FULL[key]}, quick {QUICK[key]}", **how)

    parser.add_argument("--quick", action="store_true", help="smaller, shorter, one seed, greedy")
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=kt.models.TABLE_3,
        default=list(kt.models.TABLE_3),
        metavar="ROW",
        help=f"of {', '.join(kt.models.TABLE_3)}; all, and always the base",
    )
    option("--seeds", "each row is trained once per seed", type=int, nargs="+", metavar="N")
    option("--run-dir", "folder of the results")
    parser.add_argument("--data", type=Path, help="folder with Multi30k: train.*, val.*")
    parser.add_argument("--source", default="en", help="language of Multi30k: en, de, fr, cs")
    parser.add_argument("--target", default="de")
    for name in FILES:
        parser.add_argument(
            f"--{name.replace('_', '-')}", metavar="FILE", help="other text, one sentence per line"
        )
    parser.add_argument(
        "--tokenize", help="sacreBLEU's; none for Multi30k, which is tokenized, 13a for files"
    )
    parser.add_argument("--layers", type=positive, default=3, help="of the base; multiples of 3; 3")
    option("--d-model", "width of the base, a multiple of 64; d_ff is 4 times that", type=positive)
    parser.add_argument("--dropout", type=float, default=0.1, help="of the base; 0.1")
    parser.add_argument("--norm", default="pre", choices=("post", "pre"), help="the paper has post")
    option("--vocabulary-size", "of both languages together", type=positive)
    option("--updates", "of a training; of big 3 times as many, not if quick", type=positive)
    option("--warmup-steps", "updates until the highest rate", type=positive)
    option("--tokens-per-batch", "positions on either side", type=positive)
    parser.add_argument("--validate-every", type=positive, default=250, help="updates; 250")
    option("--beam-size", "of the search; 1 is greedy", type=positive)
    options.add_precision(parser)
    options.add_devices(parser)
    args = parser.parse_args(argv)
    for key, value in (QUICK if args.quick else FULL).items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    args.rows = [name for name in kt.models.TABLE_3 if name == "base" or name in args.rows]
    args.seeds = list(dict.fromkeys(args.seeds))
    args.run_dir = Path(args.run_dir)
    files = [getattr(args, name) for name in FILES]
    if any(files) and (args.data or not all(files)):
        parser.error(
            "give all of --train-source, --train-target, --valid-source, --valid-target "
            "and no --data, or none of them"
        )
    args.tokenize = args.tokenize or ("13a" if any(files) else "none")
    options.require_whole_validations(parser, args)
    return args


class Text(NamedTuple):
    """The text, encoded once for all rows."""

    tokenizer: kt.text.Tokenizer
    train: kt.data.EncodedPairs
    valid: kt.data.EncodedPairs
    valid_pairs: list


def ablate(args):
    """Trains the rows that are not trained yet, and reports."""
    scale = ablation_rows.Scale(
        args.layers, args.d_model, d_ff=4 * args.d_model, dropout=args.dropout
    )
    rows, misfits = ablation_rows.scaled_rows(args.rows, scale)
    if misfits:
        raise ValueError(
            f"{'; '.join(f'row {name}: {error}' for name, error in misfits.items())}. Leave them "
            "out by --rows, or take --layers of a multiple of 3, --d-model of a multiple of 64."
        )
    kt.evaluation.bleu(["a"], ["a"], tokenize=args.tokenize)  # fails now, not in an hour
    train, valid = read(args)
    digest = hashlib.sha256(json.dumps([train, valid]).encode()).hexdigest()
    settings = {"recipe": "ablate_paper", **vars(args), "text_sha256": digest}
    settings["backend"] = keras.backend.backend()
    with kt.RunDirectory.start(args.run_dir, settings, CHANGEABLE) as run:
        text = encode(train, valid, run.path, args)
        if not any(run.path.glob("events.out.*")):
            columns = [
                ablation_rows.setting_of(*each)
                for each in ablation_rows.scaled_rows(kt.models.TABLE_3, scale)[0].items()
            ]
            columns = {name: {each[name] for each in columns} for name in columns[0]}
            write_hparams_columns(run.path, columns, ["perplexity", "bleu"])
        # Seed by seed, so that the table is complete after the first and better after each other.
        results, trainings = [], [(seed, name) for seed in args.seeds for name in rows]
        for number, (seed, name) in enumerate(trainings, start=1):
            folder = run.path / name / f"seed-{seed}"
            if not (folder / "result.json").exists():
                print(f"{number} of {len(trainings)}: {name}, seed {seed}", file=sys.stderr)
                train_row(folder, name, rows[name], seed, args, text)
            results.append(kt.files.read_json(folder / "result.json"))
            report(run.path, results, args, print_it=number % len(rows) == 0)


def read(args):
    """Returns the pairs to train on and those to validate with."""
    if args.train_source:
        files = [getattr(args, name) for name in FILES]
        return kt.data.read_parallel(*files[:2]), kt.data.read_parallel(*files[2:])
    folder, home = args.data, os.environ.get("KERAS_TRANSFORMER_DATA")
    if folder is None and home:
        folder = Path(home) / "multi30k_en_de"
    if folder is None:
        folder = Path("runs/data/multi30k")
        translate_multi30k.download(args.source, args.target, folder)
    return [
        kt.data.read_parallel(folder / f"{name}.{args.source}", folder / f"{name}.{args.target}")
        for name in ("train", "val")
    ]


def encode(train, valid, folder, args):
    """Makes vocabulary and ids once, and keeps them in the run directory."""
    vocabulary = folder / "tokenizer.model"
    if not vocabulary.exists():
        kt.text.train_tokenizer(train, args.vocabulary_size).save(vocabulary)
    tokenizer = kt.text.Tokenizer.load(vocabulary)
    (folder / "ids").mkdir(exist_ok=True)
    ids = [
        kt.data.encode_pairs(pairs, tokenizer, cache=folder / "ids" / f"{name}.npz")
        for name, pairs in (("train", train), ("valid", valid))
    ]
    print(kt.data.report(train, ids[0], valid), file=sys.stderr)
    return Text(tokenizer, *ids, kt.data.kept_pairs(valid, tokenizer))


def updates_of(name, args):
    """Returns how long a row trains: big three times as long, as in the paper, unless --quick."""
    if args.quick:
        return args.updates
    return args.updates * kt.models.TABLE_3[name].updates // kt.models.TABLE_3["base"].updates


def train_row(folder, name, sizes, seed, args, text):
    """Trains one row with one seed, or continues it, and writes its result.json."""
    keras.backend.clear_session()  # of the row before
    gc.collect()
    kt.runs.set_precision(args.precision)
    keras.utils.set_random_seed(seed)
    updates = updates_of(name, args)
    devices, scope = options.share_batches(args)
    plan = kt.data.BatchPlan(text.train, args.tokens_per_batch, seed=seed, devices=devices)
    validation = plan.evaluation(text.valid)
    with scope:
        model = kt.models.Transformer(text.tokenizer.vocabulary_size, **sizes, norm=args.norm)
        optimizer = kt.optimizers.PaperAdam(sizes["d_model"], args.warmup_steps)
        smoothing = kt.models.TABLE_3[name].label_smoothing
        objective.compile_for_tokens(model, optimizer, smoothing, devices=devices)
    with kt.RunDirectory.start(folder, {"row": name, "seed": seed, "updates": updates}) as run:
        text.tokenizer.save(run.path / "tokenizer.model")
        run.fit(
            model,
            plan,
            updates=updates,
            validate_every=args.validate_every,
            validation=validation,
            keep_checkpoints=1,
            callbacks=[kt.callbacks.TensorBoard(str(folder), hparams=None)],
        )
        nats = model.evaluate(validation, verbose=0, return_dict=True)["nats_per_token"]
        sources, references = zip(*text.valid_pairs, strict=True)
        hypotheses = kt.Translator(model, text.tokenizer).translate(
            sources, beam_size=args.beam_size, batch_size=256
        )
        bleu = kt.evaluation.bleu(hypotheses, references, tokenize=args.tokenize)
        figures = {"perplexity": kt.callbacks.perplexity(nats), "bleu": bleu.value}
        kt.callbacks.write_hparams(
            folder, ablation_rows.setting_of(name, sizes), figures, updates, group=name
        )
        result = {"row": name, "seed": seed, "updates": updates, **figures}
        result |= {"parameters": model.count_params(), "signature": bleu.signature}
        # Written last, because a row with a result is not trained again.
        kt.files.write_json(folder / "result.json", result)


def report(folder, results, args, print_it):
    """Writes the table as text, as JSON, and as a picture."""
    search = "greedy" if args.beam_size == 1 else f"beam {args.beam_size}, alpha 0.6"
    settings = {**vars(args), "search": search, "signature": results[0]["signature"]}
    summary = ablation_report.summarize(results)
    kt.files.write_json(folder / "table3.json", {"settings": settings, **summary})
    lines = ablation_report.table(summary)
    lines += f"\nValidation text, {search}, {settings['signature']}\n"
    with kt.files.replacing(folder / "table3.txt") as file:
        file.write(lines.encode())
    if len(summary["rows"]) > 1:
        with kt.files.replacing(folder / "table3.png") as file:
            ablation_report.draw(summary).savefig(file, format="png", dpi=110)
    if print_it:
        print(f"\n{lines}")


if __name__ == "__main__":
    main()
