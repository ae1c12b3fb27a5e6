"""Laws of what a search may write: adjustments of the next token, prefixes, and sampling."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from test_search import (
    END,
    LENGTH,
    MAX_LENGTHS,
    PAD,
    SOURCES,
    START,
    VOCABULARY,
    hypotheses,
    language_model,
    log_probs,
    plain_beam_search,
    step_of,
)

import keras_transformer as kt
from keras_transformer.decoding import IMPOSSIBLE, Sampling, SearchOptions, search
from keras_transformer.decoding.next_token import (
    MinLength,
    NoRepeat,
    RepetitionPenalty,
    Siblings,
    Suppress,
)

PREFIXES = [[5, 6, 1][: 1 + row % 3] if row % 4 else [] for row in range(len(SOURCES))]
LIMITS = np.maximum(MAX_LENGTHS, [len(each) + 1 for each in PREFIXES]).astype("int32")


def at_least_four(log_probs, ids, row):
    if len(ids) < 4:
        log_probs[END] = IMPOSSIBLE


def no_five_six(log_probs, ids, row):
    log_probs[1] = IMPOSSIBLE
    if ids[-1:] == [5]:
        log_probs[6] = IMPOSSIBLE
    if ids[-2:] == [3, 3]:
        log_probs[3] = IMPOSSIBLE


def no_pair_twice(log_probs, ids, row):
    pairs = list(zip(ids, ids[1:], strict=False))
    for token in range(VOCABULARY):
        if token != END and (*ids[-1:], token) in pairs:
            log_probs[token] = IMPOSSIBLE


def no_token_twice(log_probs, ids, row):
    log_probs[[token for token in set(ids) if token != END]] = IMPOSSIBLE


def repetitions_cost(log_probs, ids, row):
    log_probs[list(set(ids))] *= 1.7


def lower_ranks_cost(log_probs, ids, row):
    better = (log_probs[None] > log_probs[:, None]).sum(axis=1)
    log_probs -= 0.7 * better


def begins_as_asked(log_probs, ids, row):
    if len(ids) < len(PREFIXES[row]):
        others = np.arange(VOCABULARY) != PREFIXES[row][len(ids)]
        log_probs[others] = IMPOSSIBLE


def odd_rows_lack_three(log_probs, ids, row):
    if row % 2:
        log_probs[3] -= 2.5


def own(log_probs, ids, index, rows):
    odd = ops.equal(rows["number"] % 2, 1)[:, None]
    three = ops.equal(ops.arange(VOCABULARY), 3)[None]
    return log_probs - 2.5 * ops.cast(ops.logical_and(odd, three), "float32")


CASES = {
    "min_length": (MinLength(4, END), at_least_four),
    "suppress": (Suppress(((1,), (5, 6), (3, 3, 3))), no_five_six),
    "pairs": (NoRepeat(2, END), no_pair_twice),
    "tokens": (NoRepeat(1, END), no_token_twice),
    "longer than the room": (NoRepeat(LENGTH + 1, END), lambda *arguments: None),
    "repetition": (RepetitionPenalty(1.7), repetitions_cost),
    "siblings": (Siblings(0.7), lower_ranks_cost),
    "prefix": (None, begins_as_asked),
    "own": (own, odd_rows_lack_three),
}


def searched(table, adjust, beam_size=None, limits=LIMITS, shrink_to=None, draw=None, rows=None):
    def run(sources, limits):
        count = len(SOURCES) * (beam_size or 1)
        cache = {
            "prefix": ops.zeros((count, LENGTH), dtype="int32"),
            "source": (ops.repeat(sources, beam_size or 1, axis=0),),
        }
        prefix = np.full((len(SOURCES), 4), -1, "int32")
        for row, ids in zip(prefix, PREFIXES, strict=True):
            row[: len(ids)] = ids
        given = {"number": sources, **(rows or {})}
        if None in adjust:
            given["prefix"] = ops.convert_to_tensor(prefix)
        common = {"length": LENGTH, "start_id": START, "end_id": END, "pad_id": PAD}
        common |= {
            "adjust": [each for each in adjust if each],
            "rows": given,
            "shrink_to": shrink_to,
        }
        if beam_size is None:
            ids, scores, done = search.greedy_search(
                step_of(table), cache, limits, draw=draw, **common
            )
            return ids[:, None], scores[:, None], done
        return search.beam_search(
            step_of(table), cache, limits, beam_size=beam_size, n_best=beam_size, **common
        )

    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(run)
    return [ops.convert_to_numpy(each) for each in run(SOURCES, limits)]


# Fails if: an adjustment sees ids of another row or position, is applied to the forced end, or is
# left out; if rows are not those of the hypotheses, or lose their place when finished rows go.
@pytest.mark.parametrize("beam_size", [None, 1, 3])
@pytest.mark.parametrize("name", CASES)
def test_a_search_is_adjusted_as_the_plain_one(name, beam_size):
    table, (adjust, plain) = language_model(5), CASES[name]
    shrink_to = 7 if beam_size != 1 else None
    ids, scores, done = searched(table, [adjust], beam_size, shrink_to=shrink_to)
    assert done.all()
    changed = 0
    for row, source in enumerate(SOURCES):
        expected, unchanged = (
            plain_beam_search(
                table,
                source,
                LIMITS[row],
                beam_size or 1,
                lambda length: ((5 + length) / 6) ** 0.6 if beam_size else 1.0,
                beam_size or 1,
                function,
            )
            for function in (lambda *given, row=row: plain(*given, row), None)
        )
        found = hypotheses(ids[row], scores[row])
        assert [each for each, _ in found] == [each for each, _ in expected]
        np.testing.assert_allclose(
            [score for _, score in found], [score for _, score in expected], rtol=1e-4
        )
        changed += expected != unchanged
    assert (changed > 0) == (name != "longer than the room")


# Fails if: what one adjustment forbids is allowed again by the next, or their order is ignored.
def test_adjustments_are_joined():
    adjust = [MinLength(3, END), NoRepeat(1, END), Suppress(((5,),))]
    limits = np.full(len(SOURCES), 5, "int32")
    ids, _, done = searched(language_model(6), adjust, 3, limits)
    assert done.all()
    for row in ids[:, 0]:
        tokens = [token for token in row.tolist() if token not in (PAD, END)]
        assert 3 <= len(tokens) <= 4 and len(set(tokens)) == len(tokens) and 5 not in tokens


# Fails if: an adjustment bars a token of the prefix, so that a row has no hypothesis.
def test_a_prefix_comes_before_all_adjustments():
    adjust = [None, Suppress(((5,), (6,), (1,))), MinLength(7, END)]
    ids, scores, done = searched(language_model(6), adjust, 3)
    assert done.all() and (scores[:, 0] > IMPOSSIBLE / 2).all()
    for row, prefix, limit in zip(ids[:, 0], PREFIXES, LIMITS, strict=True):
        assert row[: len(prefix)].tolist() == prefix and row[limit - 1] in (END, PAD)


@pytest.fixture(scope="module")
def translator():
    keras.utils.set_random_seed(3)
    pairs = [(f"{a} {b}", f"{b} {a}") for a in "abcde" for b in "uvwxy"]
    tokenizer = kt.text.train_tokenizer(pairs, 276)
    model = kt.models.Transformer(276, num_layers=1, d_model=16, num_heads=2, d_ff=16)
    model.set_weights([2 * weight for weight in model.get_weights()])
    found = kt.Translator(model, tokenizer)
    found.EXTRA_LENGTH = 11
    return found


TEXTS = ["a b", "", "c d u", "v", "a b"]


# Fails if: a result depends on the batch, or two draws of one text have the same numbers.
def test_sampling_draws_the_same_whatever_is_beside(translator):
    sampling = Sampling(temperature=1.5, seed=4)
    alone = [translator.translate([text], sampling=sampling)[0] for text in TEXTS[:1]]
    together = translator.translate(TEXTS, sampling=sampling, batch_size=2)
    assert together[0] == alone[0] and together[1] == ""
    assert together == translator.translate(TEXTS, sampling=sampling)
    assert together[0] != together[4]  # the same text in another place is drawn anew
    assert together != translator.translate(TEXTS, sampling=Sampling(temperature=1.5, seed=5))
    rest = dataclasses.replace(sampling, first=2)  # as lines of a file that come in two parts
    assert translator.translate(TEXTS[2:], sampling=rest) == together[2:]
    best = translator.n_best(TEXTS[:1], 6, sampling=sampling)[0]
    assert len(best) == len({tuple(each.ids) for each in best}) > 3
    assert best == sorted(best, key=lambda each: -each.score)
    scored = translator.token_log_probabilities([(TEXTS[0], each.ids) for each in best])
    lengths = [len(each.ids) + 1 for each in best]
    for each, nats, length in zip(best, scored, lengths, strict=True):
        if length < 3 + 1 + 11:  # the last end is forced
            expected = sum(nats) / ((5 + length) / 6) ** 0.6
            np.testing.assert_allclose(each.score, expected, rtol=1e-4)


# Fails if: the coldest sampling is not greedy search, or top_k=1 draws anything else.
def test_sampling_without_chance_is_greedy_search(translator):
    greedy = translator.translate(TEXTS, beam_size=1)
    assert translator.translate(TEXTS, sampling=Sampling(temperature=0.0)) == greedy
    assert translator.translate(TEXTS, sampling=Sampling(top_k=1)) == greedy
    assert translator.translate(TEXTS, sampling=Sampling(top_p=1e-6)) == greedy


# Fails if: probabilities of draws are not those of the model.
def test_draws_have_the_probabilities_of_the_model():
    from keras_transformer.decoding.id_translator import Draw

    table, draws = language_model(8), 4000
    random = np.random.default_rng(1)
    uniforms = random.random((len(SOURCES), draws, LENGTH), "float32")
    limits = np.full(len(SOURCES), 3, "int32")
    firsts = []
    for number in range(40):
        rows = {"uniforms": ops.convert_to_tensor(uniforms[:, number])}
        ids, _, _ = searched(table, [], None, limits, draw=Draw(1.0, None, None), rows=rows)
        firsts.append(ids[:, 0, 0])
    counts = np.bincount(np.concatenate(firsts), minlength=VOCABULARY)
    expected = np.zeros(VOCABULARY)
    for source in SOURCES:
        shares = np.exp(log_probs(table, source, []))
        shares[[PAD, START]] = 0
        expected += 40 * shares / shares.sum()
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected) + 1).all()


# Fails if: a translation ends before its least length because of the limit of its source.
@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_least_length_raises_the_limit(translator, beam_size):
    [[best]] = translator.n_best(["a b"], 1, beam_size, min_length=30)
    assert len(best.ids) >= 30 and translator.EXTRA_LENGTH < 30


# Fails if: an option is not passed on, a prefix is that of another text, or it is not in the score.
def test_options_of_a_translator(translator):
    tokenizer = translator.tokenizer
    prefix = ["w x", None, [tokenizer.encode("y")[0]], "u", "a b c d e u v w x y a b c d e"]
    found = translator.n_best(TEXTS, 2, 3, prefix=prefix)
    for hypotheses_, each in zip(found, prefix, strict=True):
        begins = tokenizer.encode(each) if isinstance(each, str) else each or []
        assert all(h.ids[: len(begins)] == begins for h in hypotheses_ if h.text)
    scored = translator.token_log_probabilities([(TEXTS[0], found[0][0].ids)])[0]
    if len(scored) < 14:
        expected = sum(scored) / ((5 + len(scored)) / 6) ** 0.6
        np.testing.assert_allclose(found[0][0].score, expected, rtol=1e-4)
    for text in translator.translate(["a", "b"], prefix="w"):
        assert text.startswith("w")

    for hypotheses_ in translator.n_best(TEXTS[:1], 3, 3, min_length=4, max_length=6):
        assert all(4 <= len(each.ids) <= 6 for each in hypotheses_)
    plain = translator.n_best(["a b"], 1, min_length=9)[0][0]
    word = tokenizer.decode(plain.ids[:1])
    assert word not in translator.translate(["a b"], min_length=9, suppress=[word])[0].split()
    near, far = (translator.n_best(["a b"], 3, 3, diversity=each)[0] for each in (0, 5.0))
    assert near[0].score >= far[0].score and near[2].score > far[2].score + 0.1
    once = translator.n_best(["a b"], 1, min_length=9, no_repeat_ngram=1)[0][0].ids
    assert len(once) == len(set(once)) >= 9
    seen = []

    def own(log_probs, ids, index, rows):
        seen.append((sorted(rows), rows["source_ids"].shape[0] == log_probs.shape[0]))
        return log_probs

    assert translator.translate(TEXTS, adjust=[own]) == translator.translate(TEXTS)
    assert seen and set(map(str, seen)) == {"(['source_ids'], True)"}


# Fails if: another shape is compiled than that of the texts, or their width and rows are mixed up.
def test_a_search_is_compiled_in_advance(translator):
    fresh = kt.Translator(translator.models, translator.tokenizer)
    fresh.EXTRA_LENGTH = translator.EXTRA_LENGTH
    _, wanted = fresh.asked([], 1, 2)
    fresh.compile_search(wanted, 16, 4)
    compiled = fresh.compiled_shapes
    assert compiled == (keras.backend.backend() != "torch")
    fresh.translate(["a b", "c d u"], 2)
    assert fresh.compiled_shapes == compiled


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_length": -1}, "min_length is an integer and at least 0, got -1"),
        ({"max_length": 3, "min_length": 4}, "max_length is an integer and at least 4, got 3"),
        ({"no_repeat_ngram": 1.5}, "no_repeat_ngram is an integer"),
        ({"repetition_penalty": 0}, "repetition_penalty is above 0, got 0"),
        ({"diversity": -1}, "diversity is a number and at least 0, got -1"),
        ({"diversity": 1, "sampling": Sampling()}, "diversity is for a beam"),
        ({"suppress": "word"}, "suppress takes a list of strings, got one string"),
        ({"adjust": ["word"]}, "adjust is a list of functions"),
        ({"sampling": 0.5}, r"sampling is a kt\.decoding\.Sampling, got 0\.5"),
        ({"prefix": ["a", "b"]}, "got 2 for 1 texts"),
        ({"prefix": "a b c d e", "max_length": 3}, "a terminology of 5 tokens do not fit into 3"),
    ],
)
def test_options_out_of_range_are_refused(translator, options, says):
    with pytest.raises(ValueError, match=says):
        translator.translate(["a"], **options)
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
            Sampling(**wrong)


# Fails if: equal options are compiled again, or an unused option changes the search; a number is a
# constant of what is compiled, so that the first one is used ever after, or another is compiled.
def test_equal_options_share_one_search(translator):
    translator.translate(["a b"], 2)
    before = translator.compiled_shapes
    translator.translate(["a b"], 2, min_length=0, suppress=[], repetition_penalty=1.0, adjust=[])
    assert translator.compiled_shapes == before
    compiles = keras.backend.backend() != "torch"
    options = {"no_repeat_ngram": 3, "repetition_penalty": 1e4}
    [[free]] = translator.n_best(["a b"], 1, 2, prefix="y", min_length=9, **options)
    barred = free.ids[len(translator.tokenizer.encode("y"))]
    before = translator.compiled_shapes
    for begin, least, id, factor in (("x", 4, barred + 1, 1.01), ("y", 9, barred, 1e4)):
        numbers = {"min_length": least, "max_length": least + 2, "repetition_penalty": factor}
        options |= {"prefix": begin, "adjust": [Suppress(((id,),))]} | numbers
        [[found]] = translator.n_best(["a b"], 1, 2, **options)
        assert found.text.startswith(begin) and least <= len(found.ids) <= least + 2
    assert barred in free.ids and barred not in found.ids
    assert len(set(found.ids)) == len(found.ids)  # at the second factor repetitions cost too much
    assert translator.compiled_shapes == before + compiles
    greedy = translator.translate(TEXTS, 1)
    before = translator.compiled_shapes
    [cold, hot] = (
        translator.translate(TEXTS, sampling=Sampling(temperature, top_p=top_p, seed=seed))
        for temperature, top_p, seed in ((1e-4, 0.9, 1), (9.0, 0.99, 2))
    )
    assert cold == greedy != hot
    assert translator.compiled_shapes <= before + compiles  # another test may have compiled it
    assert SearchOptions(suppress=["a"]) == SearchOptions(suppress=("a",))
