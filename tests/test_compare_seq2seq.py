"""Tests that recurrent models follow their papers, and that the recipe that compares them runs."""

import json
import os
import sys
import types

import compare_seq2seq
import keras
import numpy as np
import pytest
import seq2seq_measures as measures
import seq2seq_tasks as tasks
from keras import ops
from recurrent_layers import RecurrentDecoder
from recurrent_models import RecurrentSeq2Seq, matching_units

from keras_transformer import Translator, testing
from keras_transformer.decoding import search
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.models import Transformer

V, D, H = 23, 11, 14  # half of the units may read backwards
IDS = testing.random_inputs(V)
EVERY = list(compare_seq2seq.RECURRENT)


@pytest.fixture(params=EVERY)
def model(request):
    return recurrent(request.param)


def recurrent(name, **options):
    options = {"d_model": D, "dropout": 0.3, **compare_seq2seq.RECURRENT[name], **options}
    model = RecurrentSeq2Seq(V, H, **options)
    # With new biases, which are 0, padding would leave the first state at 0 even without a mask.
    random = np.random.default_rng(7)
    model.set_weights(
        [w + random.normal(size=w.shape) * (w.ndim == 1) for w in model.get_weights()]
    )
    return model


def array(x):
    return ops.convert_to_numpy(x)


# --- laws of the models
#
# The models are pure `keras.ops`. In an eager call JAX compiles every loop separately, so on JAX
# only tests of compiled calls run.


# Fails if: recurrent layers ignore their mask.
@pytest.mark.tensorflow_only
def test_padding_and_later_tokens_change_nothing(model):
    testing.assert_padding_invariant(model, IDS)
    testing.assert_finite_when_masked(model, IDS)
    testing.assert_causal(model, IDS)
    testing.assert_source_sensitive(model, IDS)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("name", ["lstm", "lstm-dot"])
def test_nothing_leaks_in_training(name):
    testing.assert_causal(recurrent(name), IDS, training=True)
    testing.assert_batch_invariant(recurrent(name), IDS, training=True)


# Fails if: the mask keeps the order of the text when the text is reversed.
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_changes_nothing_in_half_precision(reverse):
    model = recurrent("lstm-dot", dtype="mixed_bfloat16", reverse_source=reverse)
    testing.assert_padding_invariant(model, IDS)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("name", EVERY)
def test_it_saves_and_loads(name):
    testing.assert_saves_and_loads(recurrent(name, reverse_source=False), IDS)


# Fails if: the state in the cache is not updated.
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("chunk", [1, 3])
def test_cached_logits_are_the_teacher_forced(model, chunk):
    testing.assert_cached_equals_uncached(model, IDS, chunk=chunk, rewinds=False)


# Fails if: beams come in another order.
@pytest.mark.tensorflow_only
def test_the_search_is_the_translators(model):
    ids = {"pad_id": 0, "start_id": 1, "end_id": 2}
    tokenizer = types.SimpleNamespace(vocabulary_size=V, **ids)
    translator, length = Translator(model, tokenizer), IDS["source_ids"].shape[1] + 3

    def beam_of_3(source_ids):
        limits = np.full(len(source_ids), length, "int32")
        inputs = ops.convert_to_tensor(source_ids), ops.convert_to_tensor(limits)
        return translator.search_ids(*inputs, length, 3, 3, 0.6)[:2]

    penalty = search.gnmt_penalty(0.6)
    testing.assert_scores_are_final(beam_of_3, model, IDS["source_ids"], **ids, penalty=penalty)


