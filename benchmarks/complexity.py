"""Measures Table 1 of the paper: operations, time, memory and path lengths of layers.

    python benchmarks/complexity.py [--output complexity.json] [--picture FILE] [--markdown FILE]

The layers are self-attention (`MultiHeadAttention`), the same without its projections, which
Table 1 leaves out, both again restricted to a neighbourhood of r, and Keras' SimpleRNN, LSTM,
Conv1D and SeparableConv1D with kernel k. All map n vectors of width d to n vectors, with 64
numbers per head, on one sequence, in float32, on the processor.

Three figures are counted in the graphs that JAX traces: multiplications; the longest chain of
products in which every product needs the one before; and how often a layer is applied until the
first position reaches the last. Times are measured forward and with all gradients. Exponents are
the slope of a line through the logarithms. Memory is what a step takes beyond its weights and
inputs; every length runs in a process of its own.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from pathlib import Path

from contest import Contestant, cpu, versions
from table1 import tables

WAYS = ("forward", "both")
FULL = {
    "lengths": [512, 1024, 2048, 4096],  # at this width:
    "width": 64,
    "widths": [128, 256, 512, 1024],  # at this length:
    "length": 512,
    "memory_lengths": [1024, 2048, 4096],
    "memory_width": 256,
    "chains": [128, 256, 512],
    "crossing_widths": [128, 256, 512],
    "crossing_lengths": [0.25, 0.5, 1, 2, 4, 8],  # times the width
    "neighbourhood": 64,
    "kernel": 3,
    "rounds": 3,
}
QUICK = {
    "lengths": [64, 128],
    "widths": [64, 128],
    "length": 64,
    "memory_lengths": [128],
    "memory_width": 64,
    "chains": [16, 32],
    "crossing_widths": [64],
    "crossing_lengths": [1, 2],
    "neighbourhood": 8,
    "rounds": 1,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", nargs="+", choices=tables.LAYERS, default=[*tables.LAYERS])
    parser.add_argument(
        "--backend", choices=("jax", "tensorflow"), default="jax", help="the backend that is timed"
    )
    parser.add_argument(
        "--rounds", type=int, help="how often every cell is timed; default: 3, with --quick 1"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, for a first look")
    parser.add_argument(
        "--report", metavar="FILE", help="measure nothing and read an earlier --output"
    )
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--markdown", metavar="FILE", help="also write the tables as Markdown")
    parser.add_argument("--picture", metavar="FILE", help="also draw time and memory")
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}")
    if not args.report and importlib.util.find_spec("jax") is None:
        parser.error("operations are counted in JAX's graphs; run: pip install -e '.[jax]'")
    for file in filter(None, (args.output, args.markdown, args.picture)):
        if not Path(file).absolute().parent.is_dir():
            parser.error(f"the folder of {file} does not exist; make it first")
    if args.report:
        if not Path(args.report).is_file():
            parser.error(f"there is no file {args.report}; --report needs a file from --output")
        report = json.loads(Path(args.report).read_text())
    else:
        sizes = {**FULL, **(QUICK if args.quick else {})}
        if args.rounds is not None:
            sizes["rounds"] = args.rounds
        report = measured(args.layers, args.backend, sizes)
    found = tables.tables(report)
    print("\n\n".join(map(tables.as_text, found)))
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1) + "\n")
    if args.markdown:
        Path(args.markdown).write_text("\n".join(map(tables.as_markdown, found)))
    if args.picture:
        tables.draw(report).savefig(args.picture, dpi=110)


def measured(layers, backend, sizes):
    """Returns the whole report, as `--output` writes it."""
    report = {**cpu(), "versions": versions(backend, "keras"), "command": sys.argv}
    report.update(sizes=sizes, backend=backend)
    with tempfile.TemporaryDirectory() as logs:

        def start(name, backend=backend, **environment):
            # When memory is measured, freed blocks go back to the system at once. Otherwise they
            # are kept, which is faster.
            config = {name: sizes[name] for name in ("neighbourhood", "kernel")}
            config["keep"] = not environment
            environment.update(
                KERAS_BACKEND=backend, JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="-1"
            )
            file = Path(__file__).parent / "table1" / "measure.py"
            log = Path(logs) / f"{name}.txt"
            return Contestant(name, file, config, log, environment=environment)

        clock = start("times")
        counter = clock if backend == "jax" else start("counts", "jax")
        report["paths"] = paths(counter, layers, sizes)
        report["counts"] = counts(counter, layers, sizes)
        report["crossings"] = crossings(counter, layers, sizes)
        report["times"] = times(clock, layers, sizes)
        clock.close()
        counter.close()
        report["memory"] = memory(start, layers, sizes)
    return report


def grid(sizes):
    """Returns the pairs (n, d) to which exponents are fitted."""
    by_length = [(n, sizes["width"]) for n in sizes["lengths"]]
    return by_length + [(sizes["length"], d) for d in sizes["widths"]]


def paths(counter, layers, sizes):
    found = []
    for row in tables.PATHS:
        if tables.PATHS[row] in layers:
            for n in sizes["chains"]:
                reply = counter.ask({"what": "path", "row": row, "n": n, "d": 8})
                found.append({"layer": row, "n": n, **reply})
    return found


def counts(counter, layers, sizes):
    """Counts operations and chains of both ways, at every timed size and at `chains`."""
    chosen = dict.fromkeys([*grid(sizes), *((n, sizes["width"]) for n in sizes["chains"])])
    return [
        {"layer": layer, "n": n, "d": d, "way": way, **figures}
        for layer in layers
        for n, d in chosen
        for way, figures in counter.ask({"what": "count", "row": layer, "n": n, "d": d}).items()
    ]


def crossings(counter, layers, sizes):
    """Finds the least n at which attention takes as many operations as the recurrence."""
    found = []
    for attention, recurrence in tables.pairs(layers):
        for d in sizes["crossing_widths"]:

            def more(n, pair=(attention, recurrence), d=d):
                first, second = (
                    counter.ask({"what": "count", "row": row, "n": n, "d": d})["forward"]
                    for row in pair
                )
                return first["operations"] >= second["operations"]

            low, high = 16, 16 * d  # below 16 some products are sums, which are not counted
            if more(low):
                n = "always"
            elif not more(high):
                n = "never"
            else:
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (low, middle) if more(middle) else (middle, high)
                n = high
            found.append({"attention": attention, "recurrence": recurrence, "d": d, "n": n})
    return found


def times(clock, layers, sizes):
    """Returns the median seconds of every cell. Every round times all cells again."""
    cells = {(layer, n, d): [] for layer in layers for n, d in grid(sizes)}
    crossing = [
        (round(d * factor), d)
        for d in sizes["crossing_widths"]
        for factor in sizes["crossing_lengths"]
    ]
    for layer in dict.fromkeys(layer for pair in tables.pairs(layers) for layer in pair):
        cells.update({(layer, n, d): [] for n, d in crossing})
    cells = {(*cell, way): [] for cell in cells for way in WAYS}
    for number in range(sizes["rounds"]):
        for (layer, n, d, way), seconds in cells.items():
            request = {"what": "time", "row": layer, "n": n, "d": d, "backward": way == "both"}
            seconds += clock.ask(request)["seconds"]
        print(f"round {number + 1} of {sizes['rounds']} timed", file=sys.stderr, flush=True)
    return [
        {"layer": layer, "n": n, "d": d, "way": way, "seconds": statistics.median(seconds)}
        for (layer, n, d, way), seconds in cells.items()
    ]


def memory(start, layers, sizes):
    found = []
    for layer in layers:
        for n in sizes["memory_lengths"]:
            worker = start(f"{layer}-{n}", MALLOC_MMAP_THRESHOLD_="65536")
            d = sizes["memory_width"]
            reply = worker.ask({"what": "memory", "row": layer, "n": n, "d": d})
            worker.close()
            found += [
                {"layer": layer, "n": n, "d": d, "way": way, "mebibytes": value}
                for way, value in reply.items()
            ]
    return found


if __name__ == "__main__":
    main()
