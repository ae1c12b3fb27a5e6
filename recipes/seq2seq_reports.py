"""What `compare_seq2seq.py` measures of each model, as tables, JSON and pictures.

```
gradient_reach          how strongly an output still depends on an input k positions before it
bleu_by_length          BLEU of all sentences, and of those of like length
accuracy_by_length      right sequences and right tokens of made-up sequences, by length
training_speed          target tokens per second, from the log of a run
```
"""

import statistics

import keras
import numpy as np
from keras import ops, tree

import keras_transformer as kt
from keras_transformer.checkpoint_files import replacing, write_json

# Bounds of the lengths of source sentences, in words.
BUCKETS = (9, 12, 15, 20)


def gradient_reach(function, inputs):
    """The norm of d output_t / d input_(t-k) at the last position t, for k = 0, 1, ...

    The Frobenius norm of the whole Jacobian: `inputs` stand there once for each unit of the
    output, and each copy asks for the gradient of its own unit.

    Args:
        function: [R, L, D] -> [R, L, H], whose rows do not depend on each other.
        inputs: [L, D], one sequence.

    Returns:
        [L] floats, that of k = 0 first.

    Example:

    >>> gradient_reach(lambda x: ops.cumsum(x, axis=1), np.ones((3, 4)))  # [2, 2, 2]
    """
    inputs = np.asarray(ops.convert_to_numpy(inputs), "float32")
    units = function(ops.convert_to_tensor(inputs[None])).shape[-1]
    copies = np.repeat(inputs[None], units, axis=0)  # [H, L, D]
    each = np.eye(units, dtype="float32")
    jacobian = _gradient(lambda x: ops.sum(ops.cast(function(x), "float32")[:, -1] * each), copies)
    return np.sqrt(np.square(jacobian, dtype="float64").sum(axis=(0, 2)))[::-1]


def _gradient(function, x):
    """The gradient of a scalar function at `x`, a NumPy array, on every backend."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(x)))
    if backend == "torch":
        import torch

        x = ops.convert_to_tensor(x).requires_grad_(True)
        return ops.convert_to_numpy(torch.autograd.grad(function(x), x)[0])
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x).numpy()


def model_reach(model, pairs):
    """`gradient_reach` of a model's encoder and of its decoder, the mean over pairs.

    The encoder's inputs are the embedded source in the order in which it is read, the decoder's
    the embedded target. Outputs are those of the two stacks: the encoder's top layer, and what
    the decoder multiplies with the embeddings for its logits.

    Args:
        model: a `Transformer` or a `RecurrentSeq2Seq`.
        pairs: `(source ids [L], target ids [L])`, all of one length and without padding.

    Returns:
        `{"encoder": [L], "decoder": [L]}`, lists of floats.
    """
    found = {"encoder": [], "decoder": []}
    for source, target in pairs:
        source_ids = np.asarray(source, "int32")[None]
        read = source_ids[:, ::-1] if getattr(model, "reverse_source", False) else source_ids
        inputs = model.source_embedding(ops.convert_to_tensor(read.copy()))[0]
        found["encoder"].append(gradient_reach(lambda x: _first(model.encoder(x)), inputs))
        inputs = model.target_embedding(np.asarray(target, "int32")[None])[0]
        found["decoder"].append(gradient_reach(_decoder(model, source_ids), inputs))
    return {part: np.mean(norms, axis=0).tolist() for part, norms in found.items()}


def _decoder(model, source_ids):
    """The decoder as a function of its inputs alone, after one source."""
    memory, mask = model.encode(ops.convert_to_tensor(source_ids))

    def run(inputs):
        rows = ops.shape(inputs)[0]
        known = tree.map_structure(lambda x: ops.repeat(x, rows, axis=0), memory)
        masks = ops.repeat(mask, rows, axis=0)
        if isinstance(known, dict):
            return _first(model.decoder(inputs, known["states"], known.get("outputs"), masks))
        return model.decoder(inputs, known, memory_mask=masks)

    return run


def _first(outputs):
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


def longest_pairs(encoded, count, longest):
    """`count` pairs of `EncodedPairs`, cut to one length that they all have, at most `longest`.

    Sources have their end, targets their start.
    """
    lengths = np.minimum(encoded.source_lengths, encoded.target_lengths) + 1
    chosen = np.argsort(-lengths, kind="stable")[:count]
    length = min(longest, int(lengths[chosen[-1]]))
    pairs = []
    for i in chosen:
        source = [*encoded.source(i), encoded.source_end_id][-length:]
        target = [encoded.target_start_id, *encoded.target(i)][:length]
        pairs.append((source, target))
    return pairs


def bleu_by_length(sources, references, hypotheses, bounds=BUCKETS):
    """BLEU of text that is tokenised already, of all of it and by words of the source.

    Returns:
        `{"bleu", "signature", "buckets": {"1-8": {"sentences", "bleu"}, ...}}`, without empty
        buckets.
    """
    whole = kt.evaluation.bleu(hypotheses, references, tokenize="none")
    words = np.array([len(source.split()) for source in sources])
    buckets, edges = {}, (1, *bounds, None)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = np.flatnonzero((words >= low) & (words < (high or np.inf)))
        if len(inside):
            pick = [[side[i] for i in inside] for side in (hypotheses, references)]
            score = kt.evaluation.bleu(*pick, tokenize="none").value
            name = f"{low}-{high - 1}" if high else f"{low}+"
            buckets[name] = {"sentences": len(inside), "bleu": score}
    return {"bleu": whole.value, "signature": whole.signature, "buckets": buckets}


def accuracy_by_length(references, hypotheses):
    """`{length: {"sequences", "tokens"}}`: shares, from 0 to 1, of what comes out right.

    A token is right if it stands at its place; a sequence, if it is the reference.
    """
    found = {}
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        right, guess = reference.split(), hypothesis.split()
        hits = sum(a == b for a, b in zip(right, guess, strict=False))
        found.setdefault(len(right), []).append((right == guess, hits / len(right)))
    return {
        length: dict(zip(("sequences", "tokens"), np.mean(found[length], axis=0), strict=True))
        for length in sorted(found)
    }


def training_speed(log):
    """Target tokens per second without padding: the median interval of a run's log."""
    rates = [each["target_tokens_per_second"] for each in log if each["event"] == "interval"]
    return statistics.median(rates)


