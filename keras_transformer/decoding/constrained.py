"""Beam search whose results hold given phrases: terminology (Post and Vilar, 2018).

A hypothesis belongs to the bank of the phrase tokens that it has. At each step every bank keeps its
best hypotheses, so that one that has begun a phrase does not compete with one that has not. Banks
are filled in turns, all at once for a batch (Hu et al., 2019).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from keras import ops

from keras_transformer.decoding.next_token import IMPOSSIBLE, Adjust, newest, next_log_probs
from keras_transformer.decoding.search import pick, written
from keras_transformer.ops import Tensor
from keras_transformer.ops.beams import repeat_rows, take_rows
from keras_transformer.ops.search_loop import search_loop
from keras_transformer.ops.top_k import highest, top_k


class ConstrainedState(NamedTuple):
    """What the search carries from step to step."""

    index: Tensor  # type: ignore[assignment]  # scalar: position of the ids that come next
    max_lengths: Tensor  # [B] never changes
    alive_ids: Tensor  # [B, N, length] unfinished hypotheses
    alive_scores: Tensor  # [B, N] sums of log-probabilities, nats
    met: Tensor  # [B, N, C] whether a hypothesis holds a phrase; absent phrases are held
    finished_ids: Tensor  # [B, N, length] finished hypotheses, best first
    finished_scores: Tensor  # [B, N] log-probability / penalty(length); IMPOSSIBLE if there is none
    done: Tensor  # [B] whether the search of the row is over
    cache: Any  # nest of [B * N, ...]
    rows: Any  # dictionary of [B, ...] never changes; "phrases" [B, C, L], -1 behind their ends


def constrained_search(
    step: Callable[[Tensor, Any, Tensor], tuple[Tensor, Any]],
    cache: Any,
    max_lengths: Tensor,
    *,
    length: int,
    beam_size: int,
    start_id: int,
    end_id: int,
    rows: dict[str, Tensor],
    penalty: Callable[[Tensor], Tensor],
    pad_id: int = 0,
    n_best: int = 1,
    reorder: Callable[[Any, Tensor], Any] = take_rows,
    adjust: Sequence[Adjust] = (),
    while_loop: Callable = ops.while_loop,
) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the best hypotheses that hold all phrases of their row, each phrase in one piece.

    Args:
        beam_size: N. It should exceed the number of the phrases' tokens, so that each bank has a
            hypothesis.
        rows: With `"phrases"`, integers [B, C, L]: the phrases of each row, -1 behind their ends
            and for absent ones.
        step, cache, max_lengths, length, start_id, end_id, pad_id, penalty, n_best, reorder,
            adjust, while_loop: As in `beam_search`. A row's phrases and the end must fit into its
            limit.

    Returns:
        As `beam_search`: ids [B, N, length], scores [B, N], and booleans [B].
    """
    beams, phrases = beam_size, rows["phrases"]
    count = ops.shape(max_lengths)[0]
    first = ops.where(ops.arange(beams) == 0, 0.0, IMPOSSIBLE)
    absent = ops.repeat(ops.less(phrases[:, None, :, 0], 0), beams, axis=1)
    state = ConstrainedState(
        index=ops.convert_to_tensor(0, "int32"),
        max_lengths=max_lengths,
        alive_ids=ops.full((count, beams, length), pad_id, dtype="int32"),
        alive_scores=ops.broadcast_to(ops.cast(first, "float32")[None], (count, beams)),
        met=absent,
        finished_ids=ops.full((count, beams, length), pad_id, dtype="int32"),
        finished_scores=ops.full((count, beams), IMPOSSIBLE, dtype="float32"),
        done=ops.zeros((count,), dtype="bool"),
        cache=cache,
        rows=rows,
    )
    following = partial(next_log_probs, never=(pad_id, start_id), end_id=end_id, adjust=adjust)

    def advance(*values):
        state = ConstrainedState(*values)
        index, phrases = state.index, state.rows["phrases"]
        last = ops.take(state.alive_ids, ops.maximum(index - 1, 0), axis=2)  # [B, N]
        last = ops.where(index == 0, start_id, last)
        logits, cache = step(ops.reshape(last, (-1,)), state.cache, index)
        vocabulary = logits.shape[-1]
        limits, per_beam = repeat_rows((state.max_lengths, state.rows), beams)
        flat_ids = ops.reshape(state.alive_ids, (-1, ops.shape(state.alive_ids)[-1]))
        log_probs = following(logits, flat_ids, index, limits, rows=per_beam)
        scores = state.alive_scores[:, :, None] + ops.reshape(log_probs, (-1, beams, vocabulary))

        begun = _begun(state.alive_ids, index, phrases)  # [B, N, C, L]
        origins, tokens, scores = _candidates(scores, begun, state.met, phrases)  # [B, M]
        met, held = _after(begun, state.met, phrases, origins, tokens)  # [B, M, C], [B, M]

        # The rest of the phrases, and the end, must fit into what is left.
        lengths = ops.sum(ops.cast(phrases >= 0, "int32"), axis=(1, 2))[:, None]
        ends = ops.equal(tokens, end_id)
        fits = lengths - held + 1 <= state.max_lengths[:, None] - index - 1
        fits = ops.where(ends, ops.all(met, axis=2), fits)
        scores = ops.where(ops.logical_and(fits, scores > IMPOSSIBLE / 2), scores, IMPOSSIBLE)

        # Those that end join the finished.
        ids = written(pick(state.alive_ids, origins), tokens, index)  # [B, M, length]
        finishes = ops.logical_and(ends, ops.logical_not(state.done)[:, None])
        real = ops.logical_and(finishes, scores > IMPOSSIBLE / 2)
        final = ops.where(real, scores / penalty(index + 1), IMPOSSIBLE)
        finished_scores = ops.concatenate([state.finished_scores, final], axis=1)
        finished_ids = ops.concatenate([state.finished_ids, ids], axis=1)
        finished_scores, kept = ops.top_k(finished_scores, beams)
        finished_ids = pick(finished_ids, kept)

        # Of the others each bank keeps its best, the fullest bank first.
        scores = ops.where(ends, IMPOSSIBLE, scores)
        _, kept = ops.top_k(-_turn(scores, held, lengths), beams)
        kept = ops.cast(kept, "int32")
        alive_scores = ops.take_along_axis(scores, kept, axis=1)
        parents = ops.take_along_axis(origins, kept, axis=1)
        sources = ops.arange(ops.shape(parents)[0], dtype="int32")[:, None]
        cache = reorder(cache, ops.reshape(parents + sources * beams, (-1,)))

        leader = ops.max(alive_scores, axis=1)
        hopeless = finished_scores[:, n_best - 1] >= leader / penalty(state.max_lengths)
        last = finished_scores[:, beams - 1]
        full = ops.logical_and(last > IMPOSSIBLE / 2, last >= leader / penalty(index + 1))
        over = ops.logical_or(ops.logical_or(hopeless, full), leader < IMPOSSIBLE / 2)
        return state._replace(
            index=index + 1,
            alive_ids=pick(ids, kept),
            alive_scores=alive_scores,
            met=ops.take_along_axis(met, kept[:, :, None], axis=1),
            finished_ids=finished_ids,
            finished_scores=finished_scores,
            done=ops.logical_or(state.done, over),
            cache=cache,
        )

    state = search_loop(advance, state, length, while_loop=while_loop)
    real = state.finished_scores[:, :, None] > IMPOSSIBLE / 2
    return ops.where(real, state.finished_ids, pad_id), state.finished_scores, state.done


