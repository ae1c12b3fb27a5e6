"""A search reports of each hypothesis what the model says of it, and nothing after its end."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_transformer.decoding.next_token import IMPOSSIBLE
from keras_transformer.testing import running

Search = Callable[[np.ndarray], tuple[Any, Any]]


def assert_scores_are_final(
    search: Search,
    model: Any,
    source_ids: Any,
    *,
    start_id: int,
    end_id: int,
    pad_id: int = 0,
    penalty: Callable[[Any], Any] | None = None,
    tolerance: float | None = None,
) -> None:
    """Requires that a hypothesis scores its log-probability, teacher-forced and penalised.

    ```
    score = sum_t log p(ids[t] | source, ids[:t]) / penalty(length)        the end counted
    ```

    Results must be sorted and distinct, and hold only padding after the end. Those of a source must
    not depend on the sources beside it, for which the search may continue.

    Args:
        search: `source_ids [B, S] -> (ids, scores)`, ids [B, L] and scores [B], or [B, N, L] and
            [B, N], best first. A hypothesis that does not exist scores
            `keras_transformer.decoding.IMPOSSIBLE` or -inf.
        model: `{"source_ids": [B, S], "target_ids": [B, T]} -> logits [B, T, V]`.
        source_ids: Integers [B, S].
        start_id, end_id, pad_id: The ids that begin and end a target, and padding.
        penalty: A function of the length, by which log-probabilities are divided. None: 1.
        tolerance: The largest difference of scores that is accepted. Unless given it is what
            rounding in the model's compute dtype explains.

    Raises:
        AssertionError: If a score is wrong; with the first hypothesis for which it is.

    Example:

    ```python
    kt.testing.assert_scores_are_final(
        my_beam_search, model, source_ids, start_id=2, end_id=3,
        penalty=kt.decoding.gnmt_penalty(0.6),
    )
    ```
    """
    source_ids = np.asarray(source_ids)
    ids, scores = _results(search, source_ids)
    exists = scores > IMPOSSIBLE / 2  # [B, N]
    if not exists[:, 0].all():
        running.fail(
            f"The search found nothing for source row {int(np.argmin(exists[:, 0]))}.",
            "the limit of length reached with no hypothesis finished: force the end there",
        )
    lengths = _lengths(ids, exists, end_id, pad_id)  # [B, N]
    forced, rounding = _teacher_forced(model, source_ids, ids, lengths, start_id, tolerance)
    divisor = np.ones(ids.shape[-1] + 1)
    if penalty is not None:
        divisor[1:] = [float(ops.convert_to_numpy(penalty(n))) for n in range(1, ids.shape[-1] + 1)]
    expected = forced / divisor[lengths]
    for b, n in np.argwhere(exists):
        if not abs(scores[b, n] - expected[b, n]) <= rounding[b, n]:
            found = ids[b, n, : lengths[b, n]].tolist()
            running.fail(
                "A score is not that of its hypothesis: forced to the same ids, the model gives "
                "another.",
                "a finished hypothesis that keeps scoring (padding or more ends after its end); "
                "another length in the penalty (the end not counted, or the start counted); a "
                "cache that is not reordered with its beams; log-probabilities normalised over the "
                "permitted tokens only",
                f"batch row {b}, hypothesis {n}, ids {found}: reported {scores[b, n]:.7g}, "
                f"teacher-forced {expected[b, n]:.7g} (tolerance {rounding[b, n]:.2g})",
            )
    _require_sorted_and_distinct(ids, scores, exists, lengths)
    for b in range(len(source_ids)):
        _, alone = _results(search, source_ids[b : b + 1])
        there = exists[b] | (alone[0] > IMPOSSIBLE / 2)
        limit = np.where(exists[b], rounding[b], 0.0)
        # Where only one of both exists, the difference is as large as IMPOSSIBLE.
        with np.errstate(invalid="ignore"):
            differs = there & ~(np.abs(alone[0] - scores[b]) <= limit)
        if differs.any():
            n = int(np.argmax(differs))
            running.fail(
                f"The batch matters: source row {b} gives another score by itself.",
                "finished rows that continue while others are unfinished; beams of one source mixed"
                " with another's",
                f"hypothesis {n}: {scores[b, n]:.7g} in the batch, {alone[0, n]:.7g} by itself",
            )


def assert_beam_keeps_greedy(
    search: Search,
    model: Any,
    source_ids: Any,
    *,
    beam_size: int,
    start_id: int,
    end_id: int,
    pad_id: int = 0,
    penalty: Callable[[Any], Any] | None = None,
    max_lengths: Any = None,
    tolerance: float | None = None,
) -> None:
    """Requires that a beam is not worse than greedy search's hypothesis while that is in the beam.

    ```
    max_n score[n] >= log P(greedy's ids | source) / penalty(length)
    ```

    It holds for the sources whose greedy hypothesis is among the best `beam_size` at every step,
    its end included. A search that stops once `beam_size` hypotheses have finished breaks it: all
    of them may be worse than one that is unfinished.

    Args:
        search, model, source_ids, start_id, end_id, pad_id, penalty, tolerance: As in
            `assert_scores_are_final`. The search may choose neither the start nor padding.
        beam_size: The number of hypotheses that the search keeps alive.
        max_lengths: Integers [B], the search's limits, the end counted. None: L.

    Raises:
        AssertionError: If a source's best hypothesis is worse than greedy search's.
        ValueError: If greedy search's hypothesis left the beam for every source.

    Example:

    ```python
    kt.testing.assert_beam_keeps_greedy(
        my_beam_search, model, source_ids, beam_size=4, start_id=2, end_id=3,
        penalty=kt.decoding.gnmt_penalty(0.6),
    )
    ```
    """
    source_ids = np.asarray(source_ids)
    ids, scores = _results(search, source_ids)
    if max_lengths is None:
        max_lengths = np.full(len(ids), ids.shape[-1])
    found, lengths, rounding = _greedy_in_beam(
        model, source_ids, beam_size, np.asarray(max_lengths), (start_id, end_id, pad_id)
    )
    if not lengths.any():
        raise ValueError(
            f"Greedy search's hypothesis left the beam of {beam_size} for every source, so nothing "
            "was compared: give other sources, or a larger beam."
        )
    for b in np.flatnonzero(lengths):
        divisor = 1.0 if penalty is None else float(ops.convert_to_numpy(penalty(int(lengths[b]))))
        allowed = rounding * lengths[b] / divisor if tolerance is None else tolerance
        if not scores[b, 0] >= found[b] / divisor - allowed:
            running.fail(
                f"A beam of {beam_size} is worse than greedy search: source row {b} scores "
                f"{scores[b, 0]:.7g}, greedy's hypothesis of {lengths[b]} tokens "
                f"{found[b] / divisor:.7g} (tolerance {allowed:.2g}), and it never left the beam.",
                "a search that stops once enough hypotheses have finished, although a living one "
                "could still win; finished hypotheses that take the place of living ones; scores "
                "compared before the length penalty",
            )


def _greedy_in_beam(model, source_ids, beam_size, max_lengths, ids_of_ends):
    """Follows greedy search's hypothesis through a beam search that never stops early.

    Returns:
        Its log-probabilities [B]; its lengths [B], 0 where it left the beam; and what rounding may
        change in the log-probability of one token.
    """
    start_id, end_id, pad_id = ids_of_ends
    rows, width = len(source_ids), int(max_lengths.max())
    alive = np.full((rows, beam_size, width + 1), pad_id)
    alive[:, :, 0] = start_id
    scores = np.full((rows, beam_size), -np.inf)
    scores[:, 0] = 0.0
    place = np.zeros(rows, int)  # greedy's own, -1 once it has ended or left
    found, lengths, rounding = np.zeros(rows), np.zeros(rows, int), 0.0
    inputs = {"source_ids": np.repeat(source_ids, beam_size, axis=0)}
    inputs["target_ids"] = alive[:, :, :-1].reshape(-1, width).astype(source_ids.dtype)
    run = running.Runner(model, inputs)
    for t in range(width):
        inputs["target_ids"] = alive[:, :, :-1].reshape(-1, width).astype(source_ids.dtype)
        logits = run(inputs)[:, t].astype("float64")  # [B * N, V]
        rounding = max(rounding, running.rounding(model, logits))
        logits -= logits.max(axis=-1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        log_probs[:, [start_id, pad_id]] = -np.inf
        size = log_probs.shape[-1]
        log_probs = log_probs.reshape(rows, beam_size, size)
        log_probs[
            np.ix_(t + 1 >= max_lengths, np.arange(beam_size), np.arange(size) != end_id)
        ] = -np.inf
        for b in np.flatnonzero(place >= 0):
            candidates = (scores[b][:, None] + log_probs[b]).ravel()
            best = np.argsort(-candidates, kind="stable")[: 2 * beam_size]
            goes_on = best[best % size != end_id][:beam_size]
            choice = place[b] * size + int(log_probs[b, place[b]].argmax())
            if choice % size == end_id:
                if choice in best[:beam_size]:
                    found[b], lengths[b] = candidates[choice], t + 1
                place[b] = -1
            else:
                place[b] = int(np.argmax(goes_on == choice)) if choice in goes_on else -1
            alive[b, : len(goes_on)] = alive[b, goes_on // size]
            alive[b, : len(goes_on), t + 1] = goes_on % size
            scores[b] = -np.inf
            scores[b, : len(goes_on)] = candidates[goes_on]
        if (place < 0).all():
            break
    return found, lengths, rounding


def _results(search, source_ids):
    """ids [B, N, L] and scores [B, N]."""
    ids, scores = (ops.convert_to_numpy(result) for result in search(source_ids))
    scores = scores.astype("float64")
    if ids.ndim == 2:
        ids, scores = ids[:, None], scores.reshape(-1, 1)
    if ids.ndim != 3 or ids.shape[:2] != scores.shape or len(ids) != len(source_ids):
        raise ValueError(
            "A search returns ids [B, L] and scores [B], or ids [B, N, L] and scores [B, N]; for "
            f"{len(source_ids)} sources it returned {ids.shape} and {scores.shape}."
        )
    return ids, scores


def _lengths(ids, exists, end_id, pad_id):
    """Tokens of each hypothesis, the end counted [B, N]; nothing may follow the end."""
    lengths = np.zeros(exists.shape, int)
    for b, n in np.argwhere(exists):
        row = ids[b, n].tolist()
        lengths[b, n] = row.index(end_id) + 1 if end_id in row else len(row)
        while end_id not in row and lengths[b, n] > 1 and row[lengths[b, n] - 1] == pad_id:
            lengths[b, n] -= 1
        rest = row[lengths[b, n] :]
        if any(token != pad_id for token in rest):
            running.fail(
                f"Something follows the end: batch row {b}, hypothesis {n} is {row} (end "
                f"{end_id}, padding {pad_id}).",
                "a finished row that continues while others are unfinished; ids that are not cut"
                " or filled after the end",
            )
    return lengths


def _teacher_forced(model, source_ids, ids, lengths, start_id, tolerance):
    """Log-probabilities of the hypotheses [B, N], from one call, and what rounding may change."""
    rows, beams, length = ids.shape
    flat = ids.reshape(-1, length)
    target_ids = np.concatenate([np.full((len(flat), 1), start_id), flat[:, :-1]], axis=1)
    inputs = {
        "source_ids": np.repeat(source_ids, beams, axis=0),
        "target_ids": target_ids.astype(source_ids.dtype),
    }
    logits = running.Runner(model, inputs).expected  # [B * N, L, V]
    allowed = running.rounding(model, logits) if tolerance is None else tolerance
    logits = logits.astype("float64") - logits.max(axis=-1, keepdims=True)
    nats = np.log(np.exp(logits).sum(axis=-1, keepdims=True)) - logits
    chosen = -np.take_along_axis(nats, flat[..., None].astype(int), axis=-1)[..., 0]
    counted = np.arange(length) < lengths.reshape(-1, 1)
    scores = np.where(counted, chosen, 0.0).sum(axis=1).reshape(rows, beams)
    # Each token brings the rounding of its logits and of the sum it is added to.
    return scores, allowed * (lengths if tolerance is None else 1) * np.ones(scores.shape)


def _require_sorted_and_distinct(ids, scores, exists, lengths):
    for b in range(len(ids)):
        there = np.flatnonzero(exists[b])
        steps = np.diff(scores[b])
        if (steps[np.isfinite(steps)] > 0).any():
            running.fail(
                f"The hypotheses of batch row {b} are not sorted, best first: scores "
                f"{scores[b].tolist()}.",
                "finished and unfinished ones joined without sorting; sorted by the "
                "log-probability before the length penalty",
            )
        texts = [tuple(ids[b, n, : lengths[b, n]].tolist()) for n in there]
        if len(set(texts)) < len(texts):
            running.fail(
                f"Two hypotheses of batch row {b} are the same: {[list(t) for t in texts]}.",
                "all beams alive at the first step; a finished hypothesis that is extended once "
                "more",
            )
