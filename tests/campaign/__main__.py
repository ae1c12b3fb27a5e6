"""Runs the campaign for some minutes and prints how many cases there were, and each failure."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path += [str(Path(__file__).parents[n] / folder) for n, folder in ((1, ""), (2, "recipes"))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="also write the result as JSON")
    parser.add_argument("--only", default="", help="turns whose names begin so: kills.fit")
    parser.add_argument("--number", type=int, help="repeat this case of each turn")
    parser.add_argument("--backend", help="tensorflow or jax; by default both, side by side")
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)  # a fresh start
    args = parser.parse_args()
    if args.train:
        fresh(*args.train)
        return
    result = one(args) if args.backend else both(args)
    print(json.dumps({key: value for key, value in result.items() if key != "texts"}))
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result["failures"]))


def both(args):
    """The results of a process for each backend that is installed."""
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for backend in ("tensorflow", "jax"):
            if importlib.util.find_spec(backend):
                output = f"{folder}/{backend}.json"
                command = [sys.executable, "-m", "campaign", *sys.argv[1:]]
                command += ["--backend", backend, "--output", output]
                running[output] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for process in running.values():
            process.wait()
        found = [json.loads(Path(output).read_text()) for output in running]
    cases = {
        f"{each['backend']} {name}": count
        for each in found
        for name, count in each["cases"].items()
    }
    return {
        "minutes": args.minutes,
        "seed": args.seed,
        "cases": cases,
        "failures": sum(each["failures"] for each in found),
        "texts": [text for each in found for text in each["texts"]],
    }


def one(args):
    """The result on one backend, in this process."""
    os.environ["KERAS_BACKEND"] = args.backend
    from campaign import turns

    with tempfile.TemporaryDirectory() as folder:
        counts, failures = turns.play(Path(folder), args.minutes, args.seed, args.only, args.number)
    return {
        "minutes": args.minutes,
        "seed": args.seed,
        "backend": args.backend,
        "cases": counts,
        "failures": len(failures),
        "texts": failures,
    }


def fresh(name, path):
    """Trains in this process, as a user's own process does."""
    from campaign import trainings

    print("imported", flush=True)
    trainings.TRAININGS[name](Path(path))


if __name__ == "__main__":
    main()
