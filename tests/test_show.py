"""Tests that `keras-transformer show` shows what the model did."""

import functools
import json
import math
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import ops
from uncompiled import search_uncompiled

import keras_transformer as kt
from keras_transformer import visualization
from keras_transformer.cli import main
from keras_transformer.decoding.alignment import over_words
from keras_transformer.models import Transformer
from keras_transformer.text import train_tokenizer
from keras_transformer.text.seen import Seen
from keras_transformer.visualization import page, shapes, tree
from keras_transformer.visualization.words import words_of

TEXT = "나는 집에 간다"
# For cases that need no second backend, which would compile every shape of every operation.
ONE_BACKEND = functools.partial(pytest.param, marks=pytest.mark.tensorflow_only)
PAIRS = [(TEXT, "I go home"), ("나는 커피를 좋아해", "I love coffee")]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(PAIRS, 330, character_coverage=1.0)


@pytest.fixture(scope="module")
def model(tokenizer):
    keras.utils.set_random_seed(5)
    model = Transformer(
        tokenizer.vocabulary_size, num_layers=2, d_model=14, num_heads=2, d_ff=19, dropout=0.5
    )
    rng = np.random.default_rng(7)
    # With larger weights than a new model's, translations end after some steps, and beams differ.
    model.set_weights(
        [w if w.ndim == 1 else rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()]
    )
    return model


@pytest.fixture(scope="module")
def translator(model, tokenizer):
    translator = kt.Translator(model, tokenizer)
    translator.EXTRA_LENGTH = 3  # short searches
    return translator


@pytest.fixture(scope="module")
def found(translator):
    with pytest.MonkeyPatch.context() as patch:
        search_uncompiled(patch)
        return visualization.explain(translator, TEXT, beam_size=3)


# --- the weights


def test_attention_weights_are_distributions_over_what_may_be_seen(model):
    source, target = np.array([[5, 7, 3, 0, 0], [9, 8, 6, 4, 3]]), np.array([[2, 8, 9], [2, 4, 0]])
    weights = model.attention_weights(source, target)
    shaped = {"encoder": (5, 5), "decoder": (3, 3), "cross": (3, 5)}
    for kind, shape in shaped.items():
        assert weights[kind].shape == (2, 2, 2, *shape)  # [L, B, H, ...]
        np.testing.assert_allclose(weights[kind].sum(axis=-1), 1, rtol=1e-5)
    for kind in ("encoder", "cross"):
        assert not weights[kind][:, 0, :, :, 3:].any()
        assert (weights[kind][:, 1] > 0).all()
    assert (
        not np.triu(weights["decoder"], 1).any() and (weights["decoder"][:, :, :, 2, 0] > 0).all()
    )
    # The decoder's weights do not depend on later tokens. All weights depend on the source.
    other = np.array([[2, 8, 5], [2, 4, 9]])
    for kind in ("decoder", "cross"):
        np.testing.assert_allclose(
            model.attention_weights(source, other)[kind][..., :2, :2],
            weights[kind][..., :2, :2],
            rtol=1e-4,
            atol=1e-6,
        )
    changed = model.attention_weights(source[::-1], target)
    assert np.abs(changed["cross"] - weights["cross"]).max() > 0.01


def test_they_are_the_formulas(model):
    """Computes softmax(QK^T / sqrt(K)) of the first layer from its kernels, in float64."""
    ids = np.array([[5, 7, 3, 8, 6]] * 2)  # a shape that JAX has compiled for the last test
    attention = model.encoder.layers[0].self_attention
    x = ops.convert_to_numpy(model.source_embedding(ids)).astype("float64")[0]
    queries, keys = ([x @ head for head in _heads(attention, name)] for name in ("query", "key"))
    found = model.attention_weights(ids, [[2, 9, 4]] * 2)["encoder"][0, 0]
    for head, (q, k) in enumerate(zip(queries, keys, strict=True)):
        scores = q @ k.T / math.sqrt(7)
        expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(found[head], expected, rtol=1e-3, atol=1e-5)


def _heads(attention, name):
    kernel = ops.convert_to_numpy(getattr(attention, name).kernel).astype("float64")
    kernel = kernel.reshape(14, -1)
    return np.split(kernel, 2, axis=1)


