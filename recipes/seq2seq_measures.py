"""What `compare_seq2seq.py` measures of each model.

```
gradient_reach          how strongly an output depends on an input k positions before it
bleu_by_length          BLEU of all sentences, and of those of similar length
accuracy_by_length      correct sequences and tokens of made-up sequences, by length
training_speed          target tokens per second, from the log of a run
```
"""

import statistics

import numpy as np
from keras import ops, tree

import keras_transformer as kt
from keras_transformer.ops.gradients import gradients

# Bounds of the lengths of source sentences, in words.
BUCKETS = (9, 12, 15, 20)


def gradient_reach(function, inputs):
    """Returns the norm of d output_t / d input_(t-k) at the last position t, for k = 0, 1, ...

    It is the Frobenius norm of the whole Jacobian. There is a copy of `inputs` per unit of the
    output, which asks for the gradient of that unit.

    Args:
        function: [R, L, D] -> [R, L, H], whose rows do not depend on each other.
        inputs: One sequence [L, D].

    Returns:
        L floats, beginning with k = 0.

    Example:

    >>> gradient_reach(lambda x: ops.cumsum(x, axis=1), np.ones((3, 4)))  # [2, 2, 2]
    """
    inputs = np.asarray(ops.convert_to_numpy(inputs), "float32")
    units = function(ops.convert_to_tensor(inputs[None])).shape[-1]
    copies = np.repeat(inputs[None], units, axis=0)  # [H, L, D]
    each = ops.eye(units, dtype="float32")
    [jacobian] = gradients(
        lambda x: ops.sum(ops.cast(function(x), "float32")[:, -1] * each), [copies]
    )
    squares = np.square(ops.convert_to_numpy(jacobian), dtype="float64")
    return np.sqrt(squares.sum(axis=(0, 2)))[::-1]


def model_reach(model, pairs):
    """Returns `gradient_reach` of a model's encoder and of its decoder, as means over pairs.

    The encoder's inputs are the embedded source in the order of reading, the decoder's the embedded
    target. The outputs are those of the two stacks, before the logits.

    Args:
        model: A `Transformer` or a `RecurrentSeq2Seq`.
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
    """Returns the decoder as a function of only its inputs, after one source."""
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
    """Returns the `count` longest pairs of `EncodedPairs`, cut to one length, at most `longest`.

    Sources keep their end, targets their start.
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
    """Returns BLEU of tokenised text, of all sentences and by the number of source words.

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
    """Returns `{length: {"sequences", "tokens"}}`: the shares, from 0 to 1, that are correct.

    A token is correct if the reference has it at this position, a sequence if it is the reference.
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
    """Returns target tokens per second without padding: the median interval of a run's log."""
    rates = [each["target_tokens_per_second"] for each in log if each["event"] == "interval"]
    return statistics.median(rates)
