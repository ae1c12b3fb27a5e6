"""Laws of terminology: what is asked for is held, and no better translation holds it."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from test_adjust import TEXTS, translator  # a fixture
from test_search import (
    END,
    PAD,
    SOURCES,
    START,
    VOCABULARY,
    hypotheses,
    language_model,
    step_of,
    teacher_forced,
)

from keras_transformer.decoding import IMPOSSIBLE
from keras_transformer.decoding.constrained import constrained_search

FIXTURES = [translator]
LENGTH = 5
PHRASES = [
    [],
    [[5]],
    [[6, 3]],
    [[3, 3]],
    [[5], [6, 1]],
    [[1, 1, 3]],
    [[3, 5], [5, 6]],  # 3 5 6 holds both
    [[5], [5]],
]


def phrases_of(row):
    return PHRASES[row % len(PHRASES)]


def searched(table, beam_size, limits, n_best=1):
    phrases = np.full((len(SOURCES), 2, 3), -1, "int32")
    for row in range(len(SOURCES)):
        for place, phrase in enumerate(phrases_of(row)):
            phrases[row, place, : len(phrase)] = phrase

    def run(sources, limits, phrases):
        cache = {
            "prefix": ops.zeros((len(SOURCES) * beam_size, LENGTH), dtype="int32"),
            "source": (ops.repeat(sources, beam_size, axis=0),),
        }
        return constrained_search(
            step_of(table),
            cache,
            limits,
            length=LENGTH,
            beam_size=beam_size,
            start_id=START,
            end_id=END,
            pad_id=PAD,
            rows={"phrases": phrases},
            penalty=lambda length: ((5.0 + ops.cast(length, "float32")) / 6.0) ** 0.6,
            n_best=n_best,
        )

    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(run)
    arrays = map(ops.convert_to_tensor, (SOURCES, limits, phrases))
    return [ops.convert_to_numpy(each) for each in run(*arrays)]


def holds(ids, phrase):
    return any(ids[i : i + len(phrase)] == phrase for i in range(len(ids)))


# The tokens of all phrases and the end fit into each limit.
NEEDED = [1 + sum(map(len, phrases_of(row))) for row in range(len(SOURCES))]
LIMITS = np.array([max(n, 5 if row % 3 else 4) for row, n in enumerate(NEEDED)], "int32")


# Fails if: a phrase is lost, cut or counted twice; the end comes before the phrases; the cache or
# what is held is not reordered; a candidate is counted twice; a score is not the model's.
@pytest.mark.parametrize("beam_size", [5, 8])
def test_every_result_holds_its_phrases(beam_size):
    table = language_model(5)
    ids, scores, done = searched(table, beam_size, LIMITS)
    assert done.all()
    for row, source in enumerate(SOURCES):
        found = hypotheses(ids[row], scores[row])
        assert found and len({tuple(each) for each, _ in found}) == len(found)
        for each, score in found:
            assert all(holds(each, phrase) for phrase in phrases_of(row))
            assert each[-1] == END and len(each) <= LIMITS[row]
            expected = teacher_forced(table, source, each) / ((5 + len(each)) / 6) ** 0.6
            np.testing.assert_allclose(score, expected, rtol=1e-4)


# Fails if: a bank has no place, or the search ends while a hypothesis can still win.
def test_a_beam_as_wide_as_the_space_is_exhaustive_search():
    table, limits = language_model(6), np.maximum(NEEDED, 4).astype("int32")
    ids, scores, _ = searched(table, 130, limits)
    tokens = [token for token in range(VOCABULARY) if token not in (PAD, START, END)]
    for row, source in enumerate(SOURCES[:8]):
        candidates = (
            [*each, END]
            for size in range(limits[row])
            for each in itertools.product(tokens, repeat=size)
        )
        best = max(
            teacher_forced(table, source, each) / ((5 + len(each)) / 6) ** 0.6
            for each in candidates
            if all(holds(each, phrase) for phrase in phrases_of(row))
        )
        np.testing.assert_allclose(scores[row, 0], best, rtol=1e-4)
        assert scores[row, 0] > IMPOSSIBLE / 2


def test_a_translator_writes_its_terminology(translator):
    terms = [["w"], ["x y"], None, ["u", "v v"], []]
    found = translator.n_best(TEXTS, 2, 3, terminology=terms)
    for text, phrases, best in zip(TEXTS, terms, found, strict=True):
        for each in best:
            for phrase in phrases or []:
                assert not text or holds(each.ids, translator.tokenizer.encode(phrase))
    for place in range(len(TEXTS)):  # nor does the beam of a text depend on other texts' phrases
        [alone] = translator.n_best(TEXTS[place : place + 1], 2, 3, terminology=[terms[place]])
        assert [each.ids for each in alone] == [each.ids for each in found[place]]
    plain = translator.n_best(TEXTS, 2, 3)
    for place in (2, 4):  # these are searched as without the others
        assert [each.ids for each in found[place]] == [each.ids for each in plain[place]]
    both = translator.n_best(TEXTS[:1], 1, 3, terminology=[["w"]], prefix="y", no_repeat_ngram=3)
    assert holds(both[0][0].ids, translator.tokenizer.encode("w"))
    assert both[0][0].ids[:1] == translator.tokenizer.encode("y")[:1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"terminology": [["a"], ["b"]]}, "got 2 for 1 texts"),
        ({"terminology": ["word"]}, "has a list of phrases, or None, for each text"),
        ({"terminology": [["a b c d e"]], "max_length": 3}, "do not fit into 3"),
    ],
)
def test_terminology_that_does_not_fit_is_refused(translator, options, says):
    with pytest.raises(ValueError, match=says):
        translator.translate(["a"], **options)
