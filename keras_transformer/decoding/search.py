"""Greedy and beam search: pure functions over `step(ids, cache, index)` (paper, section 6.1).

`step` takes the newest ids [R], the cache and the position of those ids, and returns logits [R, V]
and the new cache. A cache is any nest of tensors with R rows each. Every search is one loop of
fixed shapes, which XLA can compile: rows that are done wait without changing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from keras import ops

from keras_transformer.decoding.next_token import IMPOSSIBLE, Adjust, next_log_probs
from keras_transformer.ops import Tensor
from keras_transformer.ops.beams import repeat_rows, sequences_of, take_rows
from keras_transformer.ops.search_loop import search_loop
from keras_transformer.ops.top_k import highest, top_k

Step = Callable[[Tensor, Any, Tensor], tuple[Tensor, Any]]


def gnmt_penalty(alpha: float = 0.6) -> Callable[[Tensor], Tensor]:
    """`((5 + length) / 6)^alpha` (Wu et al., 2016), the divisor of a log-probability.

    Args:
        alpha: 0.6 in the paper; 0 compares plain log-probabilities. Not below 0.

    Returns:
        A function of the length in tokens, the end token counted.
    """
    if alpha < 0:
        raise ValueError(f"A length penalty alpha is at least 0, got {alpha}.")
    return lambda length: ((5.0 + ops.cast(length, "float32")) / 6.0) ** alpha


def average_penalty() -> Callable[[Tensor], Tensor]:
    """`length`: hypotheses are compared by their log-probability per token."""
    return lambda length: ops.cast(length, "float32")


class GreedyState(NamedTuple):
    """What greedy search carries from step to step."""

    index: Tensor  # type: ignore[assignment]  # scalar: position of the ids that come next
    max_lengths: Tensor  # [B] never changes
    ids: Tensor  # [B, length] the chosen ids, pad after the end
    last: Tensor  # [B] the newest ids
    scores: Tensor  # [B] sum of log-probabilities, nats
    done: Tensor  # [B] whether the end has been chosen
    cache: Any  # nest of [B, ...]
    rows: Any  # dictionary of [B, ...] never changes


def greedy_search(
    step: Step,
    cache: Any,
    max_lengths: Tensor,
    *,
    length: int,
    start_id: int,
    end_id: int,
    pad_id: int = 0,
    adjust: Sequence[Adjust] = (),
    rows: dict[str, Tensor] | None = None,
    draw: Callable[[Tensor, Tensor, dict], Tensor] | None = None,
    shrink_to: int | None = None,
    shrink_cache: Callable[[Any, Tensor], Any] = take_rows,
) -> tuple[Tensor, Tensor, Tensor]:
    """Chooses the most probable next token, again and again.

    Args:
        step: `(ids [B], cache, index) -> (logits [B, V], cache)`.
        cache: Nest of tensors [B, ...].
        max_lengths: Integers [B], the greatest number of tokens in each row, the end counted. The
            last of them is forced to be the end.
        length: Width of the result and greatest number of steps, fixed when compiled.
        start_id, end_id, pad_id: Their ids. Start and padding are never chosen.
        adjust, rows: Functions of log-probabilities, and their tensors [B, ...]: next_token.py.
        draw: `(log_probs [B, V], index, rows) -> ids [B]`, instead of the most probable ones.
        shrink_to: When so few rows are unfinished, a second loop continues with only those.
        shrink_cache: `(cache, rows [shrink_to]) -> cache`, the cache of only those rows.

    Returns:
        Ids [B, length], pad after the end; log-probabilities [B] in nats; and booleans [B], True
        where the row ended, False where `length` was too short for it.

    Example:

    ```python
    ids, scores, done = greedy_search(step, cache, max_lengths, length=60, start_id=2, end_id=3)
    ```
    """
    count = ops.shape(max_lengths)[0]
    state = GreedyState(
        index=ops.convert_to_tensor(0, "int32"),
        max_lengths=max_lengths,
        ids=ops.full((count, length), pad_id, dtype="int32"),
        last=ops.full((count,), start_id, dtype="int32"),
        scores=ops.zeros((count,), dtype="float32"),
        done=ops.zeros((count,), dtype="bool"),
        cache=cache,
        rows=rows or {},
    )
    following = partial(next_log_probs, never=(pad_id, start_id), end_id=end_id, adjust=adjust)

    def advance(*values):
        state = GreedyState(*values)
        index = state.index
        logits, cache = step(state.last, state.cache, index)
        log_probs = following(logits, state.ids, index, state.max_lengths, rows=state.rows)
        score, chosen = highest(log_probs)
        if draw is not None:
            chosen = draw(log_probs, index, state.rows)
            score = ops.take_along_axis(log_probs, chosen[:, None], axis=1)[:, 0]
        chosen = ops.where(state.done, pad_id, chosen)
        return state._replace(
            index=index + 1,
            ids=written(state.ids, chosen, index),
            last=chosen,
            scores=state.scores + ops.where(state.done, 0.0, score),
            done=ops.logical_or(state.done, ops.equal(chosen, end_id)),
            cache=cache,
        )

    state = search_loop(advance, state, length, shrink_to, shrink_cache)
    return state.ids, state.scores, state.done


class BeamState(NamedTuple):
    """What beam search carries from step to step."""

    index: Tensor  # type: ignore[assignment]  # scalar: position of the ids that come next
    max_lengths: Tensor  # [B] never changes
    alive_ids: Tensor  # [B, N, length] unfinished hypotheses, best first
    alive_scores: Tensor  # [B, N] sums of log-probabilities, nats
    finished_ids: Tensor  # [B, N, length] finished hypotheses, best first
    finished_scores: Tensor  # [B, N] log-probability / penalty(length); IMPOSSIBLE if there is none
    greedy: Tensor  # [B] the beam of greedy search's hypothesis, -1 once it has ended or left
    done: Tensor  # [B] whether the search of the row is over
    cache: Any  # nest of [B * N, ...]
    rows: Any  # dictionary of [B, ...] never changes


def beam_search(
    step: Step,
    cache: Any,
    max_lengths: Tensor,
    *,
    length: int,
    beam_size: int,
    start_id: int,
    end_id: int,
    pad_id: int = 0,
    penalty: Callable[[Tensor], Tensor] | None = None,
    n_best: int = 1,
    reorder: Callable[[Any, Tensor], Any] = take_rows,
    adjust: Sequence[Adjust] = (),
    rows: dict[str, Tensor] | None = None,
    shrink_to: int | None = None,
    shrink_cache: Callable[[Any, Tensor], Any] | None = None,
    while_loop: Callable = ops.while_loop,
) -> tuple[Tensor, Tensor, Tensor]:
    """Beam search with a set of finished hypotheses and a length penalty (section 6.1).

    Each step extends the N unfinished hypotheses and looks at the best 2N candidates. Those among
    the best N that end go to the finished set, where their score is final. The best N that do not
    end live on. A row is over as soon as no living hypothesis can enter the `n_best`: its
    log-probability can only fall, so its score is at most `log-probability / penalty(max_length)`.
    A row is over earlier if N hypotheses have finished, all at least as good as the leader at its
    present length, and greedy search's own hypothesis has ended or left the beam. So the result is
    never worse than a greedy one that stayed in the beam.

    Args:
        step: `(ids [B * N], cache, index) -> (logits [B * N, V], cache)`.
        cache: Nest of tensors [B * N, ...]; the N rows of a source are side by side.
        beam_size: N. 1 gives what `greedy_search` gives.
        penalty: A function of the length that never falls, such as `gnmt_penalty(0.6)` (the
            default) or `average_penalty()`.
        n_best: How many of the N results are wanted; the others may be incomplete.
        reorder: `(cache, rows [B * N]) -> cache`, the cache of the hypotheses that live on. It may
            leave large tensors in place and only note where things are (ops/beams.py).
        while_loop: Runs the search, `(unfinished, advance, state) -> state`. One that looks at each
            `BeamState` on the way must not be compiled.
        max_lengths, length, start_id, end_id, pad_id, adjust, rows, shrink_to, shrink_cache: As in
            `greedy_search`. Rows are sources, for `adjust` hypotheses: `shrink_cache` keeps all.

    Returns:
        Ids [B, N, length], pad after the end, best first; scores [B, N],
        log-probability / penalty(length); and booleans [B], True where the row is over, False where
        `length` was too short for it. A hypothesis that does not exist is pad and scores
        `IMPOSSIBLE`.

    Example:

    ```python
    ids, scores, done = beam_search(
        step, cache, max_lengths, length=60, beam_size=4, start_id=2, end_id=3
    )
    ```
    """
    penalty = gnmt_penalty() if penalty is None else penalty
    count, beams = ops.shape(max_lengths)[0], beam_size
    # Only the first beam exists at the start, or all would be the same.
    first = ops.where(ops.arange(beams) == 0, 0.0, IMPOSSIBLE)
    state = BeamState(
        index=ops.convert_to_tensor(0, "int32"),
        max_lengths=max_lengths,
        alive_ids=ops.full((count, beams, length), pad_id, dtype="int32"),
        alive_scores=ops.broadcast_to(ops.cast(first, "float32")[None], (count, beams)),
        finished_ids=ops.full((count, beams, length), pad_id, dtype="int32"),
        finished_scores=ops.full((count, beams), IMPOSSIBLE, dtype="float32"),
        greedy=ops.zeros((count,), dtype="int32"),
        done=ops.zeros((count,), dtype="bool"),
        cache=cache,
        rows=rows or {},
    )
    following = partial(next_log_probs, never=(pad_id, start_id), end_id=end_id, adjust=adjust)

    def advance(*values):
        state = BeamState(*values)
        index = state.index
        newest = ops.take(state.alive_ids, ops.maximum(index - 1, 0), axis=2)  # [B, N]
        newest = ops.where(index == 0, start_id, newest)
        logits, cache = step(ops.reshape(newest, (-1,)), state.cache, index)
        size = logits.shape[-1]
        limits, per_beam = repeat_rows((state.max_lengths, state.rows), beams)  # [B * N, ...]
        alive_ids = ops.reshape(state.alive_ids, (-1, ops.shape(state.alive_ids)[-1]))
        log_probs = following(logits, alive_ids, index, limits, rows=per_beam)
        scores = state.alive_scores[:, :, None] + ops.reshape(log_probs, (-1, beams, size))

        # The best 2N candidates: even if N of them end, N live on.
        scores, candidates = top_k(ops.reshape(scores, (-1, beams * size)), 2 * beams)
        origins, tokens = candidates // size, candidates % size  # [B, 2N]
        ids = written(pick(state.alive_ids, origins), tokens, index)  # [B, 2N, length]
        ends = ops.equal(tokens, end_id)

        # Those among the best N that end join the finished: the best N of 3N.
        in_beam = ops.logical_and(ops.arange(2 * beams) < beams, scores > IMPOSSIBLE / 2)
        finishes = ops.logical_and(ends, in_beam)
        finishes = ops.logical_and(finishes, ops.logical_not(state.done)[:, None])
        final = ops.where(finishes, scores / penalty(index + 1), IMPOSSIBLE)
        finished_scores = ops.concatenate([state.finished_scores, final], axis=1)
        finished_ids = ops.concatenate([state.finished_ids, ids], axis=1)
        finished_scores, kept = ops.top_k(finished_scores, beams)
        finished_ids = pick(finished_ids, kept)

        # The best N that do not end live on.
        alive_scores, kept = ops.top_k(ops.where(ends, IMPOSSIBLE, scores), beams)
        kept = ops.cast(kept, "int32")
        # The best candidate of a beam is what greedy search chooses there.
        chosen = _first(ops.equal(origins, state.greedy[:, None]))
        lives = ops.logical_and(ops.equal(kept, chosen[:, None]), alive_scores > IMPOSSIBLE / 2)
        greedy = _first(lives)
        origins = ops.take_along_axis(origins, kept, axis=1)  # [B, N]
        sources = ops.arange(ops.shape(origins)[0], dtype="int32")[:, None]
        cache = reorder(cache, ops.reshape(origins + sources * beams, (-1,)))

        # Is the row over?
        leader = alive_scores[:, 0]
        hopeless = finished_scores[:, n_best - 1] >= leader / penalty(state.max_lengths)
        last = finished_scores[:, beams - 1]
        full = ops.logical_and(last > IMPOSSIBLE / 2, last >= leader / penalty(index + 1))
        settled = ops.logical_and(full, greedy < 0)
        over = ops.logical_or(ops.logical_or(hopeless, settled), leader < IMPOSSIBLE / 2)
        return state._replace(
            index=index + 1,
            alive_ids=pick(ids, kept),
            alive_scores=alive_scores,
            finished_ids=finished_ids,
            finished_scores=finished_scores,
            greedy=greedy,
            done=ops.logical_or(state.done, over),
            cache=cache,
        )

    def all_beams(cache, sources):
        return take_rows(cache, sequences_of(sources, beams))

    state = search_loop(advance, state, length, shrink_to, shrink_cache or all_beams, while_loop)
    # The ids of a hypothesis that does not exist depend on how the backend sorts equal scores.
    real = state.finished_scores[:, :, None] > IMPOSSIBLE / 2
    return ops.where(real, state.finished_ids, pad_id), state.finished_scores, state.done


def written(ids: Tensor, tokens: Tensor, index: Tensor) -> Tensor:
    """`ids` [..., length] with `tokens` [...] at position `index`."""
    here = ops.equal(ops.arange(ops.shape(ids)[-1], dtype="int32"), index)
    return ops.where(here, tokens[..., None], ids)


def _first(there):
    """The index of the first True of each row of booleans [B, M], or -1: [B]."""
    first = ops.cast(ops.argmax(ops.cast(there, "int32"), axis=1), "int32")
    return ops.where(ops.any(there, axis=1), first, -1)


def pick(ids: Tensor, choices: Tensor) -> Tensor:
    """Hypotheses [B, M, length] chosen by [B, K] -> [B, K, length]."""
    return ops.take_along_axis(ids, ops.cast(choices, "int32")[:, :, None], axis=1)
