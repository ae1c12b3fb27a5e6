"""Laws of greedy and beam search, on language models that are small enough to search by hand."""

import functools
import math
import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer import testing
from keras_transformer.decoding import IMPOSSIBLE, constrained, next_token, sampling, search

PAD, END, START = 0, 2, 4
VOCABULARY, LENGTH, STATES = 7, 8, 1009
SOURCES = np.arange(23, dtype="int32")  # a batch is 23 random sentences
MAX_LENGTHS = 1 + 5 * SOURCES % LENGTH
MULTIPLIERS = np.array([211, 31, 503, 89, 733, 7, 397, 131, 61, 859, 17, 613, 277], "int32")
PENALTIES = {
    "gnmt 0": (search.gnmt_penalty(0.0), lambda length: 1.0),
    "gnmt 0.6": (search.gnmt_penalty(0.6), lambda length: ((5 + length) / 6) ** 0.6),
    "gnmt 1": (search.gnmt_penalty(1.0), lambda length: (5 + length) / 6),
    "average": (search.average_penalty(), lambda length: length),
}


# The language model: the logits after a prefix are a row of a random table. A hash of the source
# and of all tokens of the prefix, with their positions, selects the row.


def language_model(seed, vocabulary_size=VOCABULARY):
    """Returns logits [STATES, V]. Pad and start are the most probable, but must never be chosen."""
    table = np.random.default_rng(seed).normal(scale=2, size=(STATES, vocabulary_size))
    table[:, [PAD, START]] = table.max(axis=1, keepdims=True) + 0.5
    return table.astype("float32")


def log_probs(table, source, ids):
    """Returns log p(next | source, ids) [V] in float64, by its definition."""
    prefix = sum((token + 1) * m for token, m in zip([START, *ids], MULTIPLIERS, strict=False))
    logits = table[(57 * source + prefix) % STATES].astype("float64")
    return logits - np.log(np.exp(logits).sum())


def teacher_forced(table, source, ids):
    return sum(log_probs(table, source, ids[:i])[token] for i, token in enumerate(ids))


def step_of(table, dtype="float32"):
    """The same model for the search. Only the cache has the prefix, so reordering must move it."""

    def step(ids, cache, index):
        length = cache["prefix"].shape[1]
        here = ops.equal(ops.arange(length, dtype="int32")[None], index)
        prefix = ops.where(here, ids[:, None] + 1, cache["prefix"])
        (source,) = cache["source"]
        state = (57 * source + ops.sum(prefix * MULTIPLIERS[:length], axis=1)) % STATES
        logits = ops.cast(ops.take(table, state, axis=0), dtype)
        return logits, {"prefix": prefix, "source": (source,)}

    return step


@functools.cache
def compiled(beam_size, penalty, n_best, length, dtype, shrink_to=None):
    """The search as a function of arrays; on JAX compiled once for all tables."""

    def run(table, sources, max_lengths):
        rows = sources.shape[0] * (beam_size or 1)
        cache = {
            "prefix": ops.zeros((rows, length), dtype="int32"),
            "source": (ops.repeat(sources, beam_size or 1, axis=0),),
        }
        shape = {"length": length, "start_id": START, "end_id": END, "pad_id": PAD}
        shape["shrink_to"] = shrink_to
        step = step_of(table, dtype)
        if beam_size is None:
            return search.greedy_search(step, cache, max_lengths, **shape)
        return search.beam_search(
            step,
            cache,
            max_lengths,
            beam_size=beam_size,
            penalty=PENALTIES[penalty][0],
            n_best=n_best,
            **shape,
        )

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(run)
    return run


def greedy(table, sources=SOURCES, max_lengths=MAX_LENGTHS, length=LENGTH, shrink_to=None):
    return beam(table, None, None, None, sources, max_lengths, length, shrink_to=shrink_to)


def beam(
    table,
    beam_size=3,
    penalty="gnmt 0.6",
    n_best=None,
    sources=SOURCES,
    max_lengths=MAX_LENGTHS,
    length=LENGTH,
    dtype="float32",
    shrink_to=None,
):
    run = compiled(beam_size, penalty, n_best or beam_size, length, dtype, shrink_to)
    results = run(*(ops.convert_to_tensor(array) for array in (table, sources, max_lengths)))
    return [ops.convert_to_numpy(result) for result in results[:2]]


def until_end(row):
    """Returns the tokens of a result, including the end. Only pad may follow it."""
    row = row.tolist()
    assert END in row, row
    length = row.index(END) + 1
    assert row[length:] == [PAD] * (len(row) - length)
    return row[:length]


