"""Measures what preparing a large corpus costs, and what follows for larger ones.

    python benchmarks/scale.py --pairs 1e6 3e6 1e7 [--folder FOLDER] [--output scale.json]

For each size, pairs are made from a seed (not measured). Then a process of its own does what
`keras-transformer train` does before its first update: one pass over the text, a vocabulary, ids,
the report, the plan and the first batch. Another process does it again, as a restart does. Then it
makes batches, and trains `tiny` on some to see how long the steps wait for them.

Each stage has its seconds and the peak of the memory above that after the imports, the processes
that encode included. It counts anonymous memory: pages of the ids that are mapped from their file
are not in it, as the system takes them back when it needs them.

The sentences have 12 words on average, drawn from 200,000 by Zipf's law. The files need about 150
bytes per pair, and the ids about 110 more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

# Target tokens per second of one H100 with `big`, as docs/performance.md has it.
GPU_RATE = 277_000
WORDS, MEAN_LENGTH, CHUNK = 200_000, 12, 50_000
TOKENS_PER_BATCH = 25_000


def write_pairs(path, count, seed=1):
    """Writes a TSV of random pairs: the target has the words of the source's in another order."""
    random = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    spelled = random.integers(0, len(syllables), (2, WORDS, 4))
    lengths = random.integers(1, 5, (2, WORDS))
    words = [
        np.array(
            ["".join(syllables[i] for i in row[:n]) for row, n in zip(rows, sizes, strict=True)]
        )
        for rows, sizes in zip(spelled, lengths, strict=True)
    ]
    shares = np.cumsum(1 / (10 + np.arange(WORDS)))
    shares /= shares[-1]
    with open(path, "w", encoding="utf-8") as file:
        for begin in range(0, count, CHUNK):
            sizes = 1 + random.poisson(MEAN_LENGTH - 1, min(CHUNK, count - begin))
            drawn = np.searchsorted(shares, random.random(sizes.sum()))
            sides = [side[drawn].tolist() for side in words]
            ends = np.cumsum(sizes).tolist()
            for end, size in zip(ends, sizes.tolist(), strict=True):
                source, target = (side[end - size : end] for side in sides)
                file.write(f"{' '.join(source)}\t{' '.join(target[::-1])}\n")


