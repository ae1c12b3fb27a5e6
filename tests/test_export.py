"""Tests that exported models (CTranslate2, SavedModel) translate like the original model."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_transformer import Translator, cli, load_translator
from keras_transformer.decoding import Sampling
from keras_transformer.interop import ctranslate2 as to_ct2
from keras_transformer.interop import to_ctranslate2, to_saved_model
from keras_transformer.models import Transformer
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.text import Tokenizer, train_tokenizer

pytestmark = pytest.mark.tensorflow_only

# At most 15 pieces, so that our own search compiles for one width. The last two are the same text,
# with é composed and decomposed.
TEXTS = ["abc", "fedcba", "r", "hgfedhgfed a", "mnopqr", "a b", "bébé q", "be\u0301be\u0301 q"]
BLANKS = ["", " ", "\t\n", "\u3000\xa0", "\x1c \x85"]
SHARED = {"num_layers": 1, "num_decoder_layers": 2, "d_model": 14, "num_heads": 2, "d_ff": 31}


def character_tokenizer(letters):
    return train_tokenizer([f"{letter} " for letter in letters], 256, model_type="char")


@pytest.fixture(scope="module")
def source_tokenizer():
    return character_tokenizer("abcdefghijklmnopqré")


@pytest.fixture(scope="module")
def target_tokenizer():
    return character_tokenizer("stuvwxyz")


@pytest.fixture
def ctranslate2():
    return pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")


def random_weights(model, seed):
    """Makes all weights random, also biases and norms. With seed 29 every sentence below ends."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        scale = 0.2 if len(variable.shape) == 1 else 0.3
        centre = 1.0 if variable.name == "gamma" else 0.0
        variable.assign(rng.normal(centre, scale, variable.shape))


def small_model(vocabulary_size=24, **options):
    model = Transformer(vocabulary_size, **{**SHARED, **options})
    random_weights(model, seed=29)
    return model


@pytest.fixture(scope="module")
def translator(source_tokenizer, target_tokenizer):
    """Two vocabularies. Padding and start are nearly impossible, so that scores are comparable."""
    model = small_model(target_vocabulary_size=13, tie_logits=False)
    norm = model.decoder.layers[-1].join_feed_forward.layer_norm
    norm.gamma.assign(norm.gamma.numpy() * (np.arange(14) > 0))
    norm.beta.assign(np.where(np.arange(14) > 0, norm.beta.numpy(), 1))  # the first output is 1
    kernel = model.logits.kernel.numpy()
    kernel[:, [0, 2]] = -30.0 * (np.arange(14) == 0)[:, None]
    model.logits.kernel.assign(kernel)
    return Translator(model, source_tokenizer, target_tokenizer)


@pytest.fixture(scope="module")
def greedy(translator):
    return translator.n_best(TEXTS, 1, beam_size=1, length_penalty=0)


@pytest.fixture(scope="module")
def beam_of_3(translator):
    return translator.n_best(TEXTS, 1, beam_size=3, length_penalty="average")


# --- CTranslate2


def opened(ctranslate2, folder, **options):
    return ctranslate2.Translator(str(folder), intra_threads=1, **options)


def pieces(tokenizer, ids):
    return [tokenizer.id_to_piece(id) for id in ids]


def source_pieces(tokenizer, ids):
    """Returns the pieces of ids as a text would give them: unknown characters stay as they are."""
    return ["Ω" if id == tokenizer.unknown_id else tokenizer.id_to_piece(id) for id in ids]


def teacher_forced(model, source_rows, target_rows, tokenizer):
    """Returns log-probabilities of the target's ids and its end, without padding and start."""
    end_id = tokenizer.end_id
    rows = [[*row, end_id] for row in source_rows], [[2, *row] for row in target_rows]
    inputs = [np.array([r + [0] * (max(map(len, side)) - len(r)) for r in side]) for side in rows]
    logits = keras.ops.convert_to_numpy(model(dict(source_ids=inputs[0], target_ids=inputs[1])))
    logits[:, :, [tokenizer.pad_id, tokenizer.start_id]] = -np.inf
    log_probs = logits - np.log(np.exp(logits.astype("float64")).sum(axis=-1, keepdims=True))
    for row, target in zip(log_probs, target_rows, strict=True):
        ids = [*target, end_id]
        yield row[range(len(ids)), ids]