def hypotheses(ids, scores):
    """Returns the hypotheses that exist in a row of the batch, as [(tokens, score), ...]."""
    exist = scores > IMPOSSIBLE / 2
    return [(until_end(i), s) for i, s in zip(ids[exist], scores[exist], strict=True)]


def assert_same(found, expected):
    assert [ids for ids, _ in found] == [list(ids) for ids, _ in expected]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=1e-5)


def test_beam_1_is_greedy():
    table = language_model(1)
    ids, scores = greedy(table)
    beam_ids, beam_scores = beam(table, 1, "average")
    np.testing.assert_array_equal(beam_ids[:, 0], ids)
    lengths = [len(until_end(row)) for row in ids]
    np.testing.assert_allclose(beam_scores[:, 0], scores / lengths, rtol=1e-6)


def test_greedy_takes_the_most_probable_token_that_is_allowed():
    table = language_model(2)
    for row, source, limit in zip(greedy(table)[0], SOURCES, MAX_LENGTHS, strict=True):
        ids = until_end(row)
        for i, token in enumerate(ids):
            probabilities = log_probs(table, source, ids[:i])
            probabilities[[PAD, START]] = -np.inf
            assert token == (END if i + 1 == limit else probabilities.argmax())


@pytest.mark.parametrize("name", PENALTIES)
def test_a_score_is_the_teacher_forced_score_over_the_penalty(name):
    table, penalty = language_model(3), PENALTIES[name][1]
    for source, *row in zip(SOURCES, *beam(table, 3, name), strict=True):
        for ids, score in hypotheses(*row):
            expected = teacher_forced(table, source, ids) / penalty(len(ids))
            np.testing.assert_allclose(score, expected, rtol=1e-5)
    for source, row, score in zip(SOURCES, *greedy(table), strict=True):
        expected = teacher_forced(table, source, until_end(row))
        np.testing.assert_allclose(score, expected, rtol=1e-5)


def every_sequence(words, max_length):
    """Yields every possible result: words, then an end, which is forced at the last position."""
    yield [END]
    if max_length > 1:
        for rest in every_sequence(words, max_length - 1):
            for word in words:
                yield [word, *rest]


@pytest.mark.parametrize("name", PENALTIES)
def test_a_beam_as_wide_as_the_space_is_exhaustive_search(name):
    table, penalty = language_model(4, vocabulary_size=5), PENALTIES[name][1]
    sources, max_lengths = SOURCES[:7], np.array([4, 1, 3, 2, 4, 4, 3], "int32")
    spaces = [list(every_sequence([1, 3], limit)) for limit in max_lengths]
    assert [len(space) for space in spaces] == [15, 1, 7, 3, 15, 15, 7]
    found = beam(table, 15, name, sources=sources, max_lengths=max_lengths, length=4)
    for source, space, *row in zip(sources, spaces, *found, strict=True):
        expected = [(ids, teacher_forced(table, source, ids) / penalty(len(ids))) for ids in space]
        assert_same(hypotheses(*row), sorted(expected, key=lambda pair: -pair[1]))


def plain_beam_search(table, source, max_length, beam_size, penalty, n_best, adjust=None):
    """Searches by the documented rule, with Python lists, one sentence at a time.

    `adjust` changes the log-probabilities after a list of ids in place.
    """
    alive, finished, greedy = [([], 0.0)], [], []
    for length in range(1, max_length + 1):
        candidates = []
        for ids, score in alive:
            following = log_probs(table, source, ids)
            if adjust is not None:
                its_own = following[END]
                adjust(following, ids)
                following[END] = its_own if length == max_length else following[END]
            for token, log_prob in enumerate(following):
                if log_prob < IMPOSSIBLE / 2:
                    continue
                if token == END or length < max_length and token not in (PAD, START):
                    candidates.append(([*ids, token], score + log_prob))
        candidates.sort(key=lambda pair: -pair[1])
        greedy = next((ids for ids, _ in candidates if ids[:-1] == greedy), None)
        candidates = candidates[: 2 * beam_size]
        for ids, score in candidates[:beam_size]:
            if ids[-1] == END:
                finished.append((ids, score / penalty(length)))
        finished = sorted(finished, key=lambda pair: -pair[1])[:beam_size]
        alive = [(ids, score) for ids, score in candidates if ids[-1] != END][:beam_size]
        if not alive:
            break
        leader = alive[0][1]
        if len(finished) >= n_best and finished[n_best - 1][1] >= leader / penalty(max_length):
            break
        full = len(finished) == beam_size and finished[-1][1] >= leader / penalty(length)
        if full and greedy not in [ids for ids, _ in alive]:
            break
    return finished


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("n_best", [1, 3])
def test_against_a_plain_beam_search(name, n_best):
    table, penalty = language_model(5), PENALTIES[name][1]
    found = beam(table, 3, name, n_best)
    for source, limit, *row in zip(SOURCES, MAX_LENGTHS, *found, strict=True):
        expected = plain_beam_search(table, source, limit, 3, penalty, n_best)
        assert_same(hypotheses(*row), expected)


