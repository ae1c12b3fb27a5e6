"""Compares training and decoding speed of versions of this package, which take turns.

    git worktree add ../before HEAD~3
    taskset -c 1 python benchmarks/compare.py ../before . --size tiny --dtype bfloat16
    python benchmarks/compare.py ../before . --task greedy beam --size base

If the versions write other files, run the oldest one's compare.py, with its folder as PYTHONPATH:
later versions read its models.

Every version runs in a process of its own, with its own files of benchmarks/. It trains on the
batches of train.py, or translates the random sentences of decode.py (24 tokens per translation, 64
sentences per call, and one at a time). The tables have the median milliseconds per step or per
sentence, and how many times faster a version is than the first one. For training the comparison
uses processor time, because other jobs on the machine disturb it less. On one core (taskset)
threads do not wait for each other, so it is the time of the work itself.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from contest import Contestant
from train import SIZES, TOKENS, VOCABULARY, write_batches

BEAMS = {"greedy": 1, "beam": 4}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", nargs="+", metavar="FOLDER", help="checkouts of this repository")
    parser.add_argument("--task", nargs="+", choices=("train", *BEAMS), default=["train"])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batches", type=int, default=8, help="batches, which are steps per turn")
    parser.add_argument("--sentences", type=int, default=512, help="sentences to decode per turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns per version")
    args = parser.parse_args()
    for task in args.task:
        with tempfile.TemporaryDirectory() as folder:
            if task == "train":
                compare_training(args, Path(folder))
            else:
                compare_decoding(args, Path(folder), task)


def compare_training(args, folder):
    write_batches(folder / "batches.npz", VOCABULARY[args.size], TOKENS[args.size], args.batches)
    config = {
        "size": SIZES[args.size],
        "vocabulary_size": VOCABULARY[args.size],
        "dtype": args.dtype,
        "batches": str(folder / "batches.npz"),
    }
    running = start(args.trees, "training/keras_transformer_fit.py", config, folder)
    first = [each.ask({"steps": 1}) for each in running]
    for each in running:
        each.ask({"steps": args.batches})  # meets every shape
    replies = take_turns(running, {"steps": args.batches}, args.rounds)
    for each in running:
        each.close()
    wall, cpu = (
        [milliseconds(found, name, args.batches) for found in replies]
        for name in ("seconds", "cpu_seconds")
    )
    print(f"train {args.size} {args.dtype}: ms per step, CPU ms per step, times faster, first step")
    for i, tree in enumerate(args.trees):
        gain, begin = cpu[0] / cpu[i], first[i]["cpu_seconds"]
        print(f"{wall[i]:8.0f}{cpu[i]:8.0f}{gain:8.2f}{begin:8.1f} s  {tree}", flush=True)


def compare_decoding(args, folder, task):
    from decoding import workload

    model = workload.random_model(args.size)
    sentences = workload.random_sentences(VOCABULARY[args.size], args.sentences)
    workload.write(folder, model, sentences, workload.SPECIAL, [None])
    del model
    config = {"folder": str(folder), "cores": None}
    running = start(args.trees, "decoding/keras_transformer_translate.py", config, folder)
    request = {"beam_size": BEAMS[task], "tokens": 24, "compared": False}
    for at_once, count, setting in (
        (False, min(24, args.sentences), {}),
        (True, args.sentences, {"long_file": False, "batch_size": 64}),
    ):
        asked = {**request, "one_by_one": not at_once, "count": count, "setting": setting}
        for each in running:
            each.ask(asked)  # compiles every shape
        replies = take_turns(running, asked, args.rounds, total=True)
        times = [milliseconds(found, "seconds", count) for found in replies]
        print(
            f"{task} {args.size}, {'64 at once' if at_once else 'one at a time'}: ms per sentence"
        )
        for tree, each in zip(args.trees, times, strict=True):
            print(f"{each:8.2f}{times[0] / each:8.2f}  {tree}", flush=True)
    for each in running:
        each.close()


def start(trees, worker, config, folder):
    """Starts one contestant per version, with its own package and its own worker."""
    return [
        Contestant(
            tree,
            Path(tree).resolve() / "benchmarks" / worker,
            config,
            folder / f"{i}.txt",
            environment={"PYTHONPATH": str(Path(tree).resolve())},
        )
        for i, tree in enumerate(trees)
    ]


def take_turns(running, request, rounds, total=False):
    """Returns the replies per contestant. Every round begins with another contestant."""
    replies = [[] for _ in running]
    for turn in range(rounds):
        order = list(range(len(running)))
        for i in order[turn % len(order) :] + order[: turn % len(order)]:
            reply = running[i].ask(request)
            replies[i].append({"seconds": sum(reply["seconds"])} if total else reply)
    return replies


def milliseconds(found, name, count):
    return 1000 * statistics.median(reply[name] for reply in found) / count


if __name__ == "__main__":
    main()