def random_pairs(model, source_tokenizer, target_tokenizer):
    """Returns ids of every piece that a text or a search can contain, in rows of many lengths."""
    rng = np.random.default_rng(7)
    special = {target_tokenizer.pad_id, target_tokenizer.start_id, target_tokenizer.end_id}
    rows = []
    for tokenizer in (source_tokenizer, target_tokenizer):
        ids = [id for id in range(tokenizer.vocabulary_size) if id not in special]
        rows.append([rng.choice(ids, length).tolist() for length in (1, 5, 11, 7)])
    return rows


VARIANTS = {
    "paper": {},
    "pre-norm": {"norm": "pre"},
    "untied": {"tie_logits": False},
    "two-vocabularies": {"target_vocabulary_size": 13},
    "larger-than-its-vocabulary": {"vocabulary_size": 29, "target_vocabulary_size": 17},
    "learned": {"positions": "learned", "max_length": 19},
    "no-positions": {"positions": None},
    "bias": {"use_bias": True},
    "logits-bias": {"logits_bias": True},
    "untied-logits-bias": {"tie_logits": False, "logits_bias": True},
    "key-dim": {"key_dim": 5},
    "wide-values": {"key_dim": 3, "value_dim": 5, "use_bias": True},
    "narrow-values": {"key_dim": 5, "value_dim": 3, "use_bias": True},
    "epsilon": {"epsilon": 0.3, "embedding_norm": True},
    **{name: {"activation": name} for name in ("gelu", "swish", "tanh", "sigmoid")},
}


# Fails if: epsilon differs; sinusoids are not interleaved; embeddings are not scaled; keys and
# values are swapped; the source has no end; start and end are swapped; pieces are out of order;
# the unknown piece differs; biases are missing; heads are padded on one side only; embeddings are
# not normalised.
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_model_scores_the_same_in_ctranslate2(
    options, ctranslate2, source_tokenizer, target_tokenizer, tmp_path
):
    model = small_model(**options)
    if model.target_embedding is model.source_embedding:
        target_tokenizer = source_tokenizer
    sources, targets = random_pairs(model, source_tokenizer, target_tokenizer)
    to_ctranslate2(Translator(model, source_tokenizer, target_tokenizer), tmp_path / "export")
    found = opened(ctranslate2, tmp_path / "export").score_batch(
        [source_pieces(source_tokenizer, row) for row in sources],
        [pieces(target_tokenizer, row) for row in targets],
    )
    expected = teacher_forced(model, sources, targets, target_tokenizer)
    for row, log_probs in zip(found, expected, strict=True):
        np.testing.assert_allclose(row.log_probs, log_probs, atol=1e-4)


# With no penalty and enough patience, CTranslate2's beam also continues while the leader could win.
PATIENT = {"beam_size": 3, "length_penalty": 0, "patience": 9}


@pytest.fixture(scope="module")
def plain_beam(translator):
    return translator.n_best(TEXTS, 1, beam_size=3, length_penalty=0)


@pytest.mark.parametrize("options", [{"beam_size": 1, "length_penalty": 0}, PATIENT])
def test_searches_agree_with_ctranslate2(
    options, ctranslate2, translator, greedy, plain_beam, tmp_path
):
    to_ctranslate2(translator, tmp_path / "export")
    found = opened(ctranslate2, tmp_path / "export").translate_batch(
        [translator.tokenizer.pieces(text) for text in [*TEXTS, ""]],
        min_decoding_length=0,
        return_scores=True,
        **options,
    )
    assert found[-1].hypotheses == [[]]
    expected = greedy if options["beam_size"] == 1 else plain_beam
    assert len({tuple(hypothesis.ids) for (hypothesis,) in expected}) >= 3
    for theirs, (ours,) in zip(found[:-1], expected, strict=True):
        assert theirs.hypotheses[0] == pieces(translator.target_tokenizer, ours.ids)
        np.testing.assert_allclose(theirs.scores[0], ours.score, rtol=1e-4)