# Fails if: special pieces are joined to words.
def test_words_are_what_stands_between_spaces():
    pieces = ["▁나는", "▁집", "에", "▁간", "다", "</s>"]
    assert words_of(pieces) == (["나는", "집에", "간다", "</s>"], [0, 1, 1, 2, 2, 3])
    assert words_of(["<s>", "▁I", "'", "m"]) == (["<s>", "I'm"], [0, 1, 1, 1])
    assert words_of(["<s>", "I"]) == (["<s>", "I"], [0, 1])  # a word begins after a special piece


# Fails if: queries are summed.
def test_words_sum_keys_and_average_queries():
    weights = np.array([[0.5, 0.25, 0.25], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6]])
    found = over_words(weights, [0, 0, 1], [0, 1, 1])
    np.testing.assert_allclose(found, [[0.3, 0.7], [0.2, 0.8]])


@pytest.mark.tensorflow_only
def test_rows_of_words_sum_to_1(found):
    for each in found.word_weights.values():
        np.testing.assert_allclose(each.sum(axis=-1), 1, rtol=1e-4)
    assert found.word_weights["cross"].shape[-1] == len(found.source_words) == 4


# --- the search


# Fails if: a finished score is not divided by its penalty; the tree keeps nothing.
@pytest.mark.parametrize(
    ("beam_size", "penalty"), [(3, 0.6), ONE_BACKEND(1, 0.6), ONE_BACKEND(4, "average")]
)
def test_the_tree_is_the_translators_own_search(
    translator, tokenizer, uncompiled, beam_size, penalty
):
    [ids] = tokenizer.encode([TEXT])
    nodes, best = tree.beam_tree(translator, ids, beam_size, penalty)
    [[hypothesis]] = translator.n_best([TEXT], 1, beam_size, penalty)
    assert list(nodes[best].ids[:-1]) == hypothesis.ids
    assert nodes[best].score == pytest.approx(hypothesis.score, rel=1e-4)
    assert nodes[best].score == max(node.score for node in nodes if node.score is not None)
    for node in nodes[1:]:
        assert nodes[node.parent].ids == node.ids[:-1]
        ways = (n.ids for n in nodes if n.score is not None)
        assert node.kept == any(ids[: len(node.ids)] == node.ids for ids in ways)
    by_step = [len([n for n in nodes if len(n.ids) == step and n.score is None]) for step in (1, 2)]
    assert max(by_step) == beam_size
    # Every score equals the teacher-forced score.
    end = tokenizer.end_id
    texts = [list(node.ids[:-1] if node.ids[-1] == end else node.ids) for node in nodes[1:]]
    scored = translator.token_log_probabilities([(TEXT, text) for text in texts])
    for node, each in zip(nodes[1:], scored, strict=True):
        expected = math.fsum(each[: len(node.ids)])
        assert node.log_probability == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.tensorflow_only
def test_what_is_explained_is_the_translation(translator, found, uncompiled):
    [[hypothesis]] = translator.n_best([TEXT], 1, beam_size=3)
    assert (found.target, found.outputs[:-1], found.inputs[1:]) == (
        hypothesis.text,
        hypothesis.ids,
        hypothesis.ids,
    )
    [(score, tokens)] = translator.score([(TEXT, hypothesis.ids)])
    assert found.log_probability == pytest.approx(score, rel=1e-4)
    assert tokens == len(found.outputs) == len(found.candidates)
    for candidates, chosen in zip(found.candidates, found.log_probabilities, strict=True):
        probabilities = [p for _, p in candidates]
        assert probabilities == sorted(probabilities, reverse=True)
        assert math.exp(chosen) <= probabilities[0] * 1.0001
    quick = visualization.explain(translator, TEXT, beam_size=3, tree=False)
    assert (quick.outputs, quick.nodes, quick.shapes) == (found.outputs, [], [])
    np.testing.assert_array_equal(quick.weights["cross"], found.weights["cross"])


@pytest.mark.tensorflow_only
def test_a_given_translation_is_looked_at_instead(translator, uncompiled):
    found = visualization.explain(translator, TEXT, target="I go home", beam_size=1)
    assert (found.target, found.given) == ("I go home", True)
    [(score, _)] = translator.score([(TEXT, "I go home")])
    assert found.log_probability == pytest.approx(score, rel=1e-4)
    assert "A given translation" in page.page(found)