def _begun(ids, index, phrases):
    """Booleans [B, N, C, L], True at p: the last p ids are the first p of a phrase."""
    length = phrases.shape[2]
    shape = ops.shape(ids)
    last = newest(ops.reshape(ids, (-1, shape[2])), index, length)  # [B * N, L]
    last = ops.reshape(last, (shape[0], shape[1], 1, length))
    found = [ops.ones_like(last[..., 0] + phrases[:, None, :, 0], dtype="bool")]
    for p in range(1, length):
        same = ops.equal(last[..., length - p :], phrases[:, None, :, :p])
        found.append(ops.all(same, axis=-1))
    return ops.stack(found, axis=-1)


def _candidates(scores, begun, met, phrases):
    """The next tokens to consider: origins, tokens and scores [B, M], each pair once.

    They are the 2N best of all, the best of each hypothesis, and the next token of each phrase.
    """
    beams, size = scores.shape[1:]
    flat = ops.reshape(scores, (-1, beams * size))
    best, places = top_k(flat, 2 * beams)
    _, own = highest(ops.reshape(scores, (-1, size)))
    hypotheses = ops.arange(beams, dtype="int32")[None]  # [1, N]
    own = ops.reshape(own, (-1, beams)) + hypotheses * size
    # The longest beginning that is there continues. -1 behind a phrase is no token.
    place = ops.arange(phrases.shape[2], dtype="int32")
    started = ops.logical_and(begun, phrases[:, None] >= 0)
    longest = ops.max(ops.where(started, place, 0), axis=-1)  # [B, N, C]
    spelled = ops.broadcast_to(phrases[:, None], ops.shape(begun))
    tokens = ops.take_along_axis(spelled, longest[..., None], axis=-1)[..., 0]
    wanted = ops.logical_and(ops.logical_not(met), tokens >= 0)
    more = ops.where(wanted, tokens + (hypotheses * size)[:, :, None], -1)
    more = ops.reshape(more, (-1, beams * phrases.shape[1]))
    places = ops.concatenate([places, own, more], axis=1)
    found = ops.take_along_axis(flat, ops.maximum(places, 0), axis=1)
    count = places.shape[1]
    earlier = ops.arange(count)[None, :] < ops.arange(count)[:, None]  # [M, M]
    again = ops.logical_and(ops.equal(places[:, :, None], places[:, None, :]), earlier[None])
    lost = ops.logical_or(ops.any(again, axis=2), places < 0)
    places = ops.maximum(places, 0)
    return places // size, places % size, ops.where(lost, IMPOSSIBLE, found)


