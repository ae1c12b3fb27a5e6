"""Laws of text-to-text translation, on a small model with random weights and two vocabularies."""

import collections
import shutil
import types

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_transformer import Translator, load_translator, visualization
from keras_transformer.decoding import scoring, shapes
from keras_transformer.models import Transformer
from keras_transformer.ops.compilation import compile_with_weights
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.text import Tokenizer, train_tokenizer

# Every text has at most 7 pieces, so all batches have the width 8 and compile once. Lengths are
# mixed, and some texts are empty.
TEXTS = ["abc", "", "fedcba", "q", " ", "hgfe d", "abc", "mnopqr", "kl"]


def character_tokenizer(letters):
    return train_tokenizer([f"{letter} " for letter in letters], 256, model_type="char")


@pytest.fixture(scope="module")
def source_tokenizer():
    return character_tokenizer("abcdefghijklmnopqr")


@pytest.fixture(scope="module")
def target_tokenizer():
    return character_tokenizer("stuvwxyz")


def random_weights(model, seed):
    """Returns large weights. With seeds 20 and 17 translations do not only repeat one token."""
    rng = np.random.default_rng(seed)
    return [
        w if w.ndim == 1 else rng.normal(scale=0.5 if i < 2 else 0.3, size=w.shape)
        for i, w in enumerate(model.get_weights())
    ]


def small_model(vocabulary_size, **options):
    model = Transformer(
        vocabulary_size, num_layers=2, d_model=16, num_heads=2, d_ff=31, tie_logits=False, **options
    )
    model.set_weights(random_weights(model, seed=20))
    return model


@pytest.fixture(scope="module")
def translator(source_tokenizer, target_tokenizer):
    model = small_model(23, target_vocabulary_size=13)
    return Translator(model, source_tokenizer, target_tokenizer)


@pytest.fixture(scope="module")
def beam_of_3(translator):
    return translator.n_best(TEXTS, 3, beam_size=3, batch_size=4)


@pytest.fixture(scope="module")
def greedy(translator):
    return translator.n_best(TEXTS, 1, beam_size=1, batch_size=4)


def logits_of(model, inputs):
    """Returns logits in float64. Eagerly, JAX would compile every operation by itself."""
    if keras.backend.backend() == "jax":
        model = compile_with_weights(dict_to_logits(model), model)
        return np.asarray(model(*inputs.values()), "float64")
    return keras.ops.convert_to_numpy(model(inputs)).astype("float64")


def dict_to_logits(model):
    return lambda *arrays: model(dict(zip(("source_ids", "target_ids"), arrays, strict=True)))


def teacher_forced(translator, texts, rows_of_ids):
    """Yields, per row, the log-probabilities [T, V] after every prefix of the ids.

    They come from one call of the uncached model. Its padding changes nothing (see the laws of the
    model).
    """
    start_id, end_id = translator.target_tokenizer.start_id, translator.target_tokenizer.end_id
    sources = [[*translator.tokenizer.encode(text), end_id] for text in texts]
    targets = [[start_id, *ids] for ids in rows_of_ids]
    inputs = {
        name: np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
        for name, rows in (("source_ids", sources), ("target_ids", targets))
    }
    exponentials = [np.exp(logits_of(model, inputs)) for model in translator.models]
    log_probs = np.log(np.mean([e / e.sum(axis=-1, keepdims=True) for e in exponentials], axis=0))
    for row, target in zip(log_probs, targets, strict=True):
        yield row[: len(target)]


def assert_scores(translator, pairs, penalty):
    """Checks that scores are log-probability / penalty(length), which counts the end."""
    texts, hypotheses = zip(*pairs, strict=True)
    rows = teacher_forced(translator, texts, [h.ids for h in hypotheses])
    for hypothesis, log_probs in zip(hypotheses, rows, strict=True):
        ids = [*hypothesis.ids, translator.target_tokenizer.end_id]
        expected = log_probs[range(len(ids)), ids].sum() / penalty(len(ids))
        np.testing.assert_allclose(hypothesis.score, expected, rtol=1e-4)
        assert hypothesis.text == translator.target_tokenizer.decode(hypothesis.ids)