# Hand-made probabilities of every step. Tokens that are not named share the rest. PATIENT: for 7
# steps "a" is nearly certain, and a beam collects endings that are too early. DIPPING: after two
# good endings the leader is worse than both per token, until many sure steps make it the best.
A = 5
PATIENT = [{A: 0.97, END: 0.02}] * 7 + [{END: 0.97, A: 0.02}] * 43
DIPPING = [{A: 0.5, END: 0.49}] * 2 + [{A: 0.2, END: 0.05}] + [{A: 0.999}] * 20 + [{END: 1.0}] * 27


@pytest.mark.parametrize("beam_size", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("shrink_to", [None, 1])
@pytest.mark.parametrize(
    ("odds", "length", "name"), [(PATIENT, 8, "gnmt 0.6"), (DIPPING, 24, "average")]
)
def test_a_beam_goes_on_while_the_leader_can_still_win(odds, length, name, beam_size, shrink_to):
    # Fails if: a row is over once N have finished; for DIPPING with 2 beams also if it is over once
    # they have and the leader's score at its present length is below all of them, while greedy
    # search's hypothesis is alive.
    odds = [
        [
            step.get(i, (1 - sum(step.values())) / (VOCABULARY - len(step)) + 1e-9)
            for i in range(VOCABULARY)
        ]
        for step in odds
    ]
    table = ops.log(ops.convert_to_tensor(np.array(odds, "float32")))

    def step(ids, cache, index):
        logits = ops.take(table, ops.reshape(index, (1,)), axis=0)
        return ops.broadcast_to(logits, (ids.shape[0], VOCABULARY)), cache

    limits = ops.convert_to_tensor([50, 50])
    options = {
        "length": 50,
        "start_id": START,
        "end_id": END,
        "pad_id": PAD,
        "shrink_to": shrink_to,
    }
    options["penalty"] = PENALTIES[name][0]
    ids, scores, done = search.beam_search(step, (), limits, beam_size=beam_size, **options)
    assert until_end(ops.convert_to_numpy(ids)[1, 0]) == [A] * (length - 1) + [END]
    expected = sum(math.log(odds[i][A]) for i in range(length - 1)) + math.log(
        odds[length - 1][END]
    )
    expected /= PENALTIES[name][1](length)
    np.testing.assert_allclose(ops.convert_to_numpy(scores)[:, 0], expected, rtol=1e-3)
    assert ops.convert_to_numpy(done).all()


def sure_language_model(seed):
    """Most rows are nearly certain of a word, and some of the end, as in trained models."""
    random = np.random.default_rng(seed)
    table = random.normal(scale=1.5, size=(STATES, VOCABULARY)).astype("float32")
    table[np.arange(STATES), random.choice([1, 3, 5, 6], STATES)] += 6
    table[:, END] += np.where(random.random(STATES) < 0.2, 7, 1)
    return table


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("beam_size", [2, 3, 5])
def test_a_beam_is_never_worse_than_greedy_search_that_stays_in_it(name, beam_size):
    # Fails if: a row ends once N hypotheses have finished.
    table = sure_language_model(12)
    length = len(MULTIPLIERS)

    def model(inputs):
        ids = ops.cast(inputs["target_ids"], "int32")
        prefix = ops.cumsum((ids + 1) * MULTIPLIERS[: ids.shape[1]], axis=1)
        state = (57 * ops.cast(inputs["source_ids"], "int32") + prefix) % STATES
        return ops.take(ops.convert_to_tensor(table), state, axis=0)

    limits = np.full(len(SOURCES), length, "int32")
    testing.assert_beam_keeps_greedy(
        lambda sources: beam(table, beam_size, name, 1, sources[:, 0], limits, length),
        model,
        SOURCES[:, None],
        beam_size=beam_size,
        start_id=START,
        end_id=END,
        pad_id=PAD,
        penalty=PENALTIES[name][0],
    )


def test_a_row_does_not_depend_on_the_rows_beside_it():
    table, order = language_model(6), np.random.default_rng(6).permutation(23)
    ids, scores = beam(table)
    moved_ids, moved_scores = beam(table, sources=SOURCES[order], max_lengths=MAX_LENGTHS[order])
    np.testing.assert_array_equal(moved_ids, ids[order])
    np.testing.assert_allclose(moved_scores, scores[order], rtol=1e-6)
    for row in range(5):
        alone = slice(row, row + 1)
        its_ids, its_scores = beam(table, sources=SOURCES[alone], max_lengths=MAX_LENGTHS[alone])
        np.testing.assert_array_equal(its_ids[0], ids[row])
        np.testing.assert_allclose(its_scores[0], scores[row], rtol=1e-6)


def test_what_is_finished_waits_unchanged_while_other_rows_run_on():
    table = language_model(7)
    table[:, END] -= 4  # no row ends early by itself, so the last one keeps the search going
    limits = 1 + SOURCES % 4
    limits[-1] = 13
    for run in (greedy, beam):
        ids, scores = run(table, max_lengths=np.minimum(limits, 4), length=4)
        later_ids, later_scores = run(table, max_lengths=limits, length=13)
        np.testing.assert_array_equal(later_ids[:-1, ..., :4], ids[:-1])
        assert (later_ids[:-1, ..., 4:] == PAD).all()
        np.testing.assert_allclose(later_scores[:-1], scores[:-1], rtol=1e-6)


# Fails if: the finished rows are kept instead of the unfinished; their results are not put back;
# the caches are those of other rows.
@pytest.mark.parametrize("shrink_to", [1, 5, 22])
@pytest.mark.parametrize("run", [greedy, beam])
def test_a_search_that_shrinks_reaches_the_same_results(run, shrink_to):
    table = language_model(7)
    (ids, scores), (all_ids, all_scores) = run(table, shrink_to=shrink_to), run(table)
    np.testing.assert_array_equal(ids, all_ids)
    np.testing.assert_allclose(scores, all_scores, rtol=1e-6)


# Only on TensorFlow, because other backends trace a step, so its rows cannot be counted.
# Fails if: the search never shrinks.
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("beams", [1, 3])
def test_rows_that_are_done_are_not_computed_beside_the_last(beams):
    table, rows = language_model(7), []
    table[:, END] -= 20  # nothing ends before its limit

    def counting(ids, cache, index):
        rows.append(len(ids) // beams)
        return step_of(table)(ids, cache, index)

    cache = {
        "prefix": ops.zeros((4 * beams, 8), "int32"),
        "source": (ops.repeat(ops.arange(4), beams),),
    }
    options = {"length": 8, "start_id": START, "end_id": END, "shrink_to": 2}
    limits = ops.convert_to_tensor([6, 1, 3, 2])
    if beams == 1:
        search.greedy_search(counting, cache, limits, **options)
    else:
        search.beam_search(counting, cache, limits, beam_size=beams, **options)
    assert rows == [4, 4, 2, 2, 2, 2]  # two rows are left once those with limits 1 and 2 are done


@pytest.mark.parametrize("end_logit", [0.0, -20.0])
def test_limits_are_kept_and_results_are_sorted_and_distinct(end_logit):
    table = language_model(8)
    table[:, END] += end_logit  # with -20 nothing ends before its limit
    for limit, *row in zip(MAX_LENGTHS, *beam(table), strict=True):
        found = hypotheses(*row)
        lengths = {len(ids) for ids, _ in found}
        assert max(lengths) <= limit
        if end_logit:
            assert lengths == {limit}
        assert not {PAD, START} & {token for ids, _ in found for token in ids}
        assert len({tuple(ids) for ids, _ in found}) == len(found) >= 1
        assert (np.diff(row[1]) <= 0).all()


@pytest.mark.parametrize("name", PENALTIES)
def test_stopping_early_for_the_best_alone_still_finds_it(name):
    table = language_model(9)
    for one, three in zip(beam(table, 3, name, 1), beam(table, 3, name, 3), strict=True):
        np.testing.assert_array_equal(one[:, 0], three[:, 0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_searched_in_float32(dtype):
    table = language_model(11)
    rounded = ops.convert_to_numpy(ops.cast(ops.cast(table, dtype), "float32"))
    assert (rounded != table).any()
    for half, full in zip(beam(table, dtype=dtype), beam(rounded), strict=True):
        np.testing.assert_array_equal(half, full)


# Only on TensorFlow, because other backends trace a step, so it cannot be counted.
@pytest.mark.tensorflow_only
def test_a_search_is_over_when_nothing_can_still_enter_the_results():
    table = language_model(5)
    table[:, END] = 20.0  # everything ends at once, and no other hypothesis can win
    calls = []

    def counting(ids, cache, index):
        calls.append(int(index))
        return step_of(table)(ids, cache, index)

    rows = {"max_lengths": ops.convert_to_tensor([8, 8]), "length": 8, "start_id": START}
    cache = {"prefix": ops.zeros((2, 8), "int32"), "source": (ops.convert_to_tensor([3, 1]),)}
    search.greedy_search(counting, cache, end_id=END, **rows)
    assert calls == [0]
    calls.clear()
    cache = {
        "prefix": ops.zeros((6, 8), "int32"),
        "source": (ops.convert_to_tensor([3, 3, 3, 1, 1, 1]),),
    }
    search.beam_search(counting, cache, end_id=END, beam_size=3, **rows)
    assert calls == [0]


# Fails if: a search that ran out of room counts as ended.
@pytest.mark.parametrize("beam_size", [None, 3])
def test_what_ends_in_less_room_is_what_ends_in_all_of_it(beam_size):
    """Other rows are marked as unfinished, and their results must not be read."""
    table = language_model(3)
    arrays = [ops.convert_to_tensor(array) for array in (table, SOURCES, MAX_LENGTHS)]
    penalty = None if beam_size is None else "gnmt 0.6"
    whole = [
        *map(ops.convert_to_numpy, compiled(beam_size, penalty, 1, LENGTH, "float32")(*arrays))
    ]
    short = [*map(ops.convert_to_numpy, compiled(beam_size, penalty, 1, 3, "float32")(*arrays))]
    assert whole[2].all()
    done = short[2]
    assert done[MAX_LENGTHS <= 3].all()
    assert 0 < done[MAX_LENGTHS > 3].sum() < (MAX_LENGTHS > 3).sum()
    best = (slice(None),) if beam_size is None else (slice(None), 0)
    np.testing.assert_array_equal(short[1][best][done], whole[1][best][done])
    np.testing.assert_array_equal(short[0][best][done], whole[0][best][done][:, :3])


def test_a_negative_length_penalty_is_refused():
    with pytest.raises(ValueError, match="at least 0, got -0.6"):
        search.gnmt_penalty(-0.6)


WIDE = 3000  # a vocabulary, as an axis that nothing else has


def picks(scores, index=0, rows=None, **options):
    return sampling.choose(scores, np.full(len(scores), 0.5, "float32"), **options)


SORTED = {
    "greedy": {},
    "beam": {"beam_size": 4, "reorder": search.take_rows},
    "diverse": {"beam_size": 4, "adjust": [next_token.Siblings(0.5)]},
    "phrases": {"beam_size": 4, "rows": {"phrases": np.full((8, 2, 4), [5, 6, -1, -1], "int32")}},
    "drawn": {"draw": picks},
    "drawn from the top k": {"draw": functools.partial(picks, top_k=40)},
    "drawn from the top p": {"draw": functools.partial(picks, top_p=0.9)},
}


# Fails if: XLA sorts all scores for the highest, as it does where columns are taken from a top_k.
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="reads what JAX compiled")
@pytest.mark.parametrize("name", SORTED)
def test_no_search_sorts_the_vocabulary(name):
    import jax

    options = {"length": 6, "start_id": START, "end_id": END, "pad_id": PAD, **SORTED[name]}
    beams = options.get("beam_size", 1)
    if "phrases" in options.get("rows", {}):
        run = constrained.constrained_search
    else:
        run = search.beam_search if "beam_size" in options else search.greedy_search
    if "beam_size" in options:
        options["penalty"] = PENALTIES["average"][0]

    def whole(table):
        def step(ids, cache, index):
            return ops.take(table, ids, axis=0), cache

        return run(step, {"a": np.zeros((8 * beams, 1))}, np.full(8, 6, "int32"), **options)

    text = jax.jit(whole).lower(np.zeros((WIDE, WIDE), "float32")).compile().as_text()
    assert "while(" in text
    shapes = re.findall(r"= \(?\w+\[([\d,]+)\].* sort\(", text)
    assert [shape for shape in shapes if int(shape.split(",")[-1]) >= WIDE] == []