def _after(begun, met, phrases, origins, tokens):
    """Which phrases a hypothesis holds after a token, [B, M, C], and how many tokens of them."""
    place = ops.arange(phrases.shape[2], dtype="int32")
    lengths = ops.sum(ops.cast(phrases >= 0, "int32"), axis=2)  # [B, C]
    before = ops.take_along_axis(begun, origins[:, :, None, None], axis=1)  # [B, M, C, L]
    grown = ops.logical_and(before, ops.equal(phrases[:, None], tokens[:, :, None, None]))
    reached = ops.max(ops.where(grown, place + 1, 0), axis=-1)  # [B, M, C]
    whole = ops.logical_and(grown, ops.equal(place + 1, lengths[:, None, :, None]))
    met = ops.take_along_axis(met, origins[:, :, None], axis=1)
    met = ops.logical_or(met, ops.any(whole, axis=-1))
    held = ops.sum(ops.where(met, lengths[:, None], 0), axis=2)
    return met, held + ops.max(ops.where(met, 0, reached), axis=2)


def _turn(scores, held, lengths):
    """When each candidate [B, M] gets its place: its rank in its bank, then the fuller bank."""
    count = scores.shape[1]
    number = ops.arange(count)
    better = scores[:, None, :] > scores[:, :, None]
    equal = ops.equal(scores[:, None, :], scores[:, :, None])
    better = ops.logical_or(better, ops.logical_and(equal, (number[None] < number[:, None])[None]))
    same = ops.equal(held[:, None, :], held[:, :, None])
    rank = ops.sum(ops.cast(ops.logical_and(better, same), "int32"), axis=2)
    turn = rank * (lengths + 2) + lengths - held
    return ops.cast(ops.where(scores > IMPOSSIBLE / 2, turn, 1_000_000), "float32")