def assert_greedy(translator, pairs):
    """Checks that ids are the uncached model's most probable; at source + 50 the end is forced."""
    texts, hypotheses = zip(*pairs, strict=True)
    tokenizer = translator.target_tokenizer
    rows = teacher_forced(translator, texts, [h.ids for h in hypotheses])
    for text, hypothesis, log_probs in zip(texts, hypotheses, rows, strict=True):
        log_probs[:, [tokenizer.pad_id, tokenizer.start_id]] = -np.inf
        expected = log_probs.argmax(axis=-1)
        limit = len(translator.tokenizer.encode(text)) + 50
        assert len(expected) <= limit
        if len(expected) == limit:
            expected[-1] = tokenizer.end_id
        assert expected.tolist() == [*hypothesis.ids, tokenizer.end_id]


def pairs_of(results):
    """Returns all (text, hypothesis), without the empty texts."""
    pairs = [(text, h) for text, found in zip(TEXTS, results, strict=True) for h in found]
    return [(text, hypothesis) for text, hypothesis in pairs if text.strip()]


def gnmt(length):
    return ((5 + length) / 6) ** 0.6


def test_greedy_is_the_most_probable_token_again_and_again(translator, greedy):
    pairs = pairs_of(greedy)
    assert_greedy(translator, pairs)
    assert_scores(translator, pairs, gnmt)
    # The model suits the test: some translations end by themselves, and all depend on the source.
    lengths = [len(hypothesis.ids) for _, hypothesis in pairs]
    assert min(lengths) < 50 <= max(lengths)
    assert len({hypothesis.text for _, hypothesis in pairs}) == len({text for text, _ in pairs})


def test_a_score_is_the_teacher_forced_log_probability_over_the_penalty(translator, beam_of_3):
    assert_scores(translator, pairs_of(beam_of_3), gnmt)
    for text, found in zip(TEXTS, beam_of_3, strict=True):
        assert len(found) == 3
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        assert len({tuple(h.ids) for h in found}) == 3 or not text.strip()


def test_a_wider_beam_finds_no_less(greedy, beam_of_3):
    """A single sentence may score less, but the sum is larger unless the search is broken."""
    totals = [sum(found[0].score for found in results) for results in (greedy, beam_of_3)]
    assert totals[1] > totals[0]


def test_order_and_batches_do_not_matter(translator, beam_of_3):
    expected = [[(h.text, h.ids) for h in found] for found in beam_of_3]
    order = np.random.default_rng(2).permutation(len(TEXTS))
    for texts, numbers, batch_size in (
        (TEXTS, range(len(TEXTS)), 1),
        ([TEXTS[i] for i in order], order, 4),
    ):
        results = translator.n_best(texts, 3, beam_size=3, batch_size=batch_size)
        for number, found in zip(numbers, results, strict=True):
            assert [(h.text, h.ids) for h in found] == expected[number]
            scores = [h.score for h in beam_of_3[number]]
            np.testing.assert_allclose([h.score for h in found], scores, rtol=1e-5)


# Fails if: a search that ran out of room counts as ended.
# Fails if: rows are not rounded up as they are compiled; the widest row counts for none.
@given(
    st.lists(st.sampled_from(shapes.COARSE_LENGTHS), max_size=300),
    st.integers(1, 300),
    st.none() | st.integers(1, 9000),
)
def test_batches_hold_every_row_once_within_the_budget(widths, batch_size, budget):
    widths.sort(reverse=True)
    found = [widths[some] for some in shapes.batches(widths, batch_size, budget)]
    assert [width for batch in found for width in batch] == widths
    for batch in found:
        assert 1 <= len(batch) <= batch_size
        positions = shapes.rows_for(len(batch)) * batch[0]
        assert budget is None or positions <= budget or len(batch) == 1
    if budget is None:
        assert all(len(batch) == batch_size for batch in found[:-1])