def test_it_trains_and_decodes_compiled():
    model = recurrent("lstm-additive")
    model.compile("sgd", SmoothedCrossentropy(), jit_compile=keras.backend.backend() != "torch")
    before = [np.array(weight) for weight in model.get_weights()]
    labels = np.roll(IDS["target_ids"], -1, axis=1)
    history = model.fit(IDS, labels, batch_size=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for old, new, weight in zip(before, model.get_weights(), model.weights, strict=True):
        assert (old != new).any(), weight.path
    testing.assert_cached_equals_uncached(model, IDS, rewinds=False, jit=True)


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


# Fails if: there is no input feeding; the dot query is the earlier state.
@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_attention_is_the_formula(attention):
    """Computes two positions of one layer by hand (Bahdanau et al., 2015; Luong et al., 2015)."""
    random = np.random.default_rng(5)
    decoder = RecurrentDecoder("rnn", units=H, attention=attention)
    x, memory, state = (random.normal(size=size) for size in ((3, 2, D), (3, 7, H), (3, H)))
    real = np.arange(7) < np.array([[7], [4], [1]])
    inputs = [ops.convert_to_tensor(each.astype("float32")) for each in (x, memory, state)]
    start = decoder.start([[inputs[2]]])
    found, states = decoder(inputs[0], start, inputs[1], ops.convert_to_tensor(real))
    cell = decoder.layers[0].cell
    weights = [cell.kernel, cell.recurrent_kernel, decoder.combine.kernel, decoder.readout.kernel]
    kernel, recurrent_kernel, combine, readout = (array(w).astype("float64") for w in weights)

    def context(query):
        if attention == "dot":
            scores = np.einsum("bh,bsh->bs", query, memory)
        else:
            query = query @ array(decoder.query.kernel)
            keys = memory @ array(decoder.key.kernel)
            scores = np.tanh(query[:, None] + keys) @ array(decoder.attention.scale)
        return np.einsum("bs,bsh->bh", softmax(np.where(real, scores, -1e9)), memory)

    hidden, fed, expected = state, np.zeros((3, H)), []
    for t in range(2):
        if attention == "additive":
            fed = seen = context(hidden)
        hidden = np.tanh(np.concatenate([x[:, t], fed], 1) @ kernel + hidden @ recurrent_kernel)
        if attention == "dot":
            seen = context(hidden)
        fed = np.tanh(np.concatenate([hidden, seen], 1) @ combine)
        expected.append(fed @ readout)
    np.testing.assert_allclose(array(found), np.stack(expected, 1), atol=2e-5)
    np.testing.assert_allclose(array(states[0][0]), hidden, atol=2e-5)


# Fails if: a fixed context holds the encoder's outputs too.
def test_a_fixed_context_is_all_that_the_decoder_knows():
    for name in EVERY:
        memory, _ = recurrent(name).encode(ops.convert_to_tensor(IDS["source_ids"]))
        sizes = {state.shape[-1] for layer in memory["states"] for state in layer}
        assert sizes == {H} and ("outputs" in memory) == ("-" in name)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("task", ["translate", pytest.param("copy", marks=pytest.mark.slow)])
def test_all_have_as_many_parameters(task):
    """Counts without the embeddings, which are equal. Whole models are then within 10 % too."""
    layers = compare_seq2seq.SETTINGS[task].layers
    args = types.SimpleNamespace(task=task, width=128, layers=layers, dropout=0.1)
    counts = {
        name: compare_seq2seq.build(name, 8, args).count_params() - 8 * 128
        for name in compare_seq2seq.MODELS
    }
    for name, count in counts.items():
        assert abs(count / counts["transformer"] - 1) < 0.1, (name, counts)


@pytest.mark.tensorflow_only
def test_units_are_those_of_the_nearest_size():
    options = {"attention": "additive", "num_layers": 3, "bidirectional": True}
    count = RecurrentSeq2Seq(V, 18, d_model=D, **options).count_params() - V * D
    for parameters in (count - 9, count, count + 9):
        assert matching_units(parameters, D, **options) == 18


# --- measurements


# Fails if: k counts from the first position.
def test_gradient_reach_of_a_linear_network():
    """For h_t = U h_(t-1) + W x_t the derivative d h_t / d x_(t-k) is U^k W."""
    layer = keras.layers.SimpleRNN(2, activation="linear", return_sequences=True)
    kernel = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]])
    recurrent_kernel = np.array([[0.5, 0.0], [0.25, 2.0]])
    layer.build((None, None, 3))
    layer.set_weights([kernel, recurrent_kernel, np.ones(2)])
    found = measures.gradient_reach(layer, np.random.default_rng(1).normal(size=(5, 3)))
    powers = [kernel @ np.linalg.matrix_power(recurrent_kernel, k) for k in range(5)]
    np.testing.assert_allclose(found, [np.linalg.norm(power) for power in powers], rtol=1e-5)
    assert found[0] == pytest.approx(np.sqrt(15))  # 1 + 4 + 1 + 9