@pytest.mark.parametrize("text", ["", "  ", None, ["나는"]])
def test_an_empty_text_is_refused(translator, text):
    with pytest.raises(ValueError, match="nothing to show"):
        visualization.explain(translator, text)


def test_an_ensemble_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="ensemble of 2"):
        visualization.explain(kt.Translator([model, model], tokenizer), TEXT)


# --- the shapes


def test_shapes_are_recorded_and_lettered(model):
    found = [
        (each.layer, each.shape, letters) for each, letters in shapes.tensor_shapes(model, 5, 4)
    ]
    assert found[0] == ("PositionalEmbedding", (1, 5, 14), ["B", "S", "D"])
    vocabulary = model.target_embedding.vocabulary_size
    assert found[-1] == ("PositionalEmbedding", (1, 4, vocabulary), ["B", "T", "V"])
    assert [layer for layer, *_ in found].count("MultiHeadAttention") == 6
    before = [set(vars(layer)) for layer in model._flatten_layers()]
    with pytest.raises(ZeroDivisionError), shapes.recorded_calls(model):
        raise ZeroDivisionError
    assert [set(vars(layer)) for layer in model._flatten_layers()] == before


# Fails if: calls of other threads are recorded; a class is changed, not the layers.
def test_only_this_thread_and_this_model_are_recorded(model):
    classes = {layer.__class__ for layer in model._flatten_layers()} | {keras.layers.Layer}
    methods = [(cls, cls.__call__, cls.call) for cls in classes]
    other, ids = keras.layers.Dense(3), np.array([[5, 7, 3]])
    expected = ops.convert_to_numpy(model.encode(ids)[0])
    with shapes.recorded_calls(model) as calls, ThreadPoolExecutor(1) as thread:
        found, _ = thread.submit(model.encode, ids).result()
        assert calls == []
        assert [(cls, cls.__call__, cls.call) for cls in classes] == methods
        other(np.ones((2, 3)))
        assert calls == []
        with shapes.recorded_calls(model) as inner:
            model.encode(ids)
        model.encode(ids)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)
    assert 2 * len(inner) == len(calls) > 0
    recorded = len(calls)
    model.encode(ids)
    assert len(calls) == recorded


# Fails if: only `call` is recorded, which Keras does not call on a quantised layer.
@pytest.mark.tensorflow_only
@pytest.mark.filterwarnings("ignore:Layer")
def test_quantised_layers_are_recorded():
    quantised = Transformer(19, num_layers=1, d_model=14, num_heads=2, d_ff=17)
    quantised.quantize("int8")
    calls = shapes.run_once(quantised, 2, 5, 4)
    assert [call.shape[-1] for call in calls if call.name == "inner"] == [17, 17]


# --- the page


def data_of(text):
    [data] = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL
    )
    return json.loads(data)


# Fails if: the layers come in reverse order.
@pytest.mark.tensorflow_only
def test_the_page_has_all_of_it_and_nothing_outside(found):
    text = page.page(found)
    data = data_of(text)
    assert (data["source"], data["target"]) == (TEXT, found.target)
    np.testing.assert_allclose(
        data["weights"]["pieces"]["cross"], found.weights["cross"], atol=1e-4
    )
    outside = re.sub(r"http://www\.w3\.org/2000/svg", "", text)
    assert not re.search(r"https?:|//[a-z]+\.|<link|src=", outside)
    assert "data:font/woff;base64," in text and len(text) < 300_000


# Fails if: text is not escaped.
@pytest.mark.tensorflow_only
def test_text_cannot_leave_its_place(translator):
    text = "</script><script>alert(1)</script> & \u2028"
    written = page.page(visualization.explain(translator, text, target="<b>", beam_size=1))
    assert "alert(1)</script>" not in written and written.count("<script") == 2
    assert data_of(written)["source"] == text