# Fails if: the translator ignores the budget, or mixes up the sentences of other batches.
def test_a_budget_of_tokens_changes_no_translation(translator, beam_of_3, monkeypatch):
    rows, arrays = [], translator.batch

    def watched(sources, lengths):
        found = arrays(sources, lengths)
        rows.append(found[0].shape)
        return found

    monkeypatch.setattr(translator, "batch", watched)
    found = translator.n_best(TEXTS, 3, beam_size=3, tokens_per_batch=64)
    same_hypotheses(found, beam_of_3)
    assert len(rows) > 1 and all(count * width <= 64 for count, width in rows)
    with pytest.raises(ValueError, match="tokens_per_batch is an integer and at least 1"):
        translator.translate(["a"], tokens_per_batch=0)


def test_room_for_fewer_tokens_changes_nothing(translator, beam_of_3, monkeypatch):
    monkeypatch.setattr("keras_transformer.decoding.shapes.ROOM", 12)
    found = translator.n_best(TEXTS, 3, beam_size=3, batch_size=4)
    longest = [max((len(each.ids) for each in row), default=0) for row in beam_of_3]
    assert min(filter(None, longest)) < 12 < max(longest)
    for ours, expected in zip(found, beam_of_3, strict=True):
        assert [(h.text, h.ids) for h in ours] == [(h.text, h.ids) for h in expected]
        np.testing.assert_allclose([h.score for h in ours], [h.score for h in expected], rtol=1e-5)


# Fails if: the search never shrinks.
@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_search_that_shrinks_finds_the_same(
    translator, greedy, beam_of_3, beam_size, monkeypatch
):
    """The search continues with a quarter of 16 rows, those with the longest translations."""
    monkeypatch.setattr("keras_transformer.decoding.shapes.REPAYS_FROM", 0)
    monkeypatch.setattr("keras_transformer.decoding.shapes.runs_on_processor", lambda: True)
    shrunk_to = set()
    search_ids = translator.search_ids

    def watched(*arguments, **options):
        shrunk_to.add(options["shrink_to"])
        return search_ids(*arguments, **options)

    monkeypatch.setattr(translator, "search_ids", watched)
    found = translator.n_best(TEXTS * 2, beam_size, beam_size=beam_size, batch_size=16)
    assert shrunk_to == {4}
    for ours, expected in zip(found, (greedy if beam_size == 1 else beam_of_3) * 2, strict=True):
        assert [(h.text, h.ids) for h in ours] == [(h.text, h.ids) for h in expected]
        np.testing.assert_allclose([h.score for h in ours], [h.score for h in expected], rtol=1e-5)


# Fails if: accelerators shrink too; only the number of sentences counts.
def test_many_alike_repay_more_compilation(translator, monkeypatch):
    size = sum(np.size(each) for each in translator.models[0].get_weights())
    assert size == shapes.count_weights(translator.models)
    monkeypatch.setattr("keras_transformer.decoding.shapes.REPAYS_FROM", 1000 * 8 * size)
    monkeypatch.setattr("keras_transformer.decoding.shapes.runs_on_processor", lambda: True)
    assert shapes.repays(size, 1000, 8)
    assert not shapes.repays(size, 999, 8)
    monkeypatch.setattr("keras_transformer.decoding.shapes.runs_on_processor", lambda: False)
    assert not shapes.repays(size, 1000, 8)


# Fails if: the coarse widths are never used, or always used; earlier calls are forgotten; beams do
# not count.
def test_few_sentences_share_a_width_and_many_have_their_own(translator, greedy, monkeypatch):
    if keras.backend.backend() == "torch":
        pytest.skip("nothing is compiled on torch")
    module = "keras_transformer.decoding.shapes."
    monkeypatch.setattr(module + "runs_on_processor", lambda: True)
    monkeypatch.setattr(translator, "_searches", {})
    monkeypatch.setattr(translator, "_asked", collections.Counter())
    weights = sum(np.size(each) for each in translator.models[0].get_weights())
    sentences = sum(bool(text.strip()) for text in TEXTS)
    monkeypatch.setattr(module + "REPAYS_FROM", 2 * sentences * 8 * weights)
    widths = set()
    search_ids = translator.search_ids

    def watched(source_ids, *arguments, **options):
        widths.add(source_ids.shape[1])
        return search_ids(source_ids, *arguments, **options)

    monkeypatch.setattr(translator, "search_ids", watched)
    for expected in ({16}, {8}):  # with the second call they are twice as many
        widths.clear()
        found = translator.n_best(TEXTS, 1, beam_size=1, batch_size=4)
        assert widths == expected
        for ours, theirs in zip(found, greedy, strict=True):
            assert [(h.text, h.ids) for h in ours] == [(h.text, h.ids) for h in theirs]
    # Two beams also count as twice as many.
    monkeypatch.setattr(translator, "_asked", collections.Counter())
    widths.clear()
    translator.n_best(TEXTS, 1, beam_size=2, batch_size=4)
    assert widths == {8}