def test_a_beam_finds_nothing_worse_than_ctranslate2(ctranslate2, translator, beam_of_3, tmp_path):
    """CTranslate2's penalty is length^alpha. Its default, alpha 1, is our "average"."""
    to_ctranslate2(translator, tmp_path / "export")
    found = opened(ctranslate2, tmp_path / "export").translate_batch(
        [translator.tokenizer.pieces(text) for text in TEXTS],
        beam_size=3,
        length_penalty=1,
        min_decoding_length=0,
        return_scores=True,
    )
    same = 0
    for theirs, (ours,) in zip(found, beam_of_3, strict=True):
        assert ours.score >= theirs.scores[0] - 1e-4
        if theirs.hypotheses[0] == pieces(translator.target_tokenizer, ours.ids):
            np.testing.assert_allclose(theirs.scores[0], ours.score, rtol=1e-4)
            same += 1
    assert same > 0


# Fails if: CTranslate2 may emit padding and start.
def test_padding_and_start_are_not_emitted_by_ctranslate2(ctranslate2, source_tokenizer, tmp_path):
    model = small_model(tie_logits=False)
    kernel = model.logits.kernel.numpy()
    kernel[:, [0, 2]] *= 5  # so that they would win sometimes
    model.logits.kernel.assign(kernel)
    to_ctranslate2(Translator(model, source_tokenizer), tmp_path / "export")
    source = source_tokenizer.encode(TEXTS)
    [*found] = opened(ctranslate2, tmp_path / "export").translate_batch(
        [pieces(source_tokenizer, row) for row in source], beam_size=1, max_decoding_length=7
    )
    targets = [
        [source_tokenizer.piece_to_id(piece) for piece in each.hypotheses[0]] for each in found
    ]
    assert all(targets) and not {0, 2}.intersection(*[set(row) for row in targets])
    inputs = {
        "source_ids": np.array([[*row, 3] + [0] * (15 - len(row)) for row in source]),
        "target_ids": np.array([[2, *row] + [0] * (7 - len(row)) for row in targets]),
    }
    best = keras.ops.convert_to_numpy(model(inputs)).argmax(axis=-1)
    emitted = [row[: len(target)] for row, target in zip(best, targets, strict=True)]
    assert np.isin(np.concatenate(emitted), [0, 2]).any()


# Fails if: the example decodes with the source's tokenizer; it does not compose text (NFC).
def test_the_readme_of_a_ctranslate2_model_translates(
    ctranslate2, translator, greedy, tmp_path, monkeypatch, capsys
):
    to_ctranslate2(translator, tmp_path / "export")
    monkeypatch.chdir(tmp_path / "export")
    for side, tokenizer in (
        ("source", translator.tokenizer),
        ("target", translator.target_tokenizer),
    ):
        assert Tokenizer.load(f"{side}.model").model_proto == tokenizer.model_proto
    readme = (tmp_path / "export" / "README.txt").read_text("utf-8")
    code = "".join(f"{line[4:]}\n" for line in readme.splitlines() if line.startswith("    "))
    assert re.findall("import (.*)", code) == ["ctranslate2, sentencepiece, unicodedata"]
    example = '["A sentence .", "", "Another ."]'
    assert example in code and "beam_size=4" in code
    code = code.replace("beam_size=4", "beam_size=1, min_decoding_length=0")
    exec(code.replace(example, repr([*TEXTS, *BLANKS])), {})  # blank lines stay blank
    expected = [found.text for (found,) in greedy] + [""] * len(BLANKS)
    assert capsys.readouterr().out == f"{expected}\n"


