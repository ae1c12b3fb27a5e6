"""The beam search of one sentence as a tree."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_transformer.decoding import Translator, search
from keras_transformer.decoding.id_translator import penalty_of

# The fields of `search.BeamState` that the tree is made of.
WATCHED = ("index", "alive_ids", "alive_scores", "finished_ids", "finished_scores")


class Node(NamedTuple):
    """A prefix that the search kept, or a hypothesis that it finished."""

    ids: tuple  # without the start; a finished hypothesis has its end
    parent: int  # the place of its prefix among the nodes; -1 for the root
    log_probability: float  # of the whole prefix, in nats
    score: float | None  # log-probability / length penalty if it has finished
    kept: bool  # whether it leads to a finished hypothesis


def beam_tree(
    translator: Translator, source: Sequence[int], beam_size: int, length_penalty: float | str
) -> tuple[list[Node], int]:
    """Runs the translator's own search, step by step, and records what it keeps.

    Args:
        translator: A `Translator`.
        source: The ids of the sentence, without the end.
        beam_size, length_penalty: As in `Translator.translate`.

    Returns:
        The nodes, parents first, with the empty prefix as the root at place 0; and the place of the
        best hypothesis.

    Raises:
        ValueError: If no hypothesis finished, because the model's probabilities are not finite.
    """
    source_ids, max_lengths = translator.batch([source])
    # Without padding, because a search of one sentence is not compiled.
    source_ids, max_lengths = source_ids[:1, : len(source) + 1], max_lengths[:1]
    states = []

    def loop(unfinished, advance, state):
        while bool(ops.convert_to_numpy(unfinished(*state))):
            state = advance(*state)
            found = search.BeamState(*state)
            states.append([ops.convert_to_numpy(getattr(found, name)) for name in WATCHED])
        return state

    length = int(max_lengths[0])
    ids, limits = (ops.convert_to_tensor(each) for each in (source_ids, max_lengths))
    translator.search_ids(ids, limits, length, 1, beam_size, length_penalty, loop)

    penalty = penalty_of(length_penalty)
    nodes, places = [Node((), -1, 0.0, None, False)], {(): 0}

    def add(ids, log_probability, score=None):
        if ids not in places:
            places[ids] = len(nodes)
            nodes.append(Node(ids, places[ids[:-1]], log_probability, score, False))
        return places[ids]

    best, end_id = None, translator.target_tokenizer.end_id
    for index, alive_ids, alive_scores, finished_ids, finished_scores in states:
        for ids, score in zip(finished_ids[0], finished_scores[0], strict=True):
            if score > search.IMPOSSIBLE / 2:
                ids = tuple(ids[: int(np.argmax(ids == end_id)) + 1].tolist())
                divisor = float(ops.convert_to_numpy(penalty(len(ids))))
                add(ids, float(score) * divisor, float(score))
        if finished_scores[0, 0] > search.IMPOSSIBLE / 2:
            ids = finished_ids[0, 0]
            best = tuple(ids[: int(np.argmax(ids == end_id)) + 1].tolist())
        for ids, score in zip(alive_ids[0], alive_scores[0], strict=True):
            if score > search.IMPOSSIBLE / 2:
                add(tuple(ids[: int(index)].tolist()), float(score))
    if best is None:
        raise ValueError(
            "The search found no end: the model's probabilities are not finite. Are its weights "
            "those of a run that did not diverge?"
        )
    kept = {
        node.ids[:length]
        for node in nodes
        if node.score is not None
        for length in range(len(node.ids) + 1)
    }
    return [node._replace(kept=node.ids in kept) for node in nodes], places[best]