def test_the_translation_is_the_best_hypothesis(translator, greedy):
    assert translator.translate(TEXTS, beam_size=1, batch_size=4) == [h.text for (h,) in greedy]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_weights_that_are_not_finite_are_said(source_tokenizer, beam_size):
    model = small_model(23)
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(ValueError, match="'abc'.*not finite"):
        Translator(model, source_tokenizer).translate(["abc"], beam_size=beam_size)


def test_an_empty_line_stays_empty(translator, beam_of_3):
    for text, found in zip(TEXTS, beam_of_3, strict=True):
        if not text.strip():
            assert [h.text for h in found] == ["", "", ""]
    assert translator.translate([]) == []
    assert translator.translate(["", ""]) == ["", ""]


def test_the_compiled_search_uses_new_weights(translator, greedy):
    [model] = translator.models
    before = model.get_weights()
    model.set_weights(random_weights(model, seed=17))
    try:
        after = translator.n_best(TEXTS, 1, beam_size=1, batch_size=4)
        assert_greedy(translator, pairs_of(after))
        assert after != greedy
    finally:
        model.set_weights(before)
    again = translator.n_best(TEXTS, 1, beam_size=1, batch_size=4)
    assert again == greedy


# Fails if: every call compiles its search again.
def test_compiled_shapes_are_few_and_counted(translator):
    if keras.backend.backend() == "torch":
        pytest.skip("nothing is compiled on torch")
    translator.n_best(TEXTS, 1, beam_size=1, batch_size=4)
    count = translator.compiled_shapes
    assert count > 0
    translator.n_best(TEXTS[::-1], 1, beam_size=1, batch_size=4)  # needs no new shape
    assert translator.compiled_shapes == count
    translator.n_best(["a" * 100], 1, beam_size=1, batch_size=4)  # needs a longer shape
    assert translator.compiled_shapes > count


# --- scores of given translations


def assert_teacher_forced(translator, pairs, scores):
    """Checks that scores are sums over the target's tokens and the end."""
    rows = teacher_forced(translator, *zip(*pairs, strict=True))
    for (_, ids), (log_probability, tokens), log_probs in zip(pairs, scores, rows, strict=True):
        ids = [*ids, translator.target_tokenizer.end_id]
        expected = log_probs[range(len(ids)), ids].sum()
        assert tokens == len(ids)
        np.testing.assert_allclose(log_probability, expected, rtol=1e-4)


def test_a_hypothesis_scores_what_the_search_gave_it(translator, beam_of_3):
    pairs = pairs_of(beam_of_3)
    scores = translator.score([(text, h.ids) for text, h in pairs], batch_size=4)
    for (_, hypothesis), (log_probability, tokens) in zip(pairs, scores, strict=True):
        assert tokens == len(hypothesis.ids) + 1
        np.testing.assert_allclose(log_probability / gnmt(tokens), hypothesis.score, rtol=1e-4)
    assert len({round(log_probability, 2) for log_probability, _ in scores}) > 10


# Fails if: the spaces of a blank side are scored.
def test_a_score_is_the_teacher_forced_log_probability_of_the_text(translator, greedy):
    pairs = [(text, hypothesis.text) for text, hypothesis in pairs_of(greedy)]
    pairs += [("abc", ""), ("", "stu"), (" ", "stu"), ("", " ")]
    encode = translator.target_tokenizer.encode
    expected = [(text.strip(), encode(target.strip())) for text, target in pairs]
    scores = translator.score(pairs, batch_size=4)
    assert_teacher_forced(translator, expected, scores)
    assert [tokens for _, tokens in scores[-4:]] == [1, *[len(encode("stu")) + 1] * 2, 1]


