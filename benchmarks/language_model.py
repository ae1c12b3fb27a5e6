"""Compares this package's recipe for a character language model with nanoGPT's own script.

    python benchmarks/language_model.py --nanogpt FOLDER --text input.txt [--rounds 2]

`FOLDER` is a checkout of nanoGPT. A copy of it gets the text's characters as its `train.bin` and
`val.bin` (the first 90 % and the rest, as in recipes/language_model.py). It runs with the command
that nanoGPT's readme gives for a processor: 4 layers, 4 heads, width 128, 64 characters of context,
batches of 12, 2,000 updates, no dropout. Both run as whole processes, on all cores, in turn. Every
round has another seed for ours; nanoGPT's script fixes its own. The output has the wall-clock time
of the processes, and the loss of both models on the whole validation text in windows of 64.
nanoGPT's script prints estimates from 20 random batches; they are in the output too.
"""

import argparse
import json
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from contest import cpu, versions

RECIPE = Path(__file__).parents[1] / "recipes" / "language_model.py"
SIZES = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64, "batch_size": 12}
# Runs inside the copy: scores the windows of val.bin with the model of nanoGPT's checkpoint.
SCORE = """
import numpy as np, torch
from model import GPT, GPTConfig
saved = torch.load("out-shakespeare-char/ckpt.pt", weights_only=True)
model = GPT(GPTConfig(**saved["model_args"]))
model.load_state_dict(saved["model"])
model.eval()
ids = torch.from_numpy(np.fromfile("data/shakespeare_char/val.bin", "uint16").astype("int64"))
total, count, window = 0.0, 0, model.config.block_size
with torch.no_grad():
    for begin in range(0, len(ids) - 1, 100 * window):
        part = ids[begin : begin + 100 * window + 1]
        full = (len(part) - 1) // window * window
        for x, y in ((part[:full], part[1 : full + 1]), (part[full:-1], part[full + 1 :])):
            if len(x):
                shape = (-1, min(window, len(x)))
                loss = model(x.reshape(shape), y.reshape(shape))[1]
                total, count = total + loss.item() * len(x), count + len(x)
print("nats", total / count)
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nanogpt", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    args = parser.parse_args()
    for file in (args.nanogpt / "train.py", args.text):
        if not file.is_file():
            parser.error(f"no such file: {file}")
    report = {**cpu(), "versions": versions("tensorflow", "keras", "torch"), "command": sys.argv}
    report["runs"] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, args.rounds + 1):
            for contestant in (ours, nanogpt):
                run = {"contestant": contestant.__name__, "round": seed}
                run |= contestant(args, Path(folder) / f"{contestant.__name__}-{seed}", seed)
                report["runs"].append(run)
                print(json.dumps(run), flush=True)
    for name in ("ours", "nanogpt"):
        runs = [run for run in report["runs"] if run["contestant"] == name]
        seconds, nats = (statistics.mean(run[key] for run in runs) for key in ("seconds", "nats"))
        print(f"{name:>8}: {seconds:6.1f} s, {nats:.4f} nats per character, mean of {len(runs)}")
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1) + "\n")


def ours(args, run, seed):
    output, seconds = timed(
        [sys.executable, RECIPE, "--text", args.text.resolve(), "--run-dir", run, "--seed", seed]
        + ["--updates", args.updates, "--validate-every", min(500, args.updates)]
    )
    return {"seconds": seconds, "nats": float(re.search(r"([\d.]+) nats", output)[1])}


def nanogpt(args, copy, seed):
    shutil.copytree(args.nanogpt, copy, ignore=shutil.ignore_patterns(".git"))
    text = args.text.read_text(encoding="utf-8")
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = np.array([number[character] for character in text], "uint16")
    data = copy / "data" / "shakespeare_char"
    data.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("train", "val"), np.split(ids, [int(0.9 * len(ids))]), strict=True):
        part.tofile(data / f"{name}.bin")
    options = {**SIZES, "max_iters": args.updates, "lr_decay_iters": args.updates}
    options |= {"device": "cpu", "compile": False, "eval_iters": 20, "log_interval": 1}
    options |= {"dropout": 0.0, "eval_interval": min(250, args.updates)}
    # Without this file nanoGPT would use the 50,304 entries of GPT-2's vocabulary.
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(number)}))
    output, seconds = timed(
        [sys.executable, "train.py", "config/train_shakespeare_char.py"]
        + [f"--{name}={value}" for name, value in options.items()],
        copy,
    )
    score, _ = timed([sys.executable, "-c", SCORE], copy)
    estimates = [float(loss) for loss in re.findall(r"val loss ([\d.]+)", output)]
    return {"seconds": seconds, "nats": float(score.split()[-1]), "its_estimates": estimates}


def timed(command, folder=None):
    """Runs a process and returns its output and its seconds."""
    begin = time.perf_counter()
    done = subprocess.run(map(str, command), cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[1]} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout, time.perf_counter() - begin


if __name__ == "__main__":
    main()
