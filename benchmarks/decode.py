"""Translation speed beside CTranslate2, Hugging Face and a loop without cache, on the same weights.

    python benchmarks/decode.py [--run RUN --source FILE] [--output decode.json]

Sizes "tiny" and "base" are those of train.py with random weights, which never choose the end: each
translation has 24 tokens. With `--run`, a trained run of this package is one more size, whose
translations end by themselves (at most source + 50 tokens), and `--source`, plain text with a
sentence a line, gives the sentences of all sizes as ids of its tokenizer. Else they are random ids
in the lengths of short captions. Weights are float32 but for int8's. No one tokenizes.

Latency is one sentence at a time; throughput a file of 2,000 sentences (400 for "base", to end in
time). "40 tokens" is the latency of translations of that length, greedy, where the loops take part.
Every contestant works at the setting that was best for it in the same run, on a part of the
sentences, and compiled before. Then they are asked in turn; printed are medians over the rounds,
and the share of sentences with the ids of ours. Below 97 % in float32 the exit status is 1.
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
# Each one's file, what its `prepare` gets, and what is written for it.
CONTESTANTS = {
    "keras_transformer": ("keras_transformer_translate", {}, None),
    "ctranslate2": ("ctranslate2_translate", {"weights": "float32"}, "ctranslate2_float32"),
    "ctranslate2_int8": ("ctranslate2_translate", {"weights": "int8"}, "ctranslate2_int8"),
    "huggingface": ("huggingface_generate", {}, "huggingface"),
    "keras_loop": ("keras_loop", {"compiled": False}, None),
    "keras_loop_compiled": ("keras_loop", {"compiled": True}, None),
}
OURS, ROUNDED = "keras_transformer", "ctranslate2_int8"
LOOPS = {"keras_loop", "keras_loop_compiled"}
BEAMS = {"greedy": 1, "beam": 4}
SENTENCES = {"tiny": 2000, "base": 400, "run": 2000}
TOKENS, LOOP_TOKENS = 24, 40
REST = 0.5  # seconds between turns: for as long, threads of the one before may spin and wait
SAME = 0.97  # of the sentences, at least: near ties are left to the order of additions


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="a trained run; also the tokenizer of --source")
    parser.add_argument("--source", metavar="FILE", help="sentences to translate, one a line")
    parser.add_argument("--size", nargs="+", choices=SENTENCES, help="default: all there are")
    parser.add_argument("--search", nargs="+", choices=BEAMS, default=list(BEAMS))
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--sentences", type=int, help="of throughput; default: see above")
    parser.add_argument("--latency-sentences", type=int, default=24, help="of latency, a turn")
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--logs", default="benchmark-logs", help="folder for what they print")
    args = parser.parse_args()
    if bool(args.run) != bool(args.source):
        parser.error("--run and --source go together: the sentences are ids of the run's tokenizer")
    sizes = args.size or [size for size in SENTENCES if size != "run" or args.run]
    if "run" in sizes and not args.run:
        parser.error("--size run is that of --run")
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
    """The cells of one size, by contestants that live through all of them."""
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
        few = min(args.latency_sentences, len(sentences))
        tokens = None if size == "run" else TOKENS
        for search in args.search:
            request = {"beam_size": BEAMS[search], "tokens": tokens, "compared": False}
            cached = {name: each for name, each in running.items() if name not in LOOPS}
            cells = [
                ("latency", cached, few, tokens),
                ("throughput", cached, len(sentences), tokens),
            ]
            if search == "greedy" and tokens and LOOPS & {*running}:
                cells.append((f"{LOOP_TOKENS} tokens", running, -(-few // 8), LOOP_TOKENS))
            for measurement, contestants, rows, tokens_each in cells:
                request |= {"one_by_one": measurement != "throughput", "tokens": tokens_each}
                cell = {"size": size, "search": search, "measurement": measurement}
                cell |= contest(contestants, {**request, "count": rows}, args.rounds)
                yield cell
        for contestant in running.values():
            contestant.close()


def contest(running, request, rounds):
    """One table: each at its best setting, warm, in turns, and compared with ours."""
    part = 8 if request["one_by_one"] else max(128, request["count"] // 2)
    few = {**request, "count": min(request["count"], part)}
    results = {}
    for name, contestant in running.items():
        best, tried = tune(contestant, few)
        found = contestant.ask({**few, "setting": best, "compared": True})["ids"]
        results[name] = {"setting": best, "tried": tried, "ids": found, "seconds": [], "each": []}
        if contestant.facts["compiles"]:  # all shapes but those of the tuning
            first = contestant.ask({**request, "setting": best})
            results[name]["first_seconds"] = sum(first["seconds"])
    for turn in range(rounds):
        order = list(running)
        # Another one begins each time: what went before may leave the machine quick or slow.
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            time.sleep(REST)
            reply = running[name].ask({**request, "setting": results[name]["setting"]})
            results[name]["seconds"].append(sum(reply["seconds"]))
            results[name]["each"] += reply["seconds"]
            results[name]["tokens"] = reply["tokens"]
    ours = results[OURS]["ids"] if OURS in results else None
    for result in results.values():
        result["tokens_per_second"] = result["tokens"] / statistics.median(result["seconds"])
        result["milliseconds"] = 1000 * statistics.median(result.pop("each"))
        ids = result.pop("ids")
        if ours:
            result["same"] = sum(a == b for a, b in zip(ids, ours, strict=True))
    return {"request": request, "compared": few["count"], "contestants": results}


def tune(contestant, request):
    """The best value of each axis of a contestant's settings, one axis after the other."""
    axes = contestant.facts["latency" if request["one_by_one"] else "throughput"]
    best, tried = {axis: values[0] for axis, values in axes.items()}, []
    for axis, values in axes.items():
        seconds = {}
        for value in values if len(values) > 1 else ():
            asked = {**request, "setting": {**best, axis: value}}
            # What compiles has to meet every shape, others to touch their memory.
            warm = request["count"] if contestant.facts["compiles"] else 1 + request["count"] // 8
            first = sum(contestant.ask({**asked, "count": warm})["seconds"])
            seconds[value] = sum(contestant.ask(asked)["seconds"])
            tried.append({**asked["setting"], "first_seconds": first, "seconds": seconds[value]})
        if seconds:
            best[axis] = min(seconds, key=seconds.get)
    return best, tried


