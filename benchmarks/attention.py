"""Memory and time of self-attention against length, forward and backward.

    python benchmarks/attention.py [--output attention.json]

The layer is causal self-attention of width 512 in 8 heads, on one sequence, in TensorFlow and
float32. There are four ways: this package's `MultiHeadAttention` with its own choice, forced to one
piece, and forced to blocks; and `keras.layers.MultiHeadAttention`. Every length and way runs in a
process of its own, because a process reports only its peak memory. The table has how far the peak
rose above that of a step of 64 positions, and the median time per step.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from contest import Contestant, cpu, versions

WAYS = ("automatic", "one piece", "blocks", "keras")
LENGTHS = (256, 1024, 4096, 16384)
MOST_ONE_PIECE = 8192  # for longer sequences the weights take many times 8 GiB
D_MODEL, HEADS = 512, 8


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--rounds", type=int, default=3, help="steps that are timed")
    parser.add_argument("--output", metavar="FILE", help="also write everything as JSON")
    args = parser.parse_args()
    report = {**cpu(), "versions": versions("tensorflow", "keras"), "command": sys.argv}
    report["cells"] = []
    print(f"{'positions':>10}{'way':>12}{'MiB':>10}{'ms per step':>12}")
    with tempfile.TemporaryDirectory() as logs:
        for length in args.lengths:
            for way in args.ways:
                if way in ("one piece", "keras") and length > MOST_ONE_PIECE:
                    continue
                config = {"way": way, "length": length, "rounds": args.rounds}
                worker = Contestant(way, __file__, config, Path(logs) / f"{length}-{way}.txt")
                found = {"length": length, "way": way, **worker.facts}
                worker.close()
                print(
                    f"{length:10}{way:>12}{found['mebibytes']:10.0f}{found['milliseconds']:12.1f}"
                )
                report["cells"].append(found)
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1) + "\n")


def prepare(config):
    """Measures at once, as a contestant that answers no requests."""
    import keras
    import tensorflow as tf

    from keras_transformer.layers import MultiHeadAttention
    from keras_transformer.ops import attention_in_blocks as in_blocks
    from keras_transformer.ops.memory import keep_freed_memory

    keep_freed_memory()
    if config["way"] in ("one piece", "blocks"):
        in_blocks.ONE_PIECE = 2**62 if config["way"] == "one piece" else 0
    if config["way"] == "keras":
        layer = keras.layers.MultiHeadAttention(HEADS, D_MODEL // HEADS, use_bias=False)
        layer.build((None, None, D_MODEL), (None, None, D_MODEL))

        def attend(x):
            return layer(x, x, use_causal_mask=True)
    else:
        layer = MultiHeadAttention(D_MODEL, HEADS)
        layer.build((None, None, D_MODEL))

        def attend(x):
            return layer(x, causal=True)

    @tf.function(input_signature=[tf.TensorSpec((None, None, D_MODEL))], autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(attend(x) ** 2)
        return tape.gradient(loss, [x, *layer.trainable_variables])

    step(tf.random.normal((1, 64, D_MODEL)))
    before = highest_memory()
    x = tf.random.normal((1, config["length"], D_MODEL))
    seconds = []
    for _ in range(1 + config["rounds"]):
        begin = time.perf_counter()
        step(x)[0].numpy()
        seconds.append(time.perf_counter() - begin)
    facts = {
        "mebibytes": (highest_memory() - before) / 1024,
        "milliseconds": 1000 * statistics.median(seconds[1:]),
    }
    return None, facts


def highest_memory():
    """Returns the peak memory of this process in KiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