@pytest.mark.tensorflow_only
def test_gradient_reach_is_that_of_the_models_logits():
    """The decoder by itself and the whole model agree on which positions depend on which."""
    for model in (
        recurrent("lstm-dot", num_layers=1),
        Transformer(V, num_layers=1, d_model=10, num_heads=2, d_ff=13),
    ):
        pair = IDS["source_ids"][0], IDS["target_ids"][0]
        reach = measures.model_reach(model, [(pair[0][:5], pair[1])])
        assert {len(norms) for norms in reach.values()} == {5}
        assert all(np.isfinite(norms).all() and min(norms) > 0 for norms in reach.values())
    model = recurrent("lstm", reverse_source=False)
    embedded = model.source_embedding(ops.convert_to_tensor(IDS["source_ids"][:1]))
    forwards = measures.gradient_reach(lambda x: model.encoder(x)[0], embedded[0])
    found = measures.model_reach(model, [(IDS["source_ids"][0], IDS["target_ids"][0])])["encoder"]
    np.testing.assert_allclose(found, forwards, rtol=1e-5)
    model.reverse_source = True
    found = measures.model_reach(model, [(IDS["source_ids"][0, ::-1], IDS["target_ids"][0])])
    np.testing.assert_allclose(found["encoder"], forwards, rtol=1e-5)


@pytest.mark.tensorflow_only
def test_scores_go_by_length():
    sources = ["a b", "a b c d", "a b c d e", "a b c d e f g"]
    references = ["x y z w", "x y z w", "x y z w v", "x y z w v"]
    hypotheses = ["x y z w", "x y z w", "x y z w v", "v w z y x"]
    found = measures.bleu_by_length(sources, references, hypotheses, bounds=(4, 6, 7))
    assert "tok:none" in found["signature"] and 0 < found["bleu"] < 100
    assert {name: bucket["sentences"] for name, bucket in found["buckets"].items()} == {
        "1-3": 1,
        "4-5": 2,
        "7+": 1,
    }
    assert found["buckets"]["4-5"]["bleu"] == pytest.approx(100)
    assert found["buckets"]["7+"]["bleu"] < 20
    accuracy = measures.accuracy_by_length(["a b", "c d", "a b c d"], ["a b", "c", "b b c d a"])
    assert accuracy == {
        2: {"sequences": 0.5, "tokens": 0.75},
        4: {"sequences": 0.0, "tokens": 0.75},
    }


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(("task", "step"), [("copy", 1), ("reverse", -1)])
def test_symbols_are_copied_or_reversed(task, step):
    sizes = {"symbols": 5, "train_length": 8, "test_length": 13, "size": 200, "test_size": 3}
    found = tasks.load(types.SimpleNamespace(task=task, seed=1, **sizes))
    for source, target in (*found.train, *found.valid, *found.test):
        assert target.split() == source.split()[::step] and set(source) <= set("abcde ")
    lengths = [[len(s.split()) for s, _ in part] for part in (found.train, found.valid, found.test)]
    assert set(lengths[0]) == set(range(1, 9)) and max(lengths[1]) <= 8
    assert lengths[2] == [length for length in (2, 4, 6, 8, 10, 12) for _ in range(3)]
    assert found.tokenizer.vocabulary_size == 5 + 4
    assert found.tokenizer.decode(found.tokenizer.encode("a b e")) == "a b e"


# --- the recipe