def test_the_compiled_score_uses_new_weights(translator):
    (model,), pairs = translator.models, [("abc", [5, 7, 9]), ("fed", [6])]
    assert_teacher_forced(translator, pairs, before := translator.score(pairs))
    weights = model.get_weights()
    model.set_weights(random_weights(model, seed=17))
    try:
        assert_teacher_forced(translator, pairs, after := translator.score(pairs))
    finally:
        model.set_weights(weights)
    assert after != before


@pytest.mark.parametrize("beam_size", [1, 2])
def test_average_divides_by_the_length(translator, uncompiled, beam_size):
    other = Translator(translator.models, translator.tokenizer, translator.target_tokenizer)
    found = other.n_best(["abc"], beam_size, beam_size, length_penalty="average")[0]
    assert_scores(other, [("abc", hypothesis) for hypothesis in found], lambda length: length)


# Fails if: scores come in the order of the batches.
def test_order_and_batches_do_not_matter_to_scores(translator):
    targets = ["s", "stuvw", "", "zz", "xyxyx", "u", "sss", "yz", "vw"]
    pairs = list(zip(TEXTS, targets, strict=True))
    expected = translator.score(pairs)
    for order, batch_size in ((range(9), 1), (np.random.default_rng(2).permutation(9), 4)):
        scores = translator.score([pairs[i] for i in order], batch_size)
        np.testing.assert_allclose(scores, [expected[i] for i in order], rtol=1e-5)
    tokens = translator.token_log_probabilities(pairs)
    sums = [(sum(each), len(each)) for each in tokens]
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    assert translator.score([]) == []


lengths = st.tuples(st.integers(0, 300), st.integers(0, 9))


# Fails if: long pairs come in full batches; a quarter of 3 rows is rounded to 0.
@given(st.lists(lengths, max_size=20), st.integers(1, 70))
def test_long_pairs_are_scored_in_small_batches(pairs, batch_size):
    pairs = [([5] * source, [5] * target) for source, target in pairs]
    batches = list(scoring.in_batches(pairs, batch_size))
    assert sorted(i for batch in batches for i in batch) == list(range(len(pairs)))
    for batch in batches:
        longest = max(len(side) for i in batch for side in pairs[i]) + 1
        assert len(batch) == 1 or len(batch) * longest <= 64 * batch_size
        assert longest > 64 or batch is batches[-1] or len(batch) == batch_size


def test_learned_positions_are_enough_or_refused(source_tokenizer, uncompiled):
    model = small_model(23, positions="learned", max_length=11)
    learned = Translator(model, source_tokenizer)
    pairs = [("abc", [5] * 10), ("abc", [7, 9])]
    assert_teacher_forced(learned, pairs, learned.score(pairs))
    with pytest.raises(ValueError, match="12 tokens is longer than the 11 positions"):
        learned.score([("abc", [5] * 11)])


def test_what_cannot_be_scored_is_refused(translator):
    for pairs in (["ab"], ("abc", "def"), [("a", "b", "c")], [("a",)]):
        with pytest.raises(ValueError, match=r"list of \(source, target\) pairs, got"):
            translator.score(pairs)
    for pair, message in (
        ((None, "a"), "got as a source None, which is no string"),
        (("a", None), "got as a target None, which is no string"),
        (("a", "b\udc80"), "got as a target 'b.*', with an unpaired surrogate at character 1"),
        (("a", [13]), "below the vocabulary of 13, got 13"),
        (("a", [-1]), "An id of a target is an integer and at least 0, got -1"),
        (None, "pairs, got None"),
    ):
        with pytest.raises(ValueError, match=message):
            translator.score([pair])
    for batch_size in (0, -1, 2.0, "many"):
        with pytest.raises(ValueError, match=f"batch_size is .* at least 1, got {batch_size!r}"):
            translator.score([("abc", "stu")], batch_size=batch_size)


