"""Measures what callbacks cost: the same training with and without them, in turn.

    python benchmarks/callbacks.py [--output callbacks.json]

A `tiny` model trains on the bundled corpus, in fits of `--steps` updates. There are three kinds:
without callbacks, with `TensorBoard` (curves every 50 updates, no probes), and with `TensorBoard`
and `Progress`, as the command `train` uses them. Every round runs all three and begins with
another one. The table has the median and the least time of a fit, and the median of its ratio to
the fit without callbacks in the same round.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from contest import cpu, versions


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="updates per fit")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    args = parser.parse_args()

    import keras_transformer as kt
    from keras_transformer.callbacks import Progress, TensorBoard
    from keras_transformer.datasets import korean_english as corpus
    from keras_transformer.ops.memory import keep_freed_memory

    keep_freed_memory()
    pairs = corpus.generate(seed=1, size=corpus.SIZE, test_size=10)["train"]
    tokenizer = kt.text.train_tokenizer(pairs, 2000, character_coverage=1.0)
    train = kt.data.token_batches(pairs, tokenizer, args.tokens_per_batch)
    model = kt.models.Transformer.from_preset("tiny", vocabulary_size=tokenizer.vocabulary_size)
    model.compile(
        optimizer=kt.optimizers.PaperAdam(d_model=128, warmup_steps=2000),
        loss=kt.losses.SmoothedCrossentropy(label_smoothing=0.1),
        weighted_metrics=[kt.metrics.NatsPerToken(), kt.metrics.TokenAccuracy()],
    )

    def fit(callbacks):
        begin = time.perf_counter()
        model.fit(train, steps_per_epoch=args.steps, verbose=0, callbacks=callbacks)
        return time.perf_counter() - begin

    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "no callbacks": list,
            "TensorBoard": lambda: [TensorBoard(Path(folder) / "one")],
            "TensorBoard, Progress": lambda: [
                TensorBoard(Path(folder) / "two"),
                Progress(args.steps, stream=io.StringIO()),
            ],
        }
        for make in contestants.values():  # compiles, and meets every shape
            fit(make())
        seconds = {name: [] for name in contestants}
        for turn in range(args.rounds):
            names = list(contestants)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                seconds[name].append(fit(contestants[name]()))
    report = {**cpu(), "versions": versions("tensorflow", "keras"), "command": sys.argv}
    report["seconds"] = seconds
    for name, each in seconds.items():
        ratios = [a / b for a, b in zip(each, seconds["no callbacks"], strict=True)]
        share = f"{100 * (statistics.median(ratios) - 1):+.2f} %" if name != "no callbacks" else ""
        print(f"{name:<24}{statistics.median(each):8.2f} s{min(each):8.2f} s  {share}")
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
