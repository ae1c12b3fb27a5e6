"""Runs the campaign for some minutes and prints how many cases there were, and each failure."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).parents[1]))


def campaign(minutes, seed, folder):
    """Returns the number of cases of each kind, and the failures as texts."""
    # Forks inherit what is imported. Nothing is computed here: a fork has none of its threads.
    import keras  # noqa: F401
    import numpy as np
    from noisy_line import build  # noqa: F401

    from campaign.damage import Damage
    from campaign.kills import Kills
    from keras_transformer import cli, load_translator  # noqa: F401

    rng, end = np.random.default_rng(seed), time.monotonic() + 60 * minutes
    for name in ("kills", "damage"):
        (folder / name).mkdir()
    kills, damage = Kills(folder / "kills", rng), Damage(folder / "damage", rng)
    turns = [kills.at_any_time, kills.at_the_next_call, damage.files, damage.inputs]
    failures, number = [], 0
    while time.monotonic() < end or number < len(turns):
        if wrong := turns[number % len(turns)]():
            failures.append(wrong)
            print(wrong, file=sys.stderr, flush=True)
        number += 1
    return {"kills": kills.count, "damaged files and inputs": damage.count}, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="also write the result as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = campaign(args.minutes, args.seed, Path(folder))
    result = {"minutes": args.minutes, "seed": args.seed, **counts, "failures": len(failures)}
    print(json.dumps(result))
    if args.output:
        args.output.write_text(json.dumps(result | {"texts": failures}, indent=1) + "\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