def test_the_readme_of_a_ctranslate2_model_names_its_limits(
    ctranslate2, source_tokenizer, tmp_path
):
    model = small_model(tie_logits=False)
    kernel = model.logits.kernel.numpy()
    kernel[:, source_tokenizer.end_id] = 0  # never the most probable, so no translation ends
    model.logits.kernel.assign(kernel)
    to_ctranslate2(Translator(model, source_tokenizer), tmp_path / "export")
    readme = " ".join((tmp_path / "export" / "README.txt").read_text("utf-8").split())
    assert "first 1,024 tokens of a source, the end counted, and writes at most 256" in readme
    assert "pass max_input_length and max_decoding_length to translate_batch, up to 2,048" in readme
    engine = opened(ctranslate2, tmp_path / "export")
    long = pieces(source_tokenizer, np.random.default_rng(3).integers(4, 23, 2047))

    def read(length, **options):
        [found] = engine.translate_batch(
            [long[:length]], beam_size=1, max_decoding_length=1, return_scores=True, **options
        )
        return found.scores

    assert read(1023) == read(1024) == read(2047) == read(2047, max_input_length=1024)
    assert read(1022) != read(1023) and read(2047, max_input_length=2048) != read(2047)
    assert read(2046, max_input_length=2048) != read(2047, max_input_length=2048)

    def written(**options):
        [found] = engine.translate_batch([long[:5]], beam_size=1, **options)
        return len(found.hypotheses[0])

    assert (written(), written(max_decoding_length=300)) == (256, 300)
    learned = small_model(positions="learned", max_length=7)
    to_ctranslate2(Translator(learned, source_tokenizer), tmp_path / "learned")
    readme = " ".join((tmp_path / "learned" / "README.txt").read_text("utf-8").split())
    assert "up to 7 each, the positions that the model has learned; with fewer" in readme


def test_int8_is_small_and_near(ctranslate2, source_tokenizer, tmp_path):
    model = small_model(d_ff=499)
    before = model.get_weights()
    sources, targets = random_pairs(model, source_tokenizer, source_tokenizer)
    for name in ("float32", "int8"):
        to_ctranslate2(Translator(model, source_tokenizer), tmp_path / name, name)
    for weights, same in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, same)

    # The table of positions (2,048 x 14 floats) is not quantised.
    sizes = [(tmp_path / name / "model.bin").stat().st_size for name in ("float32", "int8")]
    assert sizes[1] - 2048 * 14 * 4 < 0.4 * (sizes[0] - 2048 * 14 * 4)
    texts = [pieces(source_tokenizer, row) for row in sources]
    references = [pieces(source_tokenizer, row) for row in targets]
    found = opened(ctranslate2, tmp_path / "int8").score_batch(texts, references)
    errors = np.concatenate(
        [
            row.log_probs - expected
            for row, expected in zip(
                found, teacher_forced(model, sources, targets, source_tokenizer), strict=True
            )
        ]
    )
    # Without VNNI, sums of bytes saturate on x86 processors: 0.4. Unrelated scores of this spread
    # would differ by 0.9.
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8") if cpu.exists() else ""
    saturates = "avx2" in flags and "vnni" not in flags
    assert 1e-4 < np.abs(errors).mean() < (0.5 if saturates else 0.3)