def differences(cells):
    """What is wrong: contestants of the same weights that translate otherwise."""
    for cell in cells:
        allowed = max(1, (1 - SAME) * cell["compared"])
        for name, result in cell["contestants"].items():
            differing = cell["compared"] - result.get("same", cell["compared"])
            if name != ROUNDED and differing > allowed:
                where = f"{cell['size']} {cell['search']} {cell['measurement']}"
                yield f"{where}: {name} differs in {differing} of {cell['compared']} sentences"


def print_cell(cell):
    count = cell["request"]["count"]
    print(f"\n{cell['size']} {cell['search']}, {cell['measurement']}: {count} sentences")
    alone = cell["request"]["one_by_one"]
    columns = ("", 21), ("target tokens/s", 17), ("ms a sentence" * alone, 15 * alone)
    columns += ("ours / this", 13), ("same ids", 10)
    print("".join(f"{name:>{width}}" for name, width in columns) + "  setting")
    ours = cell["contestants"].get(OURS)
    for name, result in cell["contestants"].items():
        speed = result["tokens_per_second"]
        line = f"{name:>21}{speed:17,.0f}"
        line += f"{result['milliseconds']:15.1f}" if alone else ""
        line += f"{ours['tokens_per_second'] / speed:13.2f}" if ours else f"{'':13}"
        line += f"{result['same'] / cell['compared']:10.1%}" if ours else f"{'':10}"
        print(
            line + "  " + ", ".join(f"{axis} {value}" for axis, value in result["setting"].items())
        )
    print(flush=True)


if __name__ == "__main__":
    main()