@pytest.fixture
def run_recipe(monkeypatch, uncompiled):
    """Runs the recipe in this process and eagerly. Other tests cover compiled steps."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["compare_seq2seq.py", *map(str, options)])
        compare_seq2seq.main()

    keras.config.disable_interactive_logging()
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield run
    tf.config.run_functions_eagerly(False)


SMALL = "--updates 1 --validate-every 1 --layers 1 --width 8 --tokens-per-batch 64".split()
SMALL += ["--reach-pairs", "1"]
SYMBOLS = "--symbols 5 --train-length 4 --test-length 5 --size 40 --test-size 1".split()


# Fails if: a finished model is trained again; a resumed comparison draws other first weights; a
# default that has changed since the first start continues a run.
@pytest.mark.tensorflow_only
def test_the_recipe_compares_all_models_and_resumes(run_recipe, tmp_path, capsys, monkeypatch):
    command = [*SMALL, *SYMBOLS, "--task", "reverse", "--run-dir", tmp_path / "run"]
    run_recipe(*command)
    first = capsys.readouterr().out
    for name in compare_seq2seq.MODELS:
        assert first.count(f"\n{name} ") >= 3 and (tmp_path / "run" / name).is_dir()
    for title in ("tokens/s", "sequences right", "tokens right", "encoder: norm", "decoder: norm"):
        assert title in first
    for name in ("speed", "quality", "gradient_reach"):
        report = json.loads((tmp_path / "run" / f"{name}.json").read_text())
        assert list(report) == list(compare_seq2seq.MODELS)
        assert (tmp_path / "run" / f"{name}.png").stat().st_size > 5000
    weights = tmp_path / "run/lstm/checkpoints/update-00000001/weights.npz"
    written = weights.stat().st_mtime_ns
    # A lost model is trained again, with the same result. The other models are not.
    lost = tmp_path / "run" / "rnn" / "checkpoints" / "update-00000001"
    lost.rename(tmp_path / "lost")
    run_recipe(*command, "--models", "rnn", "lstm")
    again = capsys.readouterr().out
    assert weights.stat().st_mtime_ns == written and (lost / "weights.npz").exists()
    for name in ("rnn", "lstm"):
        rows = [
            [line.split() for line in text[text.index("sequences right") :].splitlines()]
            for text in (first, again)
        ]
        rows = [[row for row in each if row[:1] == [name]] for each in rows]
        assert rows[0] == rows[1] and len(rows[0]) == 6
    with pytest.raises(SystemExit, match="other settings"):
        run_recipe(*command, "--seed", 2)
    monkeypatch.setitem(compare_seq2seq.SYMBOL_RATES, "rnn", 0.003)
    with pytest.raises(SystemExit, match=r"other settings.*rate"):
        run_recipe(*command, "--models", "rnn")


@pytest.mark.tensorflow_only
def test_the_recipe_scores_translations(run_recipe, tmp_path, capsys, monkeypatch):
    data = tmp_path / "multi30k_en_de"
    data.mkdir()
    for name, count in (("train", 30), ("val", 3), ("test2016", 2)):
        for language, words in (("en", "ba be bo da de do"), ("de", "ab eb ob ad ed od")):
            lines = (" ".join(words.split()[i % 5 :]) for i in range(count))
            (data / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setenv("KERAS_TRANSFORMER_DATA", str(tmp_path))
    run_recipe(*SMALL, "--vocabulary-size", 275, "--models", "rnn", "--run-dir", tmp_path / "run")
    output = capsys.readouterr().out
    assert "BLEU of test2016" in output and "tok:none" in output
    quality = json.loads((tmp_path / "run" / "quality.json").read_text())["rnn"]
    assert quality["buckets"].keys() == {"1-8"} and quality["buckets"]["1-8"]["sentences"] == 2
    assert len((tmp_path / "run/rnn/hypotheses.txt").read_text().split("\n")) == 3
    # A trial scores the validation text. The same run then scores the test text, trained once.
    trial = [*SMALL, "--vocabulary-size", 275, "--models", "rnn", "--run-dir", tmp_path / "trial"]
    trial += ["--rate", 0.01, "--dropout", 0.3]
    run_recipe(*trial, "--measure", "valid")
    assert "BLEU of the validation text" in capsys.readouterr().out
    assert len((tmp_path / "trial/rnn/hypotheses.txt").read_text().split("\n")) == 4
    weights = tmp_path / "trial/rnn/checkpoints/update-00000001/weights.npz"
    written = weights.stat().st_mtime_ns
    run_recipe(*trial)
    assert "BLEU of test2016" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == written
    os.truncate(data / "val.de", 0)
    with pytest.raises(SystemExit, match="val.de.*empty"):
        run_recipe(*SMALL, "--run-dir", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(SystemExit, match="train.en"):
        run_recipe(*SMALL, "--data", tmp_path / "nothing")


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--updates", 3, "--validate-every", 2], "multiple of --validate-every"),
        (["--task", "copy", "--symbols", 1], "from 2 to 26"),
        (["--models", "gru"], "invalid choice"),
        ([], "--data names the folder"),
    ],
)
def test_what_cannot_be_compared_is_said(run_recipe, options, message, capsys, monkeypatch):
    monkeypatch.delenv("KERAS_TRANSFORMER_DATA", raising=False)
    with pytest.raises(SystemExit):
        run_recipe(*options)
    assert message in capsys.readouterr().err
