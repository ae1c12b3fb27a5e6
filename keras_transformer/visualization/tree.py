"""The beam search of one sentence as a tree."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_transformer.decoding import search

# What is read of each `search.BeamState`.
WATCHED = ("index", "alive_ids", "alive_scores", "finished_ids", "finished_scores")


class Node(NamedTuple):
    """A prefix that the search kept, or a hypothesis that it finished."""

    ids: tuple  # without the start; a finished one has its end
    parent: int  # place of its prefix among the nodes; -1 for the root
    log_probability: float  # nats, of the whole prefix
    score: float  # log-probability / length penalty where it has finished, else None
    kept: bool  # whether it leads to a finished hypothesis


def beam_tree(translator, source, beam_size, length_penalty):
    """Runs the translator's own search, step by step, and keeps what it keeps.

    Args:
        translator: a `Translator`.
        source: ids of the sentence, without the end.
        beam_size: N.
        length_penalty: as for `Translator.translate`.

    Returns:
        A list of `Node`, parents first, the root (nothing yet) at place 0; and the place of the
        best.

    Raises:
        ValueError: where nothing finished, as the model's probabilities are not finite.
    """
    source_ids, max_lengths = translator.batch([source])
    # No padding: one sentence, run once, is not compiled.
    source_ids, max_lengths = source_ids[:1, : len(source) + 1], max_lengths[:1]
    states = []

    def loop(unfinished, advance, state):
        while bool(ops.convert_to_numpy(unfinished(*state))):
            state = advance(*state)
            found = search.BeamState(*state)
            states.append([ops.convert_to_numpy(getattr(found, name)) for name in WATCHED])
        return state

    length = int(max_lengths[0])
    arrays = (ops.convert_to_tensor(each) for each in (source_ids, max_lengths))
    translator.search_ids(*arrays, length, 1, beam_size, length_penalty, loop)

    penalty = (
        search.average_penalty()
        if length_penalty == "average"
        else search.gnmt_penalty(length_penalty)
    )
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
