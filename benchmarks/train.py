"""Compares training speed with KerasHub, PyTorch and JoeyNMT, on the same batches in one run.

    python benchmarks/train.py [--joeynmt PYTHON] [--output train.json]

Every contestant trains the same post-norm model (tied embeddings, dropout, label smoothing if it
has one) on the same padded batches, in a process of its own. They take turns. The batches hold
random ids in lengths like those of short captions (Multi30k). The table has target tokens/s without
padding (median over the rounds), our speed divided by the contestant's, and its share of the
machine's matrix-product rate in that dtype. The share is the arithmetic of the model's matrix
products, forward and backward, per second, divided by the rate of square matrices in the same run.

JoeyNMT needs other versions of shared libraries, so it runs in another Python:
`python -m venv joey; joey/bin/pip install joeynmt==2.3.0 sentencepiece==0.2.0 importlib_metadata`.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from contest import Contestant, cpu, versions

HERE = Path(__file__).parent / "training"
SIZES = {
    "tiny": {"num_layers": 4, "d_model": 128, "num_heads": 4, "d_ff": 256, "dropout": 0.3},
    "base": {"num_layers": 6, "d_model": 512, "num_heads": 8, "d_ff": 2048, "dropout": 0.1},
}
VOCABULARY = {"tiny": 10_000, "base": 37_000}
TOKENS = {"tiny": 4096, "base": 1024}  # per batch and side
CONTESTANTS = ["keras_transformer_fit", "keras_hub_fit", "pytorch_eager", "pytorch_compiled"]
OURS = CONTESTANTS[0]
ON_REQUEST = ["keras_transformer_xla"]  # compiles once per shape; "first step" is for one shape


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"]
    )
    parser.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS + ON_REQUEST, default=CONTESTANTS
    )
    parser.add_argument("--joeynmt", metavar="PYTHON", help="an interpreter that has JoeyNMT")
    parser.add_argument("--batches", type=int, default=8, help="batches, which are steps per turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns per contestant")
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    parser.add_argument(
        "--logs", default="benchmark-logs", help="folder for what contestants print"
    )
    args = parser.parse_args()
    report = {
        **cpu(),
        "versions": versions("tensorflow", "keras", "keras-hub", "torch"),
        "command": sys.argv,
        "cells": [],
    }
    for size in args.size:
        for dtype in args.dtype:
            cell = contest(size, dtype, args)
            report["cells"].append(cell)
            print_cell(cell)
            if args.output:
                Path(args.output).write_text(json.dumps(report, indent=1) + "\n")


def contest(size, dtype, args):
    names = args.contestants + (["joeynmt_loop"] if args.joeynmt else [])
    names += ["matmul_tensorflow", "matmul_pytorch"]
    cell = {"size": size, "dtype": dtype, "contestants": {}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batches.npz"
        cell |= write_batches(file, VOCABULARY[size], TOKENS[size], args.batches)
        cell["operations"] = operations(cell.pop("shapes"), SIZES[size], VOCABULARY[size])
        config = {
            "size": SIZES[size],
            "vocabulary_size": VOCABULARY[size],
            "dtype": dtype,
            "batches": str(file),
        }
        running = {}
        for name in names:
            python = args.joeynmt if name == "joeynmt_loop" else None
            log = Path(args.logs) / f"{size}-{dtype}-{name}.txt"
            try:
                running[name] = Contestant(name, HERE / f"{name}.py", config, log, python)
                if not name.startswith("matmul"):
                    first = running[name].ask({"steps": 1})["seconds"]
                    running[name].ask({"steps": args.batches})  # meets every shape
                    cell["contestants"][name] = {
                        **running[name].facts,
                        "first_step": first,
                        "seconds": [],
                    }
            except RuntimeError as error:
                print(f"{size} {dtype}: {error}", file=sys.stderr)
                running.pop(name, None)
        rates = []
        for turn in range(args.rounds):
            order = list(running.items())
            # Every round begins with another one, because the last may leave the machine slower.
            for name, contestant in order[turn % len(order) :] + order[: turn % len(order)]:
                if name.startswith("matmul"):
                    rates.append(contestant.ask({"seconds": 1})["rate"])
                else:
                    seconds = contestant.ask({"steps": args.batches})["seconds"]
                    cell["contestants"][name]["seconds"].append(seconds)
        for contestant in running.values():
            contestant.close()
    cell["matmul_rate"] = max(rates)
    for result in cell["contestants"].values():
        seconds = statistics.median(result["seconds"])
        result["tokens_per_second"] = cell["target_tokens"] / seconds
        result["share_of_matmul_rate"] = cell["operations"] / seconds / cell["matmul_rate"]
    return cell


def write_batches(file, vocabulary_size, tokens, count):
    """Writes `count` batches of one plan; returns their shapes and number of target tokens."""
    from keras_transformer import data

    rng = np.random.default_rng(1)
    pairs = 8 * count * tokens // 16
    lengths = caption_lengths(rng, pairs)
    sides = {}  # both sides of a pair have similar lengths
    for side in ("source", "target"):
        each = np.maximum(2, np.round(lengths * rng.lognormal(0, 0.15, pairs))).astype(int)
        sides[f"{side}_offsets"] = np.concatenate([[0], np.cumsum(each)])
        sides[f"{side}_ids"] = rng.integers(4, vocabulary_size, each.sum()).astype("int32")
    encoded = data.EncodedPairs(
        **sides,
        source_end_id=3,
        target_start_id=2,
        target_end_id=3,
        max_length=256,
        dropped_empty=0,
        dropped_long=0,
    )
    plan = data.BatchPlan(encoded, tokens, seed=1, shapes="dynamic")
    arrays, shapes, target_tokens = {}, [], 0
    for i in range(count):
        [(inputs, labels, weights)] = plan.batches(i)
        arrays |= {
            f"source_{i}": inputs["source_ids"],
            f"target_{i}": inputs["target_ids"],
            f"labels_{i}": labels,
            f"weights_{i}": weights,
        }
        shapes.append((*inputs["source_ids"].shape, labels.shape[1]))
        target_tokens += int((labels > 0).sum())
    np.savez(file, **arrays)
    return {"shapes": shapes, "target_tokens": target_tokens}


def caption_lengths(rng, count):
    """Returns lengths like those of Multi30k's captions in 10,000 pieces: about 14 tokens."""
    return np.clip(rng.lognormal(2.6, 0.3, count), 4, 40)