def anonymous_bytes():
    """Anonymous memory of this process and of those that it started."""
    pid = os.getpid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for each in (str(pid), *children):
        try:
            # A child that has not yet begun its own program shows the memory of its parent.
            if (
                each != str(pid)
                and b"workers.serve" not in Path(f"/proc/{each}/cmdline").read_bytes()
            ):
                continue
            status = Path(f"/proc/{each}/status").read_text()
        except OSError:  # it has just ended
            continue
        total += sum(int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon"))
    return total * 1024


class Stages:
    """The seconds of each stage, and the peak of its memory above that at the beginning."""

    def __init__(self):
        self.found = {}
        self._base = self._peak = anonymous_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._clock = time.perf_counter()

    def _watch(self):
        while not self._ended.wait(0.02):
            self._peak = max(self._peak, anonymous_bytes())

    def done(self, stage):
        seconds = time.perf_counter() - self._clock
        self._peak = max(self._peak, anonymous_bytes())
        self.found[stage] = {"seconds": seconds, "mib": (self._peak - self._base) / 2**20}
        self._peak, self._clock = anonymous_bytes(), time.perf_counter()


def measured(tsv, run, updates, steps):
    """What a start costs; then the target tokens per second of making batches, on one core."""
    from keras_transformer import data
    from keras_transformer.data.report import report_of
    from keras_transformer.runs import TrainSettings, prepare, reading
    from keras_transformer.runs.derivation import loss_worth_translating

    settings = TrainSettings(
        train_tsv=str(tsv),
        hold_out=1000,
        run_dir=str(run),
        vocabulary_size=16_000,
        vocabulary_type="bpe",
        normalization="identity",
    )
    (run / "ids").mkdir(parents=True, exist_ok=True)
    stages = Stages()
    text = reading.read_text(settings, run / "ids")
    text.keep(run / "ids")
    stages.done("read the text")
    vocabularies = prepare.tokenizers(settings, text, run)
    stages.done("train the vocabulary")
    encoded = data.encode_pairs(text.train, *vocabularies, cache=run / "ids" / "train.npz")
    stages.done("encode")
    str(report_of(text.survey, encoded)), loss_worth_translating(encoded)
    stages.done("report")
    plan = data.BatchPlan(encoded, TOKENS_PER_BATCH, seed=1)
    stages.done("plan")
    plan.batches(0)
    stages.done("first batch")
    tokens, begin = 0, time.process_time()
    for update in range(1, updates):
        tokens += int((plan.batches(update)[0][2] > 0).sum())
    rate = tokens / (time.process_time() - begin)
    stages.done(f"{updates} batches")
    found = {"stages": stages.found, "target_tokens_per_second": rate}
    return found | ({"waiting_share": waiting(encoded, steps)} if steps else {})


def waiting(encoded, steps):
    """The share of the time of `steps` training steps that they wait for their batches."""
    import keras

    import keras_transformer as kt

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kt.models.Transformer.from_preset("tiny", 16_000)
    model.compile(kt.optimizers.PaperAdam(d_model=128), loss=kt.losses.SmoothedCrossentropy())
    batches = iter(kt.data.BatchPlan(encoded, 4096, seed=1).dataset())
    model.train_on_batch(*next(batches))
    waited, begin = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        model.train_on_batch(*batch)  # returns the loss, so it waits for the end of the step
    return waited / (time.perf_counter() - begin)


def exponent(sizes, values):
    """The slope of the values over the sizes, both as logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=float, nargs="+", default=[1e6, 3e6, 1e7])
    parser.add_argument(
        "--folder", type=Path, help="where the text is made, instead of a temporary"
    )
    parser.add_argument("--updates", type=int, default=300, help="batches of 25,000 tokens to make")
    parser.add_argument("--steps", type=int, default=50, help="training steps after a restart")
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--one", nargs=2, metavar=("TSV", "RUN"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(*map(Path, args.one), args.updates, args.steps)))
        return
    from contest import cpu

    results = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for count in map(int, args.pairs):
            results.append(of_size(count, Path(folder), args))
    report = {"cpu": cpu(), "command": sys.argv, "results": results}
    for line in conclusions(results):
        print(line)
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1))


def of_size(count, folder, args):
    tsv, run = folder / f"{count}.tsv", folder / str(count)
    write_pairs(tsv, count)
    found = {"pairs": count, "bytes": tsv.stat().st_size}
    for start, steps in (("first start", 0), ("restart", args.steps)):
        command = [sys.executable, __file__, "--one", tsv, run]
        command += ["--updates", str(args.updates), "--steps", str(steps)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        found[start] = json.loads(out.splitlines()[-1])
        print(f"\n{count:,} pairs, {found['bytes'] / 2**20:,.0f} MiB of text, {start}")
        for stage, values in found[start]["stages"].items():
            print(f"  {stage:<22}{values['seconds']:9.2f} s{values['mib']:8,.0f} MiB", flush=True)
        found[start] |= totals(found[start]["stages"])
        print("  {:<22}{seconds:9.2f} s{mib:8,.0f} MiB".format("all", **found[start]))
    print(f"  training waits for batches {found['restart']['waiting_share']:.2%} of the time")
    tsv.unlink()
    return found


def totals(stages):
    ready = [values for stage, values in stages.items() if "batches" not in stage]
    return {
        "seconds": sum(values["seconds"] for values in ready),
        "mib": max(values["mib"] for values in stages.values()),
    }


def conclusions(results):
    """Yields lines: how the costs grow, and what that means for larger text and many GPUs."""
    sizes = [each["pairs"] for each in results]
    if len(sizes) > 1:
        for start in ("first start", "restart"):
            seconds, mib = ([each[start][unit] for each in results] for unit in ("seconds", "mib"))
            yield (
                f"{start}: seconds grow as pairs^{exponent(sizes, seconds):.2f}, "
                f"memory as pairs^{exponent(sizes, mib):.2f}"
            )
            for count in (1e8, 1e9):
                expected = totals(extrapolated(results, start, count))
                yield "  {:,.0f} pairs: about {seconds:,.0f} s and {mib:,.0f} MiB".format(
                    count, **expected
                )
    rate = results[-1]["restart"]["target_tokens_per_second"]
    yield (
        f"one core makes batches of {rate:,.0f} target tokens per second: 8 hosts of 8 GPUs at "
        f"{GPU_RATE:,} each need {64 * GPU_RATE / rate:.1f} cores"
    )


def extrapolated(results, start, count):
    """Each stage on a straight line through the two largest sizes."""
    one, two = results[-2:]
    beyond = (count - two["pairs"]) / (two["pairs"] - one["pairs"])
    pairs_of = (
        (one[start]["stages"][stage], two[start]["stages"][stage], stage)
        for stage in two[start]["stages"]
    )
    return {
        stage: {unit: last[unit] + max(last[unit] - first[unit], 0) * beyond for unit in last}
        for first, last, stage in pairs_of
    }


if __name__ == "__main__":
    main()