def test_what_ctranslate2_cannot_hold_is_refused(
    translator, source_tokenizer, tmp_path, monkeypatch
):
    model, export = small_model(activation="softplus"), tmp_path / "export"
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    with pytest.raises(ValueError, match="no activation 'softplus': .* one of relu, gelu, silu"):
        to_ctranslate2(Translator(model, source_tokenizer), export)
    with pytest.raises(ValueError, match="got an ensemble of 2: export one of them"):
        to_ctranslate2(Translator([model, model], source_tokenizer), export)
    with pytest.raises(ValueError, match="one of float32, .*; got 'int4'"):
        to_ctranslate2(translator, export, "int4")

    class Doubled(Transformer):
        def encode(self, source_ids):
            memory, mask = super().encode(source_ids)
            return 2 * memory, mask

    [given] = translator.models
    doubled = Doubled(**{k: v for k, v in given.get_config().items() if k != "dtype"})
    plain = keras.Model(given.input, given.output)
    for other, name in ((doubled, "Doubled"), (plain, "Uncached")):
        with pytest.raises(ValueError, match=f"this is a {name} with encode of its own"):
            to_ctranslate2(
                Translator(other, translator.tokenizer, translator.target_tokenizer), export
            )
    quantized = small_model()
    quantized.quantize("int8")
    with pytest.raises(ValueError, match="Export the float model with quantization='int8'"):
        to_ctranslate2(Translator(quantized, source_tokenizer), export)

    class Renamed(Tokenizer):
        def id_to_piece(self, id):
            return "<eos>" if id == self.end_id else super().id_to_piece(id)

    renamed = Renamed(translator.target_tokenizer.model_proto)
    with pytest.raises(ValueError, match=r"'</s>'\) in the source and .*'<eos>'\) in the target"):
        to_ctranslate2(Translator(translator.models, translator.tokenizer, renamed), export)

    monkeypatch.setattr("ctranslate2.specs.model_spec.torch_is_available", False)
    with pytest.raises(ValueError, match="Cannot write bfloat16 weights: .* requires torch"):
        to_ctranslate2(translator, export, "bfloat16")
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(ValueError, match=r"pip install keras-transformer-kit\[ctranslate2\]"):
        to_ctranslate2(translator, export)
    assert list(tmp_path.iterdir()) == []


# --- SavedModel

# `keras` is not blocked, because TensorFlow and tensorflow_text import it.
LOADED_ELSEWHERE = """
import json, sys
sys.modules.update(dict.fromkeys(["keras_transformer", "keras_nlp", "keras_hub", "sentencepiece"]))
import tensorflow as tf, tensorflow_text

model = tf.saved_model.load(sys.argv[1])
for texts in json.load(sys.stdin):
    found = model.signatures["serving_default"](texts=tf.constant(texts, tf.string))
    assert found.keys() == {"translations", "scores"}
    again = model.translate(tf.constant(texts, tf.string))
    assert again["translations"].numpy().tolist() == found["translations"].numpy().tolist()
    translations = [text.decode() for text in found["translations"].numpy()]
    print(json.dumps([translations, found["scores"].numpy().tolist()]))
"""