def operations(shapes, size, vocabulary_size):
    """Counts multiplications and additions of all matrix products, forward and backward."""
    d, f, layers = size["d_model"], size["d_ff"], size["num_layers"]
    total = 0
    for rows, source, target in shapes:
        encoder = source * (4 * d * d + 2 * d * f) + 2 * source * source * d
        decoder = target * (6 * d * d + 2 * d * f) + 2 * source * d * d
        decoder += 2 * target * (target + source) * d
        total += rows * (layers * (encoder + decoder) + target * d * vocabulary_size)
    return 6 * total


def print_cell(cell):
    rate = cell["matmul_rate"] / 1e9
    print(f"\n{cell['size']} {cell['dtype']}: matrix products {rate:.0f} GFLOP/s at best")
    columns = ("", 24), ("target tokens/s", 16), ("ours / this", 12), ("of the rate", 12)
    print("".join(f"{name:>{width}}" for name, width in (*columns, ("first step", 12))))
    ours = cell["contestants"].get(OURS)
    for name, result in cell["contestants"].items():
        speed = result["tokens_per_second"]
        ratio = f"{ours['tokens_per_second'] / speed:.2f}" if ours else ""
        print(
            f"{name:>24}{speed:16,.0f}{ratio:>12}{result['share_of_matmul_rate']:12.0%}"
            f"{result['first_step']:10.1f} s"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
