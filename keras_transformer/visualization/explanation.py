"""What happens to one sentence, collected from the model itself."""

import math
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_transformer import arguments
from keras_transformer.decoding import Translator
from keras_transformer.decoding.alignment import over_words
from keras_transformer.visualization.shapes import tensor_shapes
from keras_transformer.visualization.tree import beam_tree
from keras_transformer.visualization.words import words_of

# Candidates shown at each step.
CANDIDATES = 5


class Explanation(NamedTuple):
    """What `explain` finds. Arrays are NumPy's.

    The decoder's rows are its steps: at step t it has read the start and t tokens, and chooses
    token t. So `inputs` begins with the start id, and `outputs` ends with the end id.
    """

    source: str
    target: str
    given: bool  # whether the target was given; otherwise the search found it
    source_ids: list  # S ids, with the end
    source_pieces: list
    inputs: list  # T ids that the decoder reads
    input_pieces: list
    outputs: list  # T ids that it should choose
    output_pieces: list
    weights: dict  # "encoder" [L, H, S, S], "decoder" [L, H, T, T], "cross" [L, H, T, S]
    word_weights: dict  # the same between words
    source_words: list
    input_words: list
    log_probabilities: list  # T numbers, of the outputs, in nats
    candidates: list  # T lists of (piece, probability), the most probable first
    nodes: list  # of the beam tree, see `tree.Node`
    node_pieces: list  # the last piece of each node
    best: int  # the node of the best hypothesis
    shapes: list  # of (Call, letters)
    warnings: list  # sentences that say what training never saw of the source

    @property
    def log_probability(self) -> float:
        """The log-probability of the whole target, in nats."""
        return math.fsum(self.log_probabilities)


def explain(
    translator: Translator,
    text: str,
    target: str | None = None,
    beam_size: int = 4,
    length_penalty: float | str = 0.6,
    tree: bool = True,
) -> Explanation:
    """Follows one sentence through the model: tokens, attention, search, probabilities, shapes.

    Args:
        translator: A `Translator` of one model, not of an ensemble.
        text: The source sentence.
        target: A translation to look at. Unless given it is the one that the search finds.
        beam_size, length_penalty: As in `Translator.translate`.
        tree: Whether to record the beam tree and the shapes. Without them the translator's compiled
            search is used, which is quicker; then `nodes` and `shapes` are empty, and `best` is 0.

    Raises:
        ValueError: If the sentence is empty, or the translator is an ensemble.

    Example:

    ```python
    found = kt.visualization.explain(kt.load_translator("runs/demo"), "나는 집에 간다")
    found.weights["cross"][-1]  # [H, T, S]: what each step looks at in the source
    kt.visualization.write(found, "looked-at")  # a page and pictures
    ```
    """
    if len(translator.models) != 1:
        raise ValueError(
            f"Only one model can be explained, got an ensemble of {len(translator.models)}. Pass a "
            "Translator of one of them."
        )
    if not hasattr(translator.models[0], "attention_weights"):
        raise ValueError(
            f"A {type(translator.models[0]).__name__} has no method attention_weights. Pass a "
            "Translator of a Transformer."
        )
    beam_size = arguments.whole_number("beam_size", beam_size, advice="1 is greedy search.")
    length_penalty = arguments.length_penalty(length_penalty)
    source = translator.encode_sources([text])[0] if isinstance(text, str) else []
    if not source:
        raise ValueError(f"There is nothing to show of an empty sentence: got {text!r}.")
    [model], tokenizer, other = translator.models, translator.tokenizer, translator.target_tokenizer
    nodes: list = []
    best = 0
    if tree:
        nodes, best = beam_tree(translator, source, beam_size, length_penalty)
    if target is not None:
        [ids] = other.encode([target])
    elif tree:
        ids = list(nodes[best].ids[:-1])
    else:
        ids = translator.n_best([text], 1, beam_size, length_penalty)[0][0].ids
    source_ids = [*source, tokenizer.end_id]
    inputs, outputs = [other.start_id, *ids], [*ids, other.end_id]

    source_array, input_array = (np.array([each], "int32") for each in (source_ids, inputs))
    weights = model.attention_weights(source_array, input_array)
    weights = {kind: each[:, 0] for kind, each in weights.items()}
    source_pieces = [tokenizer.id_to_piece(i) for i in source_ids]
    input_pieces, output_pieces = ([other.id_to_piece(i) for i in ids] for ids in (inputs, outputs))
    source_words, source_numbers = words_of(source_pieces)
    input_words, input_numbers = words_of(input_pieces)
    numbers = {
        "encoder": (source_numbers, source_numbers),
        "decoder": (input_numbers, input_numbers),
        "cross": (input_numbers, source_numbers),
    }
    logits = model.decode(input_array, *model.encode(source_array))
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
        source_pieces=source_pieces,
        inputs=inputs,
        input_pieces=input_pieces,
        outputs=outputs,
        output_pieces=output_pieces,
        weights=weights,
        word_weights={kind: over_words(weights[kind], *numbers[kind]) for kind in weights},
        source_words=source_words,
        input_words=input_words,
        log_probabilities=[float(row[i]) for row, i in zip(log_probs, outputs, strict=True)],
        candidates=candidates,
        nodes=nodes,
        node_pieces=[other.id_to_piece(node.ids[-1]) if node.ids else "" for node in nodes],
        best=best,
        shapes=tensor_shapes(model, len(source_ids), len(inputs)) if tree else [],
        warnings=translator.remarks(text),
    )
