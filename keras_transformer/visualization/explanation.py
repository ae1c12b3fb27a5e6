"""What happens to one sentence, collected from the model itself."""

import math
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_transformer import arguments
from keras_transformer.visualization.shapes import tensor_shapes
from keras_transformer.visualization.tree import beam_tree
from keras_transformer.visualization.words import over_words, words_of

# Candidates shown at each step.
CANDIDATES = 5


class Explanation(NamedTuple):
    """All that `explain` finds; arrays are NumPy's.

    The decoder's rows are the steps: at step t it has read the start and t tokens, and chooses
    token t. So `inputs` begins with the start id, and `outputs` ends with the end id.
    """

    source: str
    target: str
    given: bool  # whether the target was given, not found
    source_ids: list  # S, with the end
    source_pieces: list
    inputs: list  # T ids that the decoder reads
    input_pieces: list
    outputs: list  # T ids that it is to choose
    output_pieces: list
    weights: dict  # "encoder" [L, H, S, S], "decoder" [L, H, T, T], "cross" [L, H, T, S]
    word_weights: dict  # the same over words
    source_words: list
    input_words: list
    log_probabilities: list  # T, of the outputs, nats
    candidates: list  # T lists of (piece, probability), the most probable first
    nodes: list  # of the beam tree, see `tree.Node`; the pieces beside
    node_pieces: list
    best: int
    shapes: list  # of (Call, letters)
    warnings: list  # sentences: what training never saw of the source

    @property
    def log_probability(self):
        """Of the whole target, in nats."""
        return math.fsum(self.log_probabilities)


def explain(translator, text, target=None, beam_size=4, length_penalty=0.6):
    """Follows one sentence through the model: tokens, attention, search, probabilities, shapes.

    Args:
        translator: a `Translator` of one model (no ensemble).
        text: the source sentence.
        target: a translation to look at; by default the one that the search finds.
        beam_size, length_penalty: of the search, as for `Translator.translate`.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: for an empty sentence, or an ensemble.

    Example:

    ```python
    found = kt.visualization.explain(kt.load_translator("runs/demo"), "나는 집에 간다")
    found.weights["cross"][-1]  # [H, T, S]: what each step looks at in the source
    kt.visualization.write(found, "looked-at")  # a page and pictures
    ```
    """
    if len(translator.models) != 1:
        raise ValueError(
            f"One model is looked into at a time, got an ensemble of {len(translator.models)}."
        )
    if not hasattr(translator.models[0], "attention_weights"):
        raise ValueError("Only a Transformer shows its attention, by attention_weights.")
    beam_size = arguments.whole_number("beam_size", beam_size, advice="1 is greedy search.")
    length_penalty = arguments.length_penalty(length_penalty)
    source = translator.encode_sources([text])[0] if isinstance(text, str) else []
    if not source:
        raise ValueError(f"There is nothing to show of an empty sentence: got {text!r}.")
    [model], tokenizer, other = translator.models, translator.tokenizer, translator.target_tokenizer
    nodes, best = beam_tree(translator, source, beam_size, length_penalty)
    if target is None:
        ids = list(nodes[best].ids[:-1])
    else:
        [ids] = other.encode([target])
    source_ids = [*source, tokenizer.end_id]
    inputs, outputs = [other.start_id, *ids], [*ids, other.end_id]

    arrays = (np.array([each], "int32") for each in (source_ids, inputs))
    weights = model.attention_weights(*arrays)
    weights = {kind: each[:, 0] for kind, each in weights.items()}
    pieces = {"source": tokenizer, "input": other, "output": other}
    pieces = {
        name: [vocabulary.id_to_piece(i) for i in ids]
        for (name, vocabulary), ids in zip(
            pieces.items(), (source_ids, inputs, outputs), strict=True
        )
    }
    source_words, source_numbers = words_of(pieces["source"])
    input_words, input_numbers = words_of(pieces["input"])
    numbers = {
        "encoder": (source_numbers, source_numbers),
        "decoder": (input_numbers, input_numbers),
        "cross": (input_numbers, source_numbers),
    }
    memory, mask = model.encode(np.array([source_ids], "int32"))
    logits = model.decode(np.array([inputs], "int32"), memory, mask)
    log_probs = ops.convert_to_numpy(ops.log_softmax(ops.cast(logits, "float32"), axis=-1))[0]
    candidates = [
        [(other.id_to_piece(int(i)), math.exp(row[i])) for i in np.argsort(-row)[:CANDIDATES]]
        for row in log_probs
    ]
    return Explanation(
        source=text,
        target=other.decode(ids),
        given=target is not None,
        source_ids=source_ids,
        source_pieces=pieces["source"],
        inputs=inputs,
        input_pieces=pieces["input"],
        outputs=outputs,
        output_pieces=pieces["output"],
        weights=weights,
        word_weights={kind: over_words(weights[kind], *numbers[kind]) for kind in weights},
        source_words=source_words,
        input_words=input_words,
        log_probabilities=[float(row[i]) for row, i in zip(log_probs, outputs, strict=True)],
        candidates=candidates,
        nodes=nodes,
        node_pieces=[other.id_to_piece(node.ids[-1]) if node.ids else "" for node in nodes],
        best=best,
        shapes=tensor_shapes(model, len(source_ids), len(inputs)),
        warnings=translator.remarks(text),
    )
