"""Measures the input pipeline: time and memory until training can begin, and waiting after that.

    python benchmarks/input_pipeline.py --tsv FILE [--output input_pipeline.json]

`FILE` has one pair per line, `source<TAB>target`, and may be gzipped, for example Tatoeba's
German-English. The stages are the imports, reading, training a vocabulary, encoding, reading the
cache of that, the plan, and the first batch. Every stage has its time and the peak memory of the
process so far. Then a `tiny` model trains on the batches. The last line is the share of the
wall-clock time that the steps wait for their batches.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from contest import cpu, versions


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tsv", required=True, metavar="FILE")
    parser.add_argument("--vocabulary-size", type=int, default=10_000)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=200, help="timed training steps")
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    args = parser.parse_args()
    report = {**cpu(), "versions": versions("tensorflow", "keras"), "command": sys.argv}
    stages = report["stages"] = []
    clock = time.perf_counter()

    def done(stage):
        nonlocal clock
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        stages.append({"stage": stage, "seconds": time.perf_counter() - clock, "mebibytes": peak})
        print("{stage:<28}{seconds:8.2f} s{mebibytes:8,.0f} MiB".format(**stages[-1]), flush=True)
        clock = time.perf_counter()

    import keras

    import keras_transformer as kt

    done("imports")
    pairs = kt.data.read_tsv(args.tsv)
    done(f"read {len(pairs):,} pairs")
    tokenizer = kt.text.train_tokenizer(pairs, args.vocabulary_size)
    done("train the vocabulary")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "ids.npz"
        encoded = kt.data.encode_pairs(pairs, tokenizer, cache=cache)
        done("encode, once")
        encoded = kt.data.encode_pairs(pairs, tokenizer, cache=cache)
        done("the same from its cache")
    plan = kt.data.BatchPlan(encoded, args.tokens_per_batch)
    done("plan")
    batches = iter(plan.dataset())
    next(batches)
    done("first batch")
    ready = [stage for stage in stages[1:] if "cache" not in stage["stage"]]
    report["ready_seconds"] = sum(stage["seconds"] for stage in ready)
    print(f"ready for training after {report['ready_seconds']:.1f} s (without the imports)")

    if args.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    model = kt.models.Transformer.from_preset("tiny", tokenizer.vocabulary_size)
    model.compile(kt.optimizers.PaperAdam(d_model=128), loss=kt.losses.SmoothedCrossentropy())
    model.train_on_batch(*next(batches))
    begin, waiting = time.perf_counter(), 0.0
    for _ in range(args.steps):
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        model.train_on_batch(*batch)  # returns the loss, so it waits for the end of the step
    report["waiting_share"] = waiting / (time.perf_counter() - begin)
    print(f"waiting for data in training: {report['waiting_share']:.2%} of the time")
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
