"""Training speed of versions of this package against each other, in turns.

    git worktree add ../before HEAD~3
    taskset -c 1 python benchmarks/compare.py ../before . --size tiny --dtype bfloat16

Each version trains in a process of its own on the batches of train.py. Printed are milliseconds a
step, of wall-clock and of processor time, which other jobs on the machine disturb less, and how
many times quicker than the first version each is. On one core (taskset) processor time is that of
the work alone, without what threads spend on waiting for each other.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from contest import Contestant
from train import HERE, SIZES, TOKENS, VOCABULARY, write_batches


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", nargs="+", metavar="FOLDER", help="checkouts of this repository")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batches", type=int, default=8, help="distinct batches, and steps a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each version")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batches.npz"
        write_batches(file, VOCABULARY[args.size], TOKENS[args.size], args.batches)
        config = {
            "size": SIZES[args.size],
            "vocabulary_size": VOCABULARY[args.size],
            "dtype": args.dtype,
            "batches": str(file),
        }
        running, first = [], []
        for i, tree in enumerate(args.trees):
            path = {"PYTHONPATH": str(Path(tree).resolve())}
            log = Path(folder) / f"{i}.txt"
            worker = HERE / "keras_transformer_fit.py"
            running.append(Contestant(tree, worker, config, log, environment=path))
            first.append(running[-1].ask({"steps": 1}))
            running[-1].ask({"steps": args.batches})  # meets every shape
        replies = [[] for _ in running]
        for _ in range(args.rounds):
            for contestant, found in zip(running, replies, strict=True):
                found.append(contestant.ask({"steps": args.batches}))
        for contestant in running:
            contestant.close()
    names = ("seconds", "cpu_seconds")
    steps = [
        [1000 * statistics.median(reply[name] for reply in found) / args.batches for name in names]
        for found in replies
    ]
    print(f"{args.size} {args.dtype}: ms a step, of the processor, times quicker; first step")
    for tree, (wall, cpu), begin in zip(args.trees, steps, first, strict=True):
        gain = steps[0][1] / cpu
        print(f"{wall:8.0f}{cpu:8.0f}{gain:8.2f}{begin['cpu_seconds']:8.1f} s  {tree}")


if __name__ == "__main__":
    main()