def elsewhere(folder, batches):
    """Returns a SavedModel's results for lists of texts in a process without this package."""
    run = subprocess.run(
        [sys.executable, "-c", LOADED_ELSEWHERE, str(folder)],
        input=json.dumps(batches),
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


# Fails if: the source has no end; the penalty is always 0.6; text is not composed (NFC); only
# ASCII spaces count as blank; blank texts have a score, or are searched to the limit; both
# vocabularies get the same name.
def test_a_saved_model_translates_alone_as_the_translator(translator, beam_of_3, tmp_path):
    to_saved_model(translator, tmp_path / "1", beam_size=3, length_penalty="average")
    mixed = [text for pair in zip(TEXTS, BLANKS, strict=False) for text in pair]
    batches = [TEXTS, TEXTS[::-1], *[[text] for text in TEXTS[:3]], [], BLANKS, mixed]
    found = elsewhere(tmp_path / "1", batches)
    expected = {text: found for text, (found,) in zip(TEXTS, beam_of_3, strict=True)}
    for texts, (translations, scores) in zip(batches, found, strict=True):
        best = [expected.get(text) for text in texts]
        assert translations == [each.text if each else "" for each in best]
        np.testing.assert_allclose(scores, [each.score if each else 0 for each in best], rtol=1e-4)


# Fails if: an option or the prefix is left out, the prefix takes the room of the translation, or a
# blank text begins with it.
def test_a_saved_model_holds_what_a_translation_must_hold(translator, tmp_path):
    import tensorflow as tf

    options = {"min_length": 6, "no_repeat_ngram": 2, "repetition_penalty": 1.3}
    options |= {"suppress": ["s"], "diversity": 0.5, "prefix": "tu"}
    to_saved_model(translator, tmp_path / "export", 2, 0, **options)
    model = tf.saved_model.load(str(tmp_path / "export"))
    found = model.translate(tf.constant([*TEXTS, " "]))
    expected = [best[0] for best in translator.n_best([*TEXTS, " "], 1, 2, 0, **options)]
    plain = translator.translate(TEXTS, 2, 0)
    texts = [text.decode() for text in found["translations"].numpy()]
    assert texts == [best.text for best in expected]
    assert all(a != b for a, b in zip(texts, plain, strict=False)) and texts[-1] == ""
    np.testing.assert_allclose(found["scores"], [best.score for best in expected], rtol=1e-4)
    readme = (tmp_path / "export" / "README.txt").read_text()
    assert "length penalty 0, prefix 'tu', min_length 6, no_repeat_ngram 2" in readme
    for wrong, says in (
        ({"sampling": Sampling()}, "draws no translations"),
        ({"min_length": -1}, "min_length is an integer"),
        ({"prefix": "tuv", "max_length": 2}, "do not fit into 2"),
    ):
        with pytest.raises(ValueError, match=says):
            to_saved_model(translator, tmp_path / "wrong", **wrong)
    assert not (tmp_path / "wrong").exists()


# Fails if: learned positions set no limit.
@pytest.mark.filterwarnings("ignore:Layer")
def test_a_saved_model_of_an_ensemble_with_learned_positions(
    source_tokenizer, uncompiled, tmp_path, monkeypatch
):
    import tensorflow as tf

    monkeypatch.setattr("uncompiled.TOKENS", 50)  # the limit is that of the positions
    # One is quantised, the other has no cache.
    models = [small_model(positions="learned", max_length=7), small_model(norm="pre")]
    models[0].quantize("int8")
    models[1] = keras.Model(models[1].input, models[1].output)
    ensemble = Translator(models, source_tokenizer)
    to_saved_model(ensemble, tmp_path / "export", beam_size=1)
    model = tf.saved_model.load(str(tmp_path / "export"))
    texts = ["a", "fedcb", ""]
    found = model.translate(tf.constant(texts))
    expected = ensemble.n_best(texts, 1, beam_size=1)
    assert [text.decode() for text in found["translations"].numpy()] == [
        h.text for (h,) in expected
    ]
    np.testing.assert_allclose(found["scores"], [h.score for (h,) in expected], rtol=1e-4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more tokens than the positions"):
        model.translate(tf.constant(["abcdefg"]))


def test_a_saved_model_searches_as_translate_does_by_default():
    ours = inspect.signature(Translator.translate).parameters
    for name in ("beam_size", "length_penalty"):
        assert inspect.signature(to_saved_model).parameters[name].default == ours[name].default


def test_what_makes_no_saved_model_is_refused(translator, tmp_path, monkeypatch):
    for beam_size, penalty, match in (
        (0, 0.6, "at least 1, got 0"),
        (3, -1, "at least 0 and at most 10, got -1"),
        (3, "avg", "got 'avg'"),
    ):
        with pytest.raises(ValueError, match=match):
            to_saved_model(translator, tmp_path / "export", beam_size, penalty)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="this is jax: set KERAS_BACKEND=tensorflow"):
        to_saved_model(translator, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


# --- the folder, the command


@pytest.fixture
def run(tmp_path, source_tokenizer):
    """A run directory with two checkpoints."""
    model = small_model()
    model.compile(optimizer="sgd", loss="mse")
    with RunDirectory.start(tmp_path / "run", {}) as directory:
        for update in (1, 2):
            random_weights(model, seed=update)
            directory.save_checkpoint(model, update, {})
    source_tokenizer.save(tmp_path / "run" / "tokenizer.model")
    return tmp_path / "run"


def command(capsys, *arguments):
    """Runs a command and returns its status and the last line on stderr."""
    capsys.readouterr()
    status = cli.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().err.splitlines()[-1]


def export(capsys, run, output, *options):
    return command(capsys, "export", run, "--format", "ctranslate2", "--output", output, *options)


def test_the_command_exports_the_weights_asked_for(ctranslate2, run, tmp_path, capsys):
    for name, options in {
        "last": [],
        "1": ["--weights=1"],
        "int8": ["--quantization=int8"],
    }.items():
        status, said = export(capsys, run, tmp_path / name, *options)
        assert (status, said) == (0, f"How to use it:  cat {tmp_path / name}/README.txt")
    for name, weights in (("last", "2"), ("1", "1")):
        to_ctranslate2(load_translator(run, weights), tmp_path / "again")
        for path in (tmp_path / "again").iterdir():
            assert path.read_bytes() == (tmp_path / name / path.name).read_bytes()
        assert {path.name for path in (tmp_path / "again").iterdir()} == {
            *("README.txt", "config.json", "model.bin", "shared_vocabulary.json"),
            "tokenizer.model",
        }
        os.rename(tmp_path / "again", tmp_path / f"again-{name}")
    sizes = [(tmp_path / name / "model.bin").stat().st_size for name in ("last", "int8")]
    assert sizes[1] < sizes[0]


# Fails if: an existing folder is overwritten; a half-written one is left.
def test_nothing_is_overwritten_and_nothing_left_behind(
    ctranslate2, translator, run, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "output"
    output.mkdir()
    for write in (to_ctranslate2, to_saved_model):
        with pytest.raises(ValueError, match="output exists and is not overwritten"):
            write(translator, output)
    assert export(capsys, run, output)[0] == 1 and list(output.iterdir()) == []
    output.rmdir()
    output.symlink_to(tmp_path / "nowhere")
    status, said = export(capsys, run, output)
    assert status == 1 and "output exists and is not overwritten" in said
    output.unlink()

    status, said = export(capsys, run, tmp_path / "no" / "output")
    assert status == 1 and f"No folder {tmp_path / 'no'} to write output in: make" in said

    error = OSError("No space left on device")

    def full(*_, **__):
        assert len(list(tmp_path.iterdir())) == 2  # the export is half written
        raise error

    monkeypatch.setattr(to_ct2, "save_tokenizers", full)
    assert export(capsys, run, output) == (
        1,
        "keras-transformer export: error: No space left on device",
    )
    import tensorflow as tf

    monkeypatch.setattr("tensorflow.saved_model.save", full)
    error = tf.errors.ResourceExhaustedError(None, None, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        to_saved_model(translator, output)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# Fails if: an option does not reach the SavedModel.
def test_a_saved_model_gets_the_options_of_the_command(run, tmp_path, capsys, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "keras_transformer.interop.to_saved_model",
        lambda translator, folder, **options: given.update(options),
    )
    options = ["--beam-size=2", "--prefix=tu", "--min-length=3", "--suppress", "s", "t"]
    assert export(capsys, run, tmp_path / "o", "--format=saved_model", *options)[0] == 0
    wanted = {"beam_size": 2, "prefix": "tu", "min_length": 3, "suppress": ["s", "t"]}
    assert {name: given[name] for name in wanted} == wanted
    assert given["repetition_penalty"] == 1 and given["max_length"] is None


def test_wrong_runs_and_options_are_refused(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    RunDirectory.start(tmp_path / "untrained", {}).close()
    for path in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "untrained"):
        status, said = export(capsys, path, tmp_path / "output")
        assert (status, said) == (1, command(capsys, "translate", path)[1].replace(
            "keras-transformer translate:", "keras-transformer export:"
        ))  # fmt: skip
    for options in (["--beam-size=4"], ["--length-penalty=0"]):
        status, said = export(capsys, run, tmp_path / "output", *options)
        assert status == 1 and f"ctranslate2 has no {options[0].split('=')[0]}" in said
    saved_model = ["--format=saved_model", "--quantization=int8"]
    assert (
        "saved_model has no --quantization" in export(capsys, run, tmp_path / "o", *saved_model)[1]
    )
    said = export(capsys, run, tmp_path / "o", "--suppress", "s", "t")[1]
    assert "--suppress has an effect only with --format saved_model" in said
    status, said = export(capsys, run, tmp_path / "output", "--quantization=int3")
    assert status == 1 and "--quantization int3: expected one of float32" in said
    assert not (tmp_path / "output").exists()