@pytest.mark.tensorflow_only
def test_a_folder_is_written_whole_or_not_at_all(found, tmp_path, monkeypatch):
    names = visualization.write(found, tmp_path / "shown")
    assert sorted(each.name for each in (tmp_path / "shown").iterdir()) == sorted(names)
    assert len(names) == 1 + 2 * 3 + 2
    assert all((tmp_path / "shown" / n).read_bytes()[:4] == b"\x89PNG" for n in names[1:])
    before = (tmp_path / "shown" / "index.html").read_bytes()
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        visualization.write(found, tmp_path / "shown")
    assert (tmp_path / "shown" / "index.html").read_bytes() == before
    monkeypatch.setattr(page, "page", lambda explanation: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        visualization.write(found, tmp_path / "other")
    assert [each.name for each in tmp_path.iterdir()] == ["shown"]


# Fails if: what a killed process left ends the next one that has its number, as in a container.
def test_a_folder_of_a_killed_process_of_the_same_number_is_replaced(tmp_path):
    left = tmp_path / f".out.{os.getpid()}.tmp"
    left.mkdir()
    (left / "half").touch()
    with kt.files.new_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]


@pytest.mark.tensorflow_only
def test_the_command_writes_a_new_folder_each_time(model, tokenizer, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kt.Translator, "EXTRA_LENGTH", 3)
    run = tmp_path / "run"
    model.compile(optimizer="sgd")
    with kt.RunDirectory.start(run, {}) as directory:
        directory.save_checkpoint(model, 1, {})
    tokenizer.save(run / "tokenizer.model")
    seen = Seen.of([source for source, _ in PAIRS], tokenizer)
    seen.longest = 99
    seen.save(run)
    for number, sentence, remarks in (("1", TEXT, 0), ("2", "나는\u3000집에 홍차", 2)):
        assert main(["show", str(run), sentence, "--beam-size", "2"]) == 0
        text = (run / "show" / number / "index.html").read_text(encoding="utf-8")
        printed = capsys.readouterr()
        assert printed.out.strip() and f"{number}/index.html" in printed.err
        # The page and stderr name what training never saw.
        said = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
        shown = data_of(text)["warnings"]
        assert said == [f"{line[0].lower()}{line[1:]} Said once." for line in shown]
        assert len(said) == remarks
    assert "홍차" in said[0] and "U+3000" in said[1]
    with pytest.raises(ValueError, match="nothing to show"):
        visualization.explain(kt.load_translator(run), "\u200e")
    for arguments, message in (
        ([str(run), " "], "nothing to show"),
        ([str(tmp_path / "none"), TEXT], "none"),
        ([str(run), TEXT, "--output", str(run)], "exists and is not overwritten"),
    ):
        assert main(["show", *arguments]) == 1
        assert message in capsys.readouterr().err
    assert len(list((run / "show").iterdir())) == 2


# --- the pictures


# Fails if: no font has a glyph.
@pytest.mark.tensorflow_only
def test_every_glyph_is_there(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a missing glyph
        tokens = ["▁나는", "▁사랑", "−1", "é", "가", "→"]
        visualization.attention(np.eye(6), tokens, tokens, "어절 ▁ −").savefig(tmp_path / "a.png")
        visualization.token_probabilities(tokens, [0.5] * 6).savefig(tmp_path / "b.png")
        visualization.masks(["나는", "<pad>"], ["<s>", "I"]).savefig(tmp_path / "c.png")
        visualization.positional_encoding(9, 6).savefig(tmp_path / "d.png")


# Fails if: a mask is left out of its picture.
@pytest.mark.tensorflow_only
def test_pictures_hold_the_numbers():
    weights = np.random.default_rng(1).dirichlet(np.ones(4), size=(3, 2))
    figure = visualization.attention(weights, ["a", "b"], ["c", "d", "e", "f"])
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_allclose(drawn[:3], weights, rtol=1e-6)
    with pytest.raises(ValueError, match="2 queries and 3 keys"):
        visualization.attention(weights, ["a", "b"], ["c", "d", "e"])

    figure = visualization.masks(["x", "y", "<pad>"], ["<s>", "u", "<pad>"])
    encoder, decoder, cross = (np.array(axes.images[0].get_array(), int) for axes in figure.axes)
    assert encoder.tolist() == cross.tolist() == [[1, 1, 0]] * 3
    assert decoder.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]

    figure = visualization.positional_encoding(7, 4)
    heat = np.array(figure.axes[0].images[0].get_array())  # [D, length]
    np.testing.assert_allclose(heat[:, 1], [math.sin(1), math.cos(1), 0.01, 0.99995], atol=1e-4)
