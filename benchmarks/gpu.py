"""Measures training and decoding speed on a GPU with JAX. Needs only keras, jax and numpy.

    KERAS_BACKEND=jax python benchmarks/gpu.py [--output gpu.json]

Training uses `compile` and `fit` as the command `train` does, in mixed_bfloat16, on full batches of
about 25,000 tokens per side, as in the paper (section 5.1). The table has target tokens/s (median
over the rounds), the share of the GPU's matrix-product rate, and the peak of device memory. The
share is the arithmetic of the model's matrix products, forward and backward, per second, divided by
the rate of square bfloat16 matrices in the same process.

Decoding is the compiled greedy search, to the full length in every row.

Both run with Keras' flash attention allowed and forbidden. The column "attention" says what was
traced: cudnn (flash), xla, or own (the layer's own matrix products). JAX reports the peak of a
process, so every training cell has a process of its own. The decoding cells of a model share one,
smallest first. A cell that fails, for example out of memory, is a line of the report. The file is
written after every cell.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from contest import Contestant, cpu, versions

KINDS = ("train", "decode")
CELL = Path(__file__).parent / "gpu_cell.py"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole = {"type": int, "nargs": "+"}
    parser.add_argument("--size", nargs="+", default=["base", "big"], help="names of presets")
    parser.add_argument("--only", choices=KINDS, help="measure only this")
    parser.add_argument("--flash", nargs="+", choices=("on", "off"), default=["on", "off"])
    parser.add_argument("--vocabulary-size", type=int, default=37_000)
    of_tokens = "tokens per training batch and side; decoding uses at most twice as many"
    parser.add_argument("--tokens", type=int, default=25_600, help=of_tokens)
    parser.add_argument("--length", **whole, default=[64, 256], help="tokens per training sentence")
    parser.add_argument("--rows", **whole, default=[1, 8, 64, 512], help="rows decoded at once")
    parser.add_argument("--decode-length", **whole, default=[24, 64], help="tokens per side")
    parser.add_argument("--steps", type=int, default=50, help="training steps per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--logs", default="benchmark-logs", help="folder for what cells print")
    args = parser.parse_args()
    report = {
        **cpu(),
        "device": None,
        "versions": versions("keras", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin"),
        "command": sys.argv,
        **{kind: [] for kind in KINDS},
    }
    for kind in [args.only] if args.only else KINDS:
        print(header(kind), flush=True)
        for size in args.size:
            for flash in args.flash:
                for cell in cells(kind, size, flash, args):
                    report["device"] = cell.pop("device", report["device"])
                    report[kind].append(cell)
                    print(line(kind, cell), flush=True)
                    if args.output:
                        Path(args.output).write_text(json.dumps(report, indent=1) + "\n")
        print()
    print(f"{report['device']}; {report['versions']}")
    return 0 if any("error" not in cell for kind in KINDS for cell in report[kind]) else 1


def cells(kind, size, flash, args):
    """Yields the measured cells of one model, one after the other."""
    if kind == "train":
        shapes = [(max(1, args.tokens // length), length) for length in args.length]
    else:
        shapes = [(rows, length) for rows in args.rows for length in args.decode_length]
        shapes.sort(key=lambda shape: shape[0] * shape[1])
        shapes = [shape for shape in shapes if shape[0] * shape[1] <= 2 * args.tokens]
    config = {
        "kind": kind,
        "size": size,
        "flash": flash,
        "vocabulary_size": args.vocabulary_size,
        "steps": args.steps,
        "rounds": args.rounds,
    }
    running = None
    for rows, length in shapes:
        cell = {"size": size, "flash": flash, "rows": rows, "length": length}
        try:
            if running is None:
                log = Path(args.logs) / f"gpu-{kind}-{size}-flash-{flash}-{rows}x{length}.txt"
                running = Contestant(f"{kind} {size}", CELL, config, log)
            cell |= {**running.facts, **running.ask({"rows": rows, "length": length})}
            if kind == "train":
                running.close()
                running = None
        except RuntimeError as error:  # the contestant has closed its process
            cell["error"] = str(error)
            running = None
        yield cell
    if running:
        running.close()


COLUMNS = {"size": 7, "flash": 6, "rows": 6, "length": 7, "attention": 10}
FIGURES = {
    "train": {"target tokens/s": 16, "of the rate": 12, "TFLOP/s at best": 16},
    "decode": {"tokens/s": 16, "ms per step": 12},
}
COMMON = {"peak GiB": 10, "first call": 11}


def header(kind):
    columns = {**COLUMNS, **FIGURES[kind], **COMMON}
    return f"{kind}\n" + "".join(f"{name:>{width}}" for name, width in columns.items())


def line(kind, cell):
    values = {name: cell.get(name, "") for name in COLUMNS}
    start = "".join(f"{values[name]:>{width}}" for name, width in COLUMNS.items())
    if "error" in cell:
        return f"{start}  {cell['error']}"
    figures = f"{cell['tokens_per_second']:16,.0f}"
    if kind == "train":
        figures += f"{cell['share_of_matmul_rate']:12.1%}{cell['matmul_rate'] / 1e12:16,.3g}"
    else:
        figures += f"{1000 * cell['seconds_a_step']:12.3f}"
    peak = cell["peak_bytes"]  # None on CPUs
    peak = f"{peak / 2**30:10.2f}" if peak else f"{'?':>10}"
    return f"{start}{figures}{peak}{cell['first_seconds']:9.1f} s"


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    sys.exit(main())
