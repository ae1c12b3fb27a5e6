"""What `compare_seq2seq.py` measures of each model.

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
