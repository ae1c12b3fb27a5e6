"""Compares BLEU over wall-clock time of a whole training with this package and with JoeyNMT.

    python benchmarks/time_to_bleu.py --data FOLDER --runs RUNS --joeynmt PYTHON [--minutes 35 35]

`FOLDER` has the files `train.en`, `train.de`, `val.en` and `val.de` (Multi30k, tokenised). Both
train the same model (4 + 4 layers of width 128, pre-norm, tied embeddings, a vocabulary of 6,000)
on batches of about 4,096 tokens per side, at the same learning rates. They train one after the
other, on all cores, in the best precision that they offer on a processor: bfloat16 here, float32 in
JoeyNMT, which turns half precision off there. The clock runs from the start of the command, so it
includes first steps, validation and our vocabulary. JoeyNMT's vocabulary is made before.

Both decode the validation text every 1,000 updates. JoeyNMT then keeps a checkpoint; this package
keeps one every 250. After both trainings, the checkpoint of every 500th update (`--every 2`), and
all of JoeyNMT's, are scored by BLEU with `--tokenize none` on the validation text. The beam is 5,
ranked by score / length (in JoeyNMT: its penalty with alpha 1). The best of three counts: the
checkpoint itself, its mean with the 3 before it, and its mean with the 7 before it. A contestant
that has a run in `RUNS` is not trained again. `PYTHON` has JoeyNMT, as for train.py.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from contest import cpu, versions

TOKENS, RATE, WARMUP, DROPOUT = 4096, 0.003, 1500, 0.2
MEANS = (1, 4, 8)
DECODE_EVERY = 4  # our validations; so we decode as often as JoeyNMT, which always decodes
OURS, JOEYNMT = "keras_transformer", "joeynmt"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--runs", required=True, type=Path, help="folder for both runs")
    parser.add_argument("--joeynmt", metavar="PYTHON", help="an interpreter that has JoeyNMT")
    parser.add_argument("--minutes", nargs=2, type=float, default=(35, 35), help="ours, JoeyNMT's")
    parser.add_argument("--updates", type=int, default=8000, help="number of updates at most")
    parser.add_argument("--validate-every", type=int, default=250, help="in updates")
    parser.add_argument("--vocabulary-size", type=int, default=6000)
    parser.add_argument("--every", type=int, default=2, help="score every Nth checkpoint")
    parser.add_argument("--goal", type=float, default=40, help="report the time to this BLEU")
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    args = parser.parse_args()
    for name in ("train.en", "train.de", "val.en", "val.de"):
        if not (args.data / name).is_file():
            parser.error(f"--data {args.data} has no {name}; it must hold Multi30k's four texts")
    args.runs.mkdir(parents=True, exist_ok=True)
    commands = {OURS: our_command(args)}
    if args.joeynmt:
        config = joeynmt_files(args)
        commands[JOEYNMT] = [args.joeynmt, "-m", "joeynmt", "train", str(config), "--skip-test"]
    report = {**cpu(), "versions": versions("tensorflow", "keras"), "command": sys.argv}
    for (name, command), minutes in zip(commands.items(), args.minutes, strict=False):
        train(name, command, minutes, args.runs)
    report["curves"] = {OURS: our_curve(args)}
    if args.joeynmt:
        report["curves"][JOEYNMT] = joeynmt_curve(args)
    print_report(report, args.goal)
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1) + "\n")


def train(name, command, minutes, runs):
    """Runs a training to its end, or for at most `minutes`, unless its run exists."""
    started = runs / f"{name}.started"
    if started.exists():
        return
    with (runs / f"{name}.log").open("w") as log:
        started.write_text(f"{time.time()}\n")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            status = process.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            status = 0
            process.send_signal(signal.SIGINT)
            process.wait()
    if status:
        started.unlink()
        sys.exit(f"{name} ended with status {status}; see {runs / name}.log")


def our_command(args):
    text = [
        f"--{part}-{side}={args.data / name}.{language}"
        for part, name in (("train", "train"), ("valid", "val"))
        for side, language in (("source", "en"), ("target", "de"))
    ]
    options = (
        f"--preset tiny --norm pre --dropout {DROPOUT} "
        f"--vocabulary-size {args.vocabulary_size} --tokens-per-batch {TOKENS} "
        f"--updates {args.updates} --validate-every {args.validate_every} "
        f"--bleu-every {DECODE_EVERY} --keep-checkpoints {-(-args.updates // args.validate_every)} "
        f"--learning-rate {RATE} --warmup-steps {WARMUP} --tokenize none "
        "--precision bfloat16"
    )
    run = ["--run-dir", str(args.runs / OURS)]
    return [sys.executable, "-m", "keras_transformer", "train", *text, *run, *options.split()]


def joeynmt_files(args):
    """Writes JoeyNMT's vocabulary and configuration, and returns the configuration's path."""
    import sentencepiece

    data, runs = args.data, args.runs
    vocabulary = runs / "joeynmt-vocabulary"
    if not vocabulary.with_suffix(".model").exists():
        sentencepiece.SentencePieceTrainer.train(
            input=[str(data / "train.en"), str(data / "train.de")],
            model_prefix=str(vocabulary),
            model_type="bpe",
            vocab_size=args.vocabulary_size,
            unk_id=0,
            pad_id=1,
            bos_id=2,
            eos_id=3,
            minloglevel=2,
        )
        lines = vocabulary.with_suffix(".vocab").read_text().splitlines()
        pieces = [line.split("\t")[0] for line in lines[4:]]
        vocabulary.with_suffix(".txt").write_text("\n".join(pieces) + "\n")
    side = {
        "level": "bpe",
        "max_length": 256,
        "voc_file": str(vocabulary.with_suffix(".txt")),
        "tokenizer_type": "sentencepiece",
        "tokenizer_cfg": {"model_file": str(vocabulary.with_suffix(".model"))},
    }
    stack = {
        "type": "transformer",
        "num_layers": 4,
        "num_heads": 4,
        "embeddings": {"embedding_dim": 128, "scale": True, "dropout": DROPOUT},
        "hidden_size": 128,
        "ff_size": 256,
        "dropout": DROPOUT,
        "layer_norm": "pre",
    }
    config = {
        "name": "time_to_bleu",
        "joeynmt_version": "2.3.0",
        "model_dir": str(runs / JOEYNMT),
        "use_cuda": False,
        "random_seed": 1,
        "data": {
            "train": str(data / "train"),
            "dev": str(data / "val"),
            "dataset_type": "plain",
            "src": {"lang": "en", **side},
            "trg": {"lang": "de", **side},
            "special_symbols": {
                "unk_token": "<unk>",
                "unk_id": 0,
                "pad_token": "<pad>",
                "pad_id": 1,
                "bos_token": "<s>",
                "bos_id": 2,
                "eos_token": "</s>",
                "eos_id": 3,
            },
        },
        "testing": {
            "load_model": str(runs / "joeynmt-mean.ckpt"),
            "batch_size": 64,
            "batch_type": "sentence",
            "beam_size": 5,
            "beam_alpha": 1.0,
            "max_output_length": 100,
            "eval_metrics": ["bleu"],
            "sacrebleu_cfg": {"tokenize": "none"},
        },
        "training": {
            "batch_size": TOKENS,
            "batch_type": "token",
            "normalization": "tokens",
            "optimizer": "adamw",
            "adam_betas": [0.9, 0.98],
            "scheduling": "warmupinversesquareroot",
            "learning_rate": RATE,
            "learning_rate_min": 0.0001,
            "learning_rate_warmup": WARMUP,
            "loss": "crossentropy",
            "label_smoothing": 0.1,
            "epochs": 1000,
            "updates": args.updates,
            "validation_freq": DECODE_EVERY * args.validate_every,
            "logging_freq": min(50, args.validate_every),
            "early_stopping_metric": "bleu",
            "keep_best_ckpts": -1,
            "print_valid_sents": [],
        },
        "model": {
            "encoder": stack,
            "decoder": stack,
            "initializer": "xavier_uniform",
            "embed_initializer": "xavier_uniform",
            "bias_initializer": "zeros",
            "tied_embeddings": True,
            "tied_softmax": True,
        },
    }
    file = runs / "joeynmt.yaml"
    file.write_text(json.dumps(config, indent=1))  # JSON is YAML
    return file


def our_curve(args):
    from keras_transformer import load_translator
    from keras_transformer.runs.checkpoints import average
    from keras_transformer.runs.run_directory import RunDirectory

    translator = load_translator(args.runs / OURS)
    [model] = translator.models
    checkpoints = RunDirectory.open(args.runs / OURS).checkpoints()

    def translate(chosen):
        model.set_weights(average(chosen))
        sources = lines(args.data / "val.en")
        return translator.translate(sources, beam_size=5, length_penalty="average")

    files = [(each.update, each.path, each) for each in checkpoints]
    return curve(files, translate, args, OURS, args.every)


def joeynmt_curve(args):
    runs, python = args.runs, args.joeynmt
    average = (
        "import sys, torch\n"
        "found = [torch.load(f, map_location='cpu', weights_only=False) for f in sys.argv[2:]]\n"
        "states = [each['model_state'] for each in found]\n"
        "mean = {k: sum(s[k].double() for s in states) / len(states) for k in states[0]}\n"
        "found[0]['model_state'] = {k: v.to(states[0][k].dtype) for k, v in mean.items()}\n"
        "torch.save(found[0], sys.argv[1])\n"
    )

    def translate(chosen):
        mean = str(runs / "joeynmt-mean.ckpt")
        subprocess.run([python, "-c", average, mean, *map(str, chosen)], check=True)
        with (args.data / "val.en").open() as sources:
            found = subprocess.run(
                [python, "-m", "joeynmt", "translate", str(runs / "joeynmt.yaml")],
                stdin=sources,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
        return found.stdout.splitlines()

    files = [path for path in (runs / JOEYNMT).glob("*.ckpt") if path.stem.isdigit()]
    files = sorted((int(path.stem), path, path) for path in files)
    return curve(files, translate, args, JOEYNMT, max(1, args.every // DECODE_EVERY))


def curve(checkpoints, translate, args, name, every):
    """Returns minutes since the start, and BLEU of the means, of every `every`th checkpoint."""
    from keras_transformer.evaluation import bleu

    started = float((args.runs / f"{name}.started").read_text())
    references, points = lines(args.data / "val.de"), []
    for end in range(len(checkpoints), 0, -every):
        update, path, _ = checkpoints[end - 1]
        scores = {}
        for count in MEANS:
            if count <= end:
                chosen = [each for _, _, each in checkpoints[end - count : end]]
                scores[count] = bleu(translate(chosen), references, tokenize="none").value
        minutes = (path.stat().st_mtime - started) / 60
        points.append({"update": update, "minutes": minutes, "bleu": scores})
        print(name, points[-1], flush=True)
    return points[::-1]


def lines(file):
    return file.read_text().splitlines()


def print_report(report, goal):
    for name, points in report["curves"].items():
        print(f"\n{name:>18}{'minutes':>10}{'BLEU':>8}  mean of")
        for point in points:
            count, best = max(point["bleu"].items(), key=lambda item: item[1])
            print(f"{point['update']:>18}{point['minutes']:>10.1f}{best:>8.2f}  {count}")
        reached = [p["minutes"] for p in points if max(p["bleu"].values()) >= goal]
        print(f"{goal:g} BLEU: " + (f"{min(reached):.1f} minutes" if reached else "not reached"))


if __name__ == "__main__":
    main()