# --- what is shown


def show(title, rows):
    """Prints a table; `rows` are lists of strings, the first one its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for row in rows:
        first, *rest = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join([f"{row[0]:<{len(first)}}", *rest]))


def save(folder, name, report, figure):
    """Writes `NAME.json` and `NAME.png` into the folder."""
    write_json(folder / f"{name}.json", report)
    with replacing(folder / f"{name}.png") as file:
        figure.savefig(file, format="png", dpi=110)


def _axes(columns, width=5.5):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width * columns, 4.2), layout="constrained")
    for axis in np.atleast_1d(axes):
        axis.grid(alpha=0.3)
    return figure, np.atleast_1d(axes)


def draw_bleu(report):
    """BLEU against the length of the source, a line for each model."""
    figure, [axis] = _axes(1, 7)
    for name, found in report.items():
        buckets = found["buckets"]
        scores = [bucket["bleu"] for bucket in buckets.values()]
        axis.plot(list(buckets), scores, marker="o", label=f"{name}, {found['bleu']:.1f} in all")
    axis.set(xlabel="words of the source", ylabel="BLEU", ylim=(0, None))
    axis.legend()
    return figure


def draw_accuracy(report, longest_trained):
    """Right sequences and tokens against length; the dashed line ends what was trained."""
    figure, axes = _axes(2)
    for axis, what in zip(axes, ("sequences", "tokens"), strict=True):
        for name, found in report.items():
            shares = [100 * each[what] for each in found.values()]
            axis.plot([int(length) for length in found], shares, marker="o", label=name)
        axis.axvline(longest_trained, color="black", linestyle="--", linewidth=1)
        axis.text(longest_trained, 103, " longest in training", fontsize=8)
        axis.set(xlabel="length, symbols", ylabel=f"{what} that are right, %", ylim=(-3, 110))
    axes[0].legend()
    return figure


def draw_speed(report):
    """Target tokens per second, a bar for each model."""
    figure, [axis] = _axes(1, 7)
    speeds = {name: found["target_tokens_per_second"] for name, found in report.items()}
    bars = axis.barh(list(speeds), list(speeds.values()))
    axis.bar_label(bars, fmt="{:,.0f}", padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set(xlabel="target tokens/s of training, padding not counted; of this run")
    return figure


def draw_reach(report):
    """The norms against k: dashed before training, solid after it."""
    figure, axes = _axes(2)
    for axis, part in zip(axes, ("encoder", "decoder"), strict=True):
        for i, (name, found) in enumerate(report.items()):
            for when, style in (("start", "--"), ("end", "-")):
                norms = np.array(found[when][part])
                # Zero has no place on this axis; a line ends where it is reached.
                shown = np.where(norms > 0, norms, np.nan)
                label = name if when == "end" else None
                axis.plot(shown, style, color=f"C{i}", label=label, linewidth=1.5)
        axis.set(
            title=part,
            xlabel="k, positions before",
            ylabel="norm of d output(t) / d input(t - k)",
            yscale="log",
        )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right center", title="solid: trained\ndashed: before"
    )
    return figure
