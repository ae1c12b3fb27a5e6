"""Compares translation speed with CTranslate2, Hugging Face and a loop without cache.

    python benchmarks/decode.py [--run RUN --source FILE] [--output decode.json]

All contestants have the same weights. Sizes "tiny" and "base" are those of train.py with random
weights, which never choose the end, so every translation has 24 tokens. `--run` adds a trained run
of this package as a third size. Its translations end by themselves, at most 50 tokens after the
length of the source. `keras_transformer_auto` is `engine="auto"`: CTranslate2 behind this package's
`Translator`. `--source` is plain text with one sentence per line, which all sizes translate
as ids of the run's tokenizer. Without it the sentences are random ids in the lengths of short
captions. Weights are float32, except those of contestants in `int8`. Tokenizing is not timed.

Latency is the time of one sentence at a time: one right after the other, or with a pause of 50 ms
before each, as requests come to a server that has little to do. Throughput is that of a file of
2,000 sentences (400 for "base", to save time). "40 tokens" is the greedy latency of translations of
that length, and includes the loops without cache. `--search sample` draws each token from the
likeliest that together reach probability 0.9; `auto` is left out, because for samples it is our own
engine.

Every contestant first finds its best setting on a part of the sentences, and compiles. Then the
contestants are asked in turn. The tables have medians over the rounds, and the share of sentences
with the same ids as ours. If a float32 contestant shares less than 97 %, the exit status is 1.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from contest import Contestant, cpu, versions

HERE = Path(__file__).parent / "decoding"
# Per contestant: its file, its part of the config, and the model format that it needs.
CONTESTANTS = {
    "keras_transformer": ("keras_transformer_translate", {}, None),
    "keras_transformer_auto": ("keras_transformer_auto", {}, "ctranslate2_float32"),
    "keras_transformer_int8": ("keras_transformer_translate", {"weights": "int8"}, None),
    "ctranslate2": ("ctranslate2_translate", {"weights": "float32"}, "ctranslate2_float32"),
    "ctranslate2_int8": ("ctranslate2_translate", {"weights": "int8"}, "ctranslate2_int8"),
    "huggingface": ("huggingface_generate", {}, "huggingface"),
    "keras_loop": ("keras_loop", {"compiled": False}, None),
    "keras_loop_compiled": ("keras_loop", {"compiled": True}, None),
}
OURS, ROUNDED = "keras_transformer", {"keras_transformer_int8", "ctranslate2_int8"}
LOOPS = {"keras_loop", "keras_loop_compiled"}
SEARCHES = {
    "greedy": {"beam_size": 1, "top_p": None},
    "beam": {"beam_size": 4, "top_p": None},
    "sample": {"beam_size": 1, "top_p": 0.9},
}
SENTENCES = {"tiny": 2000, "base": 400, "run": 2000}
LATENCY_SENTENCES = {"tiny": 200, "base": 24, "run": 200}
PAUSE = 0.05  # seconds
TOKENS, LOOP_TOKENS = 24, 40
REST = 0.5  # seconds between turns, because idle threads of the last contestant spin for a while
SAME = 0.97  # share of equal sentences, at least; the order of additions decides near ties


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="a trained run; its tokenizer also encodes --source")
    parser.add_argument("--source", metavar="FILE", help="sentences to translate, one per line")
    parser.add_argument("--size", nargs="+", choices=SENTENCES, help="default: all possible")
    parser.add_argument("--search", nargs="+", choices=SEARCHES, default=["greedy", "beam"])
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=3, help="turns per contestant")
    parser.add_argument("--sentences", type=int, help="for throughput; default: see above")
    parser.add_argument(
        "--latency-sentences", type=int, help="for latency, in every turn; default: 200, 24 (base)"
    )
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    parser.add_argument(
        "--logs", default="benchmark-logs", help="folder for what contestants print"
    )
    args = parser.parse_args()
    if bool(args.run) != bool(args.source):
        parser.error("give --run and --source together: the run's tokenizer encodes the sentences")
    sizes = args.size or [size for size in SENTENCES if size != "run" or args.run]
    if "sample" in args.search and sizes != ["run"]:
        parser.error("--search sample needs --size run: random weights may draw an early end")
    if "run" in sizes and not args.run:
        parser.error("--size run needs --run")
    packages = ("tensorflow", "keras", "ctranslate2", "torch", "transformers")
    report = {**cpu(), "versions": versions(*packages), "command": sys.argv, "cells": []}
    for size in sizes:
        for cell in contests(size, args, report["cores"]):
            report["cells"].append(cell)
            print_cell(cell)
            if args.output:
                Path(args.output).write_text(json.dumps(report, indent=1) + "\n")
    sys.exit("\n".join(differences(report["cells"])) or None)


def contests(size, args, cores):
    """Yields the cells of one size. The contestants live through all of them."""
    from decoding import workload

    count = args.sentences or SENTENCES[size]
    model = workload.run_model(args.run) if size == "run" else workload.random_model(size)
    if args.source:
        sentences, special = workload.real_sentences(args.source, args.run, count)
    else:
        sentences = workload.random_sentences(model.source_embedding.vocabulary_size, count)
        special = workload.SPECIAL
    with tempfile.TemporaryDirectory() as folder:
        formats = [CONTESTANTS[name][2] for name in args.contestants]
        workload.write(folder, model, sentences, special, formats)
        del model
        running = {}
        for name in args.contestants:
            file, config, _ = CONTESTANTS[name]
            config = {**config, "folder": folder, "cores": cores}
            log = Path(args.logs) / f"decode-{size}-{name}.txt"
            try:
                running[name] = Contestant(name, HERE / f"{file}.py", config, log)
            except RuntimeError as error:
                print(f"{size}: {error}", file=sys.stderr)
        few = min(args.latency_sentences or LATENCY_SENTENCES[size], len(sentences))
        tokens = None if size == "run" else TOKENS
        for search in args.search:
            request = {**SEARCHES[search], "tokens": tokens, "compared": False}
            left_out = LOOPS | ({"keras_transformer_auto"} if request["top_p"] else set())
            cached = {name: each for name, each in running.items() if name not in left_out}
            cells = [
                ("latency", cached, few, tokens),
                ("latency after a pause", cached, -(-few // 8), tokens),
                ("throughput", cached, len(sentences), tokens),
            ]
            if search == "greedy" and tokens and LOOPS & {*running}:
                cells.append((f"{LOOP_TOKENS} tokens", running, -(-few // 8), LOOP_TOKENS))
            for measurement, contestants, rows, tokens_each in cells:
                request |= {"one_by_one": measurement != "throughput", "tokens": tokens_each}
                request["pause"] = PAUSE if measurement.endswith("pause") else 0
                cell = {"size": size, "search": search, "measurement": measurement}
                cell |= contest(contestants, {**request, "count": rows}, args.rounds)
                yield cell
        for contestant in running.values():
            contestant.close()


def contest(running, request, rounds):
    """Measures one cell: contestants at their best setting, warm, in turns, compared with ours."""
    part = 8 if request["one_by_one"] else max(128, request["count"] // 2)
    few = {**request, "count": min(request["count"], part)}
    results = {}
    for name, contestant in running.items():
        best, tried = tune(contestant, few)
        found = contestant.ask({**few, "setting": best, "compared": True})["ids"]
        results[name] = {"setting": best, "tried": tried, "ids": found, "seconds": [], "each": []}
        if contestant.facts["compiles"]:  # tuning has met some of the shapes only
            first = contestant.ask({**request, "setting": best})
            results[name]["first_seconds"] = sum(first["seconds"])
    for turn in range(rounds):
        order = list(running)
        # Every round begins with another one, because the last one may leave the machine slower.
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            time.sleep(REST)
            reply = running[name].ask({**request, "setting": results[name]["setting"]})
            results[name]["seconds"].append(sum(reply["seconds"]))
            results[name]["each"] += reply["seconds"]
            results[name]["tokens"] = reply["tokens"]
    drawn = request["top_p"] is not None  # at random, so nobody has the same ids
    ours = results[OURS]["ids"] if OURS in results and not drawn else None
    for result in results.values():
        result["tokens_per_second"] = result["tokens"] / statistics.median(result["seconds"])
        result["milliseconds"] = 1000 * statistics.median(result.pop("each"))
        ids = result.pop("ids")
        if ours:
            result["same"] = sum(a == b for a, b in zip(ids, ours, strict=True))
    return {"request": request, "compared": few["count"], "contestants": results}


def tune(contestant, request):
    """Finds the best value per axis of a contestant's settings, one axis after the other."""
    axes = contestant.facts["latency" if request["one_by_one"] else "throughput"]
    best, tried = {axis: values[0] for axis, values in axes.items()}, []
    for axis, values in axes.items():
        seconds = {}
        for value in values if len(values) > 1 else ():
            asked = {**request, "setting": {**best, axis: value}}
            # A contestant that compiles must meet every shape; the others must touch their memory.
            warm = request["count"] if contestant.facts["compiles"] else 1 + request["count"] // 8
            first = sum(contestant.ask({**asked, "count": warm})["seconds"])
            seconds[value] = sum(contestant.ask(asked)["seconds"])
            tried.append({**asked["setting"], "first_seconds": first, "seconds": seconds[value]})
        if seconds:
            best[axis] = min(seconds, key=seconds.get)
    return best, tried