# Fails if: log-probabilities are averaged instead of probabilities; only the first member counts.
def test_an_ensemble_goes_by_the_mean_of_probabilities(translator, greedy, beam_of_3):
    other = small_model(23, target_vocabulary_size=13, norm="pre")
    other.set_weights(random_weights(other, seed=17))
    both = [*translator.models, other]
    ensemble = Translator(both, translator.tokenizer, translator.target_tokenizer)
    found = ensemble.n_best(TEXTS, 1, beam_size=1, batch_size=4)
    assert_greedy(ensemble, pairs_of(found))
    assert_scores(ensemble, pairs_of(found), gnmt)
    beam = ensemble.n_best(TEXTS, 3, beam_size=3, batch_size=4)
    assert_scores(ensemble, pairs_of(beam), gnmt)
    pairs = [(text, hypothesis.ids[:5]) for text, hypothesis in pairs_of(beam)[:4]]
    assert_teacher_forced(ensemble, pairs, ensemble.score(pairs, batch_size=4))
    assert beam != beam_of_3 and found != greedy

    # The ensemble uses the current weights of its members.
    other.set_weights(random_weights(other, seed=18))
    assert_greedy(ensemble, pairs_of(ensemble.n_best(TEXTS, 1, beam_size=1, batch_size=4)))


def test_an_ensemble_of_equals_is_the_model_itself(translator, greedy):
    twice = Translator(translator.models * 2, translator.tokenizer, translator.target_tokenizer)
    for (one,), (other,) in zip(greedy, twice.n_best(TEXTS, 1, 1, batch_size=4), strict=True):
        assert one.ids == other.ids
        np.testing.assert_allclose(one.score, other.score, rtol=1e-5)


def test_what_cannot_be_translated_is_refused(translator, source_tokenizer):
    with pytest.raises(ValueError, match=r"list of strings, got one string: pass \[text\]"):
        translator.translate("abc")
    with pytest.raises(ValueError, match="between 1 and 3 results, asked for n=4"):
        translator.n_best(["abc"], 4, beam_size=3)
    for texts, message in (
        ([None], "got at index 0 None, which is no string. Leave it out"),
        (["a", b"b"], r"got at index 1 b'b', which is no string. Decode it first"),
        (["a\ud800"], "index 0 'a.*', with an unpaired surrogate at character 1: no text"),
        (None, "list of strings, got None"),
    ):
        with pytest.raises(ValueError, match=message):
            translator.translate(texts)
    for argument, values in {
        "n": (0, 1.0, None),
        "beam_size": (0, 2.0, "4", True),
        "batch_size": (0, -1),
        "length_penalty": (-1, "avg", None, float("nan")),
    }.items():
        for value in values:
            given = {"n": 1, argument: value}
            with pytest.raises(
                ValueError,
                match=f"^{argument} is .* at least [01]( and at most 10)?, got {value!r}",
            ):
                translator.n_best(["abc"], **given)
    starts_with_padding = types.SimpleNamespace(vocabulary_size=13, pad_id=0, start_id=0, end_id=3)
    with pytest.raises(ValueError, match="start id is 0.*padding"):
        Translator(translator.models, source_tokenizer, starts_with_padding)
    larger = character_tokenizer("abcdefghijklmnopqrstuvwxyz")
    with pytest.raises(ValueError, match="has 31 pieces and the model 23: this tokenizer is not"):
        Translator(translator.models, larger)
    with pytest.raises(ValueError, match="has 23 pieces and the model 13"):
        Translator(translator.models, source_tokenizer)
    with pytest.raises(ValueError, match=r"got 2 with target vocabularies of \[13, 23\]"):
        Translator([*translator.models, small_model(23)], translator.target_tokenizer)
    with pytest.raises(ValueError, match="got 0 with"):
        Translator([], source_tokenizer)


# --- models of other kinds


def as_subclass(model):
    class Mine(keras.Model):
        def call(self, inputs, training=None):
            return model({"source_ids": inputs[0], "target_ids": inputs[1]}, training=training)

    return Mine()


def as_list(model, widths=(None, None)):
    inputs = [keras.Input((width,), dtype="int32") for width in widths]
    outputs = model(dict(zip(("source_ids", "target_ids"), inputs, strict=True)))
    return keras.Model(inputs, outputs)


OTHERS = {
    "dictionary": lambda model: keras.Model(model.input, model.output),
    "fixed": lambda model: as_list(model, (13, 17)),
    "subclass": as_subclass,
    "ensemble": lambda model: keras.Model(model.input, model.output),
}


