"""Tests of the decoder-only model: its laws, its cache, and sampling."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer import testing
from keras_transformer import text as text_module
from keras_transformer.decoding import Sampler, sampling
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.models import CausalLanguageModel

B, T, V = 3, 7, 19
SIZES = {"num_layers": 2, "d_model": 10, "num_heads": 2, "d_ff": 13}
IDS = np.array([[5, 9, 3, 14, 7, 2, 11], [8, 1, 17, 5, 12, 0, 0], [10, 13, 0, 0, 0, 0, 0]], "int32")
# Eagerly JAX compiles every operation by itself; tests/test_transformer.py has that.
JIT = {"jit": keras.backend.backend() == "jax"}


@pytest.fixture(params=["learned", "sinusoidal"])
def model(request):
    return CausalLanguageModel(
        V, **SIZES, positions=request.param, max_length=11 if request.param == "learned" else None
    )


def array(x):
    return ops.convert_to_numpy(x)


def test_no_position_sees_a_later_one(model):
    testing.assert_causal(model, IDS, **JIT)
    testing.assert_causal(model, IDS, training=True, **JIT)


def test_padding_and_neighbours_change_nothing(model):
    testing.assert_padding_invariant(model, IDS, **JIT)
    testing.assert_batch_invariant(model, IDS, **JIT)
    testing.assert_finite_when_masked(model, IDS, **JIT)


# Fails if: a layer has another name.
def test_it_saves_and_loads(model):
    testing.assert_saves_and_loads(model, IDS)
    # Files of earlier versions are read by these names.
    assert {each.path.split("/")[0] for each in model.weights} == {"embedding", "decoder"}


@pytest.mark.parametrize("chunk", [1, 3])
def test_cached_logits_are_the_uncached(model, chunk):
    ids = np.random.default_rng(1).integers(1, V, (B, T))
    expected, cache = array(model(ids)), model.start_cache(B, T + 2)
    for t in range(0, T, chunk):
        some, cache = model.decode(ids[:, t : t + chunk], cache, t)
        np.testing.assert_allclose(array(some), expected[:, t : t + chunk], atol=2e-5)


def test_it_learns_a_text_and_goes_on_with_it():
    keras.utils.set_random_seed(1)
    ids = np.tile(np.arange(1, 12), 20)  # every id has exactly one successor
    model = CausalLanguageModel(12, **SIZES, dropout=0.0, max_length=8)
    model.compile(keras.optimizers.Adam(0.01), SmoothedCrossentropy(0.0))
    places = np.random.default_rng(1).integers(0, len(ids) - 8, 300)[:, None] + np.arange(8)
    model.fit(ids[places], ids[places + 1], epochs=6, batch_size=20, verbose=0)
    [found] = Sampler(model).generate([[3, 4, 5]], length=30, temperature=0)
    assert found == [(2 + i) % 11 + 1 for i in range(33)]


# --- sampling

LOGITS = np.log(np.array([[0.1, 0.4, 0.05, 0.25, 0.2]], "float32"))


def shares(**options):
    """Returns the shares of the five ids, drawn with evenly spaced numbers in [0, 1)."""
    numbers = (np.arange(2000) + 0.5) / 2000
    logits = np.repeat(LOGITS, len(numbers), axis=0)
    drawn = array(sampling.choose(logits, numbers, **options))
    return np.bincount(drawn, minlength=5) / len(numbers)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.05, 0.25, 0.2]),
        ({"temperature": 0}, [0, 1, 0, 0, 0]),
        ({"temperature": 0.5}, np.array([0.01, 0.16, 0.0025, 0.0625, 0.04]) / 0.275),
        ({"top_k": 2}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"top_k": 99}, [0.1, 0.4, 0.05, 0.25, 0.2]),
        ({"top_p": 0.6}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),  # 0.4 is less than 0.6
        ({"top_p": 0.3}, [0, 1, 0, 0, 0]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.05, 0.25, 0.2]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),  # 0.7 x 0.85 = 0.595
    ],
)
def test_ids_are_drawn_as_often_as_is_asked(options, expected):
    np.testing.assert_allclose(shares(**options), expected, atol=2e-3)


@pytest.mark.parametrize("max_length", [1, 2, 3])
def test_few_positions_suffice(max_length):
    model = CausalLanguageModel(V, **SIZES, max_length=max_length)
    [found] = Sampler(model).generate([[5]], 6, temperature=0)
    assert len(found) == 7
    follower = array(model(np.array([found[:1]])))[0, -1, 1:].argmax() + 1
    assert found[1] == follower
    if max_length == 1:
        each = array(model(np.array(found[:-1])[:, None]))[:, 0, 1:].argmax(-1) + 1
        assert found[1:] == each.tolist()


def test_a_seed_repeats_and_prompts_stay(model):
    prompts = [[5, 9], [8, 1]]
    sampler = Sampler(model)
    found = sampler.generate(prompts, 20, seed=3)  # also beyond the learned positions
    assert found == sampler.generate(prompts, 20, seed=3) != sampler.generate(prompts, 20, seed=4)
    assert [text[:2] for text in found] == prompts and {len(text) for text in found} == {22}
    assert all(0 < i < V for text in found for i in text)


# Fails if: a prompt of another length changes a text, or a text begins anew where rows differ.
def test_prompts_may_have_different_lengths(model):
    prompts = [[5, 9, 3, 8], [8], [7, 1]]
    found = Sampler(model).generate(prompts, 20, temperature=0)  # also beyond the positions
    assert [len(text) for text in found] == [24, 21, 22]
    for prompt, text in zip(prompts, found, strict=True):
        assert text == Sampler(model).generate([prompt], 20, temperature=0)[0]
        assert text[: len(prompt)] == prompt


# Fails if: what is streamed is not what is generated, beyond the learned positions too.
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 3, "repetition_penalty": 1.3, "no_repeat_ngram": 2}]
)
def test_a_stream_is_the_text_in_pieces(model, options):
    sampler = Sampler(model)
    [found] = sampler.generate([[5, 9, 3]], 25, seed=3, **options)
    assert [5, 9, 3, *sampler.stream([5, 9, 3], 25, seed=3, **options)] == found
    assert list(sampler.stream([5], 0)) == []


# Fails if: adjustments do not see the prompt, or see tokens of another row.
def test_what_is_drawn_is_adjusted(model):
    plain, other = (
        Sampler(model).generate([[5, 9], [8, 1]], 8, temperature=0, **options)
        for options in ({}, {"no_repeat_ngram": 1})
    )
    assert plain != other and all(len(set(text)) == len(text) for text in other)

    def no_nine(log_probs, ids, index, rows):
        nine = keras.ops.arange(log_probs.shape[-1]) == 9
        return keras.ops.where(nine, -1e9, log_probs)

    for text in Sampler(model).generate([[5, 9], [8, 1]], 40, seed=1, adjust=[no_nine]):
        assert 9 not in text[2:]


@pytest.fixture(scope="module")
def writer():
    """Returns a sampler of a model that has learned "ein Hund bellt. " by heart."""
    keras.utils.set_random_seed(1)
    text = "ein Hund bellt. "
    tokenizer = text_module.train_tokenizer([text], 272, character_coverage=1.0)
    ids = np.array(tokenizer.encode(text * 30))
    model = CausalLanguageModel(272, **SIZES, dropout=0.0, max_length=16)
    model.compile(keras.optimizers.Adam(0.01), SmoothedCrossentropy(0.0))
    places = np.random.default_rng(1).integers(0, len(ids) - 17, 300)[:, None] + np.arange(16)
    model.fit(ids[places], ids[places + 1], epochs=5, batch_size=20, verbose=0)
    return Sampler(model, tokenizer)


# Fails if: a stop in the prompt ends the text, one over two pieces is missed, or bytes are cut.
def test_texts_are_continued_and_end_at_a_stop(writer):
    prompts = ["ein Hund bellt. ein", "Hund"]
    found = writer.generate(prompts, 12, temperature=0)
    for prompt, text in zip(prompts, found, strict=True):
        assert text.startswith(prompt) and len(text) > len(prompt) + 8
    prompt, [whole] = prompts[0], writer.generate(prompts[:1], 30, temperature=0)
    end = whole[len(prompt) + 9 : len(prompt) + 13]  # over several pieces
    expected = whole[: whole.index(end, len(prompt))]
    assert writer.generate([prompt], 30, temperature=0, stop=[end, "???"]) == [expected]
    for stop, text in (((), whole), ((end,), expected)):
        pieces = list(writer.stream(prompt, 30, temperature=0, stop=stop))
        assert len(pieces) > 1 and prompt + "".join(pieces) == text
    pieces = list(writer.stream("ein", 40, temperature=3.0, seed=2))  # bytes of any kind
    assert "ein" + "".join(pieces) == writer.generate(["ein"], 40, temperature=3.0, seed=2)[0]


# Fails if: the end that a model draws is ignored.
def test_a_text_ends_where_its_end_is_drawn(writer):
    end = writer.tokenizer.end_id

    def end_fifth(log_probs, ids, index, rows):
        here = keras.ops.logical_and(keras.ops.arange(log_probs.shape[-1]) == end, index == 5)
        return keras.ops.where(here, 0.0, log_probs)

    options = {"temperature": 0, "adjust": [end_fifth]}
    prompt = writer.tokenizer.encode("ein")
    [found] = writer.generate([prompt], 30, **options)
    assert len(found) == 5 and end not in found
    assert [*prompt, *writer.stream(prompt, 30, **options)] == found
    # This one does not end, and becomes longer than the learned positions.
    other = writer.tokenizer.encode("ein Hund bellt. ein")
    assert writer.generate([prompt, other], 30, **options) == [
        found,
        *writer.generate([other], 30, **options),
    ]


# Fails if: drawing goes on when all texts have ended, or stops when only some have.
@pytest.mark.parametrize("end_id", [None, 2])
def test_drawing_ends_with_the_last_text(end_id):
    def step(ids, cache, index):  # the first text ends at 4, the second at 7; neither at 1
        ends = keras.ops.equal(np.array([4, 7]), index + 1)
        return keras.ops.where(ends[:, None], np.eye(9)[2], np.eye(9)[5]), cache

    prompts = np.array([[3, 2, 0, 0, 0, 0, 0, 0, 0, 0], [2] * 3 + [0] * 7])
    arguments = (np.zeros((2, 1)), prompts, np.array([2, 3]), np.zeros((2, 10)))
    found = array(sampling.sample(step, *arguments, temperature=0, end_id=end_id))
    expected = [[3, 2, 5, 5, 2, 5, 5, 5, 5, 5], [2, 2, 2, 5, 5, 5, 5, 2, 5, 5]]
    if end_id is not None:
        expected = np.where(np.arange(10) > 7, 0, expected)
    np.testing.assert_array_equal(found, expected)


def test_what_cannot_be_drawn_is_said():
    model = CausalLanguageModel(V, **SIZES, max_length=11)
    sampler = Sampler(model)
    for prompts, options, message in (
        ([], {}, "one or more texts"),
        ([[1], []], {}, r"lengths \[1, 0\]"),
        ([[1]], {"temperature": -1}, "temperature"),
        ([[1]], {"top_k": 0}, "top_k"),
        ([[1]], {"top_p": 1.5}, "top_p"),
        (["ab"], {}, "lists of ids, got text"),
        ([[0]], {}, "id of a prompt is an integer and at least 1, got 0"),
        ([[1.5]], {}, "id of a prompt is an integer and at least 1, got 1.5"),
        ([[V]], {}, f"below the vocabulary of {V}, got {V}"),
        ([[1]], {"length": 2.5}, "length is an integer and at least 0, got 2.5"),
        ([[1]], {"seed": -1}, "seed is an integer and at least 0, got -1"),
        ([[1]], {"temperature": "hot"}, "temperature is a number and at least 0, got 'hot'"),
        ([[1]], {"top_k": 2.0}, "top_k is an integer and at least 1, got 2.0"),
        ([[1]], {"top_p": "most"}, "top_p is a number and at least 0, got 'most'"),
        ([[1]], {"max_length": 5}, "generate takes length"),
        ([[1]], {"suppress": ["a"]}, "need a tokenizer"),
        ([[1]], {"stop": ["a"]}, "stop is for prompts of text"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler.generate(prompts, **{"length": 3, **options})
    with pytest.raises(ValueError, match="Got a Functional without embedding, start_cache, decode"):
        Sampler(keras.Model(model.input, model.output))