def differences(cells):
    """Yields a line for every contestant that has the same weights and other translations."""
    for cell in cells:
        allowed = max(1, (1 - SAME) * cell["compared"])
        for name, result in cell["contestants"].items():
            differing = cell["compared"] - result.get("same", cell["compared"])
            if name not in ROUNDED and differing > allowed:
                where = f"{cell['size']} {cell['search']} {cell['measurement']}"
                yield f"{where}: {name} differs in {differing} of {cell['compared']} sentences"


def print_cell(cell):
    count = cell["request"]["count"]
    print(f"\n{cell['size']} {cell['search']}, {cell['measurement']}: {count} sentences")
    latency = cell["request"]["one_by_one"]
    columns = ("", 21), ("target tokens/s", 17), ("ms/sentence" * latency, 15 * latency)
    columns += ("ours / this", 13), ("same ids", 10)
    print("".join(f"{name:>{width}}" for name, width in columns) + "  setting")
    ours = cell["contestants"].get(OURS)
    for name, result in cell["contestants"].items():
        speed = result["tokens_per_second"]
        line = f"{name:>21}{speed:17,.0f}"
        line += f"{result['milliseconds']:15.1f}" if latency else ""
        line += f"{ours['tokens_per_second'] / speed:13.2f}" if ours else f"{'':13}"
        same = f"{result['same'] / cell['compared']:.1%}" if "same" in result else ""
        line += f"{same:>10}"
        print(
            line + "  " + ", ".join(f"{axis} {value}" for axis, value in result["setting"].items())
        )
    print(flush=True)


if __name__ == "__main__":
    main()
