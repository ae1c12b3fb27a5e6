"""A search reports of each hypothesis what the model says of it, and nothing after its end."""

import numpy as np
from keras import ops

from keras_transformer.search import IMPOSSIBLE
from keras_transformer.testing import running


def assert_scores_are_final(
    search, model, source_ids, *, start_id, end_id, pad_id=0, penalty=None, tolerance=None
):
    """A finished hypothesis keeps its score: its log-probability when the model is forced to it.

    ```
    score = sum_t log p(ids[t] | source, ids[:t]) / penalty(length)        the end counted
    ```

    Results are sorted, distinct, hold nothing but padding after the end, and those of a source do
    not depend on the sources beside it, for which the search may run on.

    Args:
        search: `source_ids [B, S] -> (ids, scores)`, ids [B, L] and scores [B], or [B, N, L] and
            [B, N], best first. A hypothesis that does not exist scores
            `keras_transformer.search.IMPOSSIBLE` or -inf.
        model: `{"source_ids": [B, S], "target_ids": [B, T]} -> logits [B, T, V]`.
        source_ids: integers [B, S].
        start_id, end_id, pad_id: the ids that begin and end a target, and padding.
        penalty: what log-probabilities are divided by, a function of the length; nothing if not
            given.
        tolerance: the largest difference of scores that is none; by default what rounding in the
            model's compute dtype explains.

    Raises:
        AssertionError: with the first hypothesis whose score is another, and the usual causes.

    Example:

    ```python
    kt.testing.assert_scores_are_final(
        my_beam_search, model, source_ids, start_id=2, end_id=3,
        penalty=kt.search.gnmt_penalty(0.6),
    )
    ```
    """
    source_ids = np.asarray(source_ids)
    ids, scores = _results(search, source_ids)
    exists = scores > IMPOSSIBLE / 2  # [B, N]
    if not exists[:, 0].all():
        raise AssertionError(
            f"The search found nothing for source row {int(np.argmin(exists[:, 0]))}.\nUsual "
            "causes: the limit of length reached with no hypothesis finished: force the end there."
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
            raise AssertionError(
                "A score is not that of its hypothesis: forced to the same ids, the model gives "
                f"another.\nFirst difference: batch row {b}, hypothesis {n}, ids {found}: reported "
                f"{scores[b, n]:.7g}, teacher-forced {expected[b, n]:.7g} (tolerance "
                f"{rounding[b, n]:.2g}).\nUsual causes: a finished hypothesis that keeps scoring "
                "(padding or more ends after its end); another length in the penalty (the end not "
                "counted, or the start counted); a cache that is not reordered with its beams; "
                "log-probabilities normalised over the permitted tokens alone."
            )
    _require_sorted_and_distinct(ids, scores, exists, lengths)
    for b in range(len(source_ids)):
        _, alone = _results(search, source_ids[b : b + 1])
        there = exists[b] | (alone[0] > IMPOSSIBLE / 2)
        limit = np.where(exists[b], rounding[b], 0.0)
        # On positions that exist in one of both only, the difference is IMPOSSIBLE's.
        with np.errstate(invalid="ignore"):
            differs = there & ~(np.abs(alone[0] - scores[b]) <= limit)
        if differs.any():
            n = int(np.argmax(differs))
            raise AssertionError(
                f"The batch matters: source row {b} alone gives another score.\nFirst difference: "
                f"hypothesis {n}: {scores[b, n]:.7g} in the batch, {alone[0, n]:.7g} alone.\n"
                "Usual causes: finished rows that go on while others are unfinished; beams of one "
                "source mixed with another's."
            )


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
            raise AssertionError(
                f"Something follows the end: batch row {b}, hypothesis {n} is {row} (end "
                f"{end_id}, padding {pad_id}).\nUsual causes: a finished row that goes on while "
                "others are unfinished; ids that are not cut or filled after the end."
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
    _, _, logits = running.runner(model, inputs)  # [B * N, L, V]
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
            raise AssertionError(
                f"The hypotheses of batch row {b} are not sorted, best first: scores "
                f"{scores[b].tolist()}.\nUsual causes: finished and unfinished ones joined without "
                "sorting; sorted by the log-probability before the length penalty."
            )
        texts = [tuple(ids[b, n, : lengths[b, n]].tolist()) for n in there]
        if len(set(texts)) < len(texts):
            raise AssertionError(
                f"Two hypotheses of batch row {b} are the same: {[list(t) for t in texts]}.\n"
                "Usual causes: all beams alive at the first step; a finished hypothesis that is "
                "extended once more."
            )