def same_hypotheses(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert [(h.text, h.ids) for h in ours] == [(h.text, h.ids) for h in theirs]
        np.testing.assert_allclose([h.score for h in ours], [h.score for h in theirs], rtol=1e-4)


def test_any_model_of_ids_to_logits_translates_as_with_a_cache(translator, uncompiled, capsys):
    tokenizers = (translator.tokenizer, translator.target_tokenizer)
    [model] = translator.models
    cached = Translator(model, *tokenizers)
    texts, pairs = ["ab", "", "q"], [("abc", "stu"), ("q", "")]
    expected = {beam_size: cached.n_best(texts, beam_size, beam_size) for beam_size in (1, 2)}
    scores = cached.score(pairs)
    for kind, make in OTHERS.items():
        others = [make(model), model] if kind == "ensemble" else make(model)
        other = Translator(others, *tokenizers)
        (line,) = capsys.readouterr().err.splitlines()
        assert "has no cache" in line and "translating is slow" in line
        beam_size = 2 if kind == "fixed" else 1
        same_hypotheses(other.n_best(texts, beam_size, beam_size), expected[beam_size])
        np.testing.assert_allclose(other.score(pairs), scores, rtol=1e-4)


def test_a_model_without_cache_is_compiled_and_its_weights_are_live(translator, greedy):
    [model] = translator.models
    tokenizers = (translator.tokenizer, translator.target_tokenizer)
    other = Translator(keras.Model(model.input, model.output), *tokenizers)
    same_hypotheses(other.n_best(TEXTS[:4], 1, 1, batch_size=4), greedy[:4])
    weights = model.get_weights()
    model.set_weights(random_weights(model, seed=17))
    try:
        found = other.n_best(TEXTS[:4], 1, 1, batch_size=4)
        pairs = [(text, h) for text, (h,) in zip(TEXTS, found, strict=False) if text.strip()]
        assert_greedy(translator, pairs)
    finally:
        model.set_weights(weights)
    assert found != greedy[:4]


def test_positions_of_a_model_without_cache_are_found(source_tokenizer, uncompiled):
    model = small_model(23, positions="learned", max_length=11)
    other = Translator(keras.Model(model.input, model.output), source_tokenizer)
    assert other.learned_positions("source_embedding") == 11
    assert other.learned_positions("target_embedding") == 11
    cached = Translator(model, source_tokenizer)
    same_hypotheses(other.n_best(["abcdefghi"], 1, 1), cached.n_best(["abcdefghi"], 1, 1))
    with pytest.raises(ValueError, match="has 12 tokens, and the model has learned 11 positions"):
        other.translate(["abcdefghij"])


def test_other_models_and_tokenizers_are_refused_at_once(translator, source_tokenizer):
    [model] = translator.models
    source_ids, logits = model.input["source_ids"], model.output
    renamed = as_list(model)
    renamed = keras.Model(dict(zip("ab", renamed.input, strict=True)), renamed.output)
    for other, message in (
        (object(), "or a model with encode, start_cache, .* Got a object without encode"),
        (renamed, r"The inputs of .* are \['a', 'b'\]"),
        (keras.Sequential([keras.Input((None,)), keras.layers.Embedding(23, 5)]), "has 1 input.s."),
        (keras.Model(model.input, keras.ops.softmax(logits)), "are probabilities. Leave out the"),
        (
            keras.Model(model.input, logits[:, -1]),
            r"For 3 target ids the output of .* is \(1, 13\)",
        ),
    ):
        with pytest.raises(ValueError, match=f"(?s)A Translator takes a Keras model.*{message}"):
            Translator(other, source_tokenizer, translator.target_tokenizer)
    images = keras.Input((3, 4))
    pair = keras.Model([source_ids, images], [source_ids, images])
    with pytest.raises(ValueError, match=r"have the shapes .*\(None, 3, 4\)"):
        Translator(pair, source_tokenizer)

    class KerasTokenizer:
        proto = source_tokenizer.model_proto

        @property
        def vocabulary_size(self):
            return 23

    with pytest.raises(ValueError, match="has no pad_id, start_id, end_id. .*Tokenizer.proto"):
        Translator(model, source_tokenizer, KerasTokenizer())
    with pytest.raises(ValueError, match="A str has no vocabulary_size"):
        Translator(model, "spm.model")


@pytest.mark.filterwarnings("ignore:Layer")
def test_what_was_compiled_before_quantize_uses_the_quantised_weights(translator):
    # Fails if: a compiled function keeps the float variables that `quantize` has replaced.
    model = small_model(23, target_vocabulary_size=13)
    other = Translator(model, translator.tokenizer, translator.target_tokenizer)
    pairs = [("abc", [5, 7, 9]), ("fed", [6])]
    before = other.score(pairs)
    model.quantize("int4")
    after = other.score(pairs)
    assert_teacher_forced(other, pairs, after)
    assert np.abs(np.subtract(before, after)).max() > 0.01


@pytest.fixture(scope="module")
def run(tmp_path_factory, source_tokenizer):
    """Returns a run directory with checkpoints of different weights. Training saw no "q"."""
    path = tmp_path_factory.mktemp("runs") / "run"
    model = small_model(23)
    model.compile(optimizer="sgd", loss="mse")
    with RunDirectory.start(path, {}) as directory:
        for update in (1, 2):
            model.set_weights(random_weights(model, seed=update))
            directory.save_checkpoint(model, update, {"best_update": 1})
    source_tokenizer.save(path / "tokenizer.model")
    np.save(path / "seen_ids.npy", np.arange(23) != source_tokenizer.piece_to_id("q"))
    return path


def test_a_run_is_loaded_with_the_weights_asked_for(run):
    for weights, update in ((None, 2), ("best", 1), ("1", 1)):
        translator = load_translator(run, weights)
        [model] = translator.models
        for value, expected in zip(model.get_weights(), random_weights(model, update), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert (
        translator.target_tokenizer.model_proto
        == Tokenizer.load(run / "tokenizer.model").model_proto
    )
    with pytest.raises(ValueError, match=r"no weights 'worst': expected .* the updates \[1, 2\]"):
        load_translator(run, "worst")


def test_runs_and_checkpoints_make_an_ensemble(run, tmp_path, target_tokenizer):
    translator = load_translator([run, run], ["1", "last"])
    assert translator.weights == ["1", "last"]
    for model, update in zip(translator.models, (1, 2, 1, 2), strict=True):
        np.testing.assert_allclose(
            model.get_weights()[0], random_weights(model, update)[0], rtol=1e-6
        )
    other = shutil.copytree(run, tmp_path / "other")
    (other / "tokenizer.model").write_bytes(target_tokenizer.model_proto)
    with pytest.raises(ValueError, match="other has another vocabulary than .*run: an ensemble"):
        load_translator([run, other])


def test_what_training_never_saw_is_said_once(run, uncompiled, capsys):
    translator = load_translator(run)
    translator.translate(["ab"], beam_size=1)
    assert capsys.readouterr().err == ""
    translator.translate(["ab", "a qb", "q"], beam_size=1, batch_size=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: never seen in training: q (in 'a qb')")
    translator.translate(["q"], beam_size=1)
    assert capsys.readouterr().err == ""


def test_a_run_reads_its_sources_as_its_training_text(run, tmp_path, capsys, monkeypatch):
    """Fails if: one method reads sources in another way than the others."""
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "seen.json").write_text('{"longest": 6, "invisible": []}')
    translator = load_translator(copy)
    texts, plain = ["\u200ea\u3000b  ab", "\u200e", " "], ["a b ab", "", ""]
    assert translator.encode_sources(texts) == translator.tokenizer.encode(plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert "U+200E LEFT-TO-RIGHT MARK (left out)" in line
    translator.encode_sources(texts)
    assert capsys.readouterr().err == ""  # the remark was printed before
    translator.encode_sources(["ab" * 6])
    assert "far longer than any sentence of training" in capsys.readouterr().err

    monkeypatch.setattr(translator, "encode_sources", lambda texts: 1 / 0)
    for read in (
        lambda: translator.translate(texts),
        lambda: translator.score([("a", "b")]),
        lambda: visualization.explain(translator, "a"),
    ):
        with pytest.raises(ZeroDivisionError):
            read()
