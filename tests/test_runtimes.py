"""Tests that ONNX Runtime and LiteRT compute what our models compute, and translate as they do."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_transformer import Translator, cli, interop, load_translator, models
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.text import train_tokenizer

pytestmark = [
    pytest.mark.tensorflow_only,
    pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning"),
]

SIZES = {"num_layers": 1, "d_model": 14, "num_heads": 2}
VOCABULARY, LONGEST = 23, 17
# {name: (model, its inputs: {name: rank 2 of ids, or the shape of one image})}
MODELS = {
    "transformer": (
        lambda: models.Transformer(VOCABULARY, d_ff=31, **SIZES),
        ("source_ids", "target_ids"),
    ),
    "variant": (
        lambda: models.Transformer(
            VOCABULARY,
            d_ff=31,
            **SIZES,
            num_decoder_layers=2,
            norm="pre",
            activation="gelu",
            positions="learned",
            max_length=LONGEST,
            tie_logits=False,
            use_bias=True,
            key_dim=5,
            value_dim=3,
        ),
        ("source_ids", "target_ids"),
    ),
    "causal": (
        lambda: models.CausalLanguageModel(VOCABULARY, max_length=LONGEST, **SIZES),
        ("token_ids",),
    ),
    "masked": (
        lambda: models.MaskedLanguageModel(VOCABULARY, max_length=LONGEST, **SIZES),
        ("masked_positions", "token_ids"),
    ),
    "classifier": (
        lambda: models.TextClassifier(VOCABULARY, 3, max_length=LONGEST, **SIZES),
        ("token_ids",),
    ),
    "vision": (
        lambda: models.VisionTransformer((6, 10, 2), 5, patch_size=2, **SIZES),
        ("images",),
    ),
}


def random_inputs(names, rows, length):
    """Returns ids with padding at the ends of rows, and a row that is all padding."""
    rng, found = np.random.default_rng(rows * length), {}
    for number, name in enumerate(names):
        if name == "images":
            found[name] = rng.normal(size=(rows, 6, 10, 2)).astype("float32")
        elif name == "masked_positions":
            found[name] = rng.integers(0, length, (rows, 3), "int32")
        else:
            ids = rng.integers(1, VOCABULARY, (rows, length + number), "int32")
            lengths = rng.integers(0, length + 1, (rows, 1))
            lengths[0] = length + number
            found[name] = ids * (np.arange(length + number) < lengths)
    return found


def expected_of(model, inputs):
    [*values] = inputs.values()
    return keras.ops.convert_to_numpy(model(inputs if len(values) > 1 else values[0]))


def random_weights(model, seed=3):
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(rng.normal(variable.name == "gamma", 0.3, variable.shape))


class Onnx:
    """A file in ONNX Runtime."""

    suffix = ".onnx"

    def __init__(self, path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(path))
        self.names = [each.name for each in self.session.get_inputs()]

    def __call__(self, inputs):
        [found] = self.session.run(None, inputs)
        return found


class LiteRt:
    """A file in the interpreter of ai-edge-litert."""

    suffix = ".tflite"

    def __init__(self, path):
        from ai_edge_litert.interpreter import Interpreter

        self.run = Interpreter(str(path)).get_signature_runner()
        self.names = list(self.run.get_input_details())

    def __call__(self, inputs):
        [found] = self.run(**inputs).values()
        return found


RUNTIMES = {"onnx": (Onnx, ("tf2onnx", "onnxruntime")), "litert": (LiteRt, ("ai_edge_litert",))}


def runtime_of(format):
    runtime, packages = RUNTIMES[format]
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed")
    return runtime


def exports():
    """Every model in every format: two in the fast tier, because each takes seconds."""
    fast = {("transformer", "onnx"), ("classifier", "litert")}
    for name in MODELS:
        for format in RUNTIMES:
            marks = () if (name, format) in fast else pytest.mark.slow
            yield pytest.param(name, format, marks=marks)


# Fails if: attention in blocks is exported; a mask is left out or added twice; an operation of
# TensorFlow is left in a LiteRT file; erfc(x) is erf(x) or 1 + erf(x); a length is fixed.
@pytest.mark.parametrize(("name", "format"), list(exports()))
def test_a_runtime_computes_what_the_model_computes_at_every_length(name, format, tmp_path):
    make, inputs = MODELS[name]
    runtime, model = runtime_of(format), make()
    random_weights(model)
    path = tmp_path / f"model{runtime.suffix}"
    model.export(path, format=format, verbose=False)
    run = runtime(path)
    assert sorted(run.names) == sorted(inputs)
    for rows, length in ((1, 1), (1, 7), (3, 5), (2, LONGEST - 1)):
        values = random_inputs(inputs, rows, length)
        expected = expected_of(model, values)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(run(values), expected, atol=1e-4)


def small_classifier(**options):
    return models.TextClassifier(VOCABULARY, 3, max_length=LONGEST, **{**SIZES, **options})


@keras.saving.register_keras_serializable(package="tests")
def quantile(x):
    return keras.ops.erfinv(keras.ops.tanh(x))


# Fails if: tf2onnx's broken file is left; LiteRT's converter may use TensorFlow's operations.
@pytest.mark.parametrize("format", ["onnx", pytest.param("litert", marks=pytest.mark.slow)])
def test_an_operation_that_the_format_lacks_is_named(format, tmp_path):
    path = tmp_path / f"model{runtime_of(format).suffix}"
    with pytest.raises(ValueError, match=r"(?s)lacks (an operation|operations) of .*Erfinv"):
        small_classifier(activation=quantile).export(path, format=format, verbose=False)
    assert list(tmp_path.iterdir()) == []


# Fails if: a file computes in half precision, which neither runtime loads; the copy has other
# weights; integers are multiplied as bytes.
@pytest.mark.filterwarnings("ignore:Layer")  # without a method `quantize`
@pytest.mark.parametrize(
    ("format", "dtype"),
    [
        pytest.param("onnx", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("onnx", "int8", marks=pytest.mark.slow),
        pytest.param("litert", "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_half_precision_is_exported_as_float32_and_int8_as_it_is(format, dtype, tmp_path):
    runtime, inputs = runtime_of(format), random_inputs(["token_ids"], 3, 7)
    policy = "float32" if dtype == "int8" else dtype
    model, plain = small_classifier(dtype=policy), small_classifier()
    random_weights(plain)
    model.set_weights(plain.get_weights())
    if dtype == "int8":
        model.quantize("int8")
        plain = model
    path = tmp_path / f"model{runtime.suffix}"
    model.export(path, format=format, verbose=False)
    np.testing.assert_allclose(runtime(path)(inputs), expected_of(plain, inputs), atol=1e-4)


@pytest.mark.filterwarnings("ignore:Layer")  # without a method `quantize`
def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    model, path = small_classifier(), tmp_path / "model.tflite"
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ValueError, match=r"needs tf2onnx, .*: pip install keras-.*\[onnx\]"):
        model.export(path, format="onnx")
    quantised = small_classifier()
    quantised.quantize("int8")
    with pytest.raises(ValueError, match="Export the float model, with optimizations="):
        quantised.export(path, format="litert")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for format in RUNTIMES:
        with pytest.raises(ValueError, match="is written on the tensorflow backend, this is jax"):
            model.export(path, format=format)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    for lengths in ((None, 7), (1, None)):
        signature = [keras.InputSpec(shape=lengths, dtype="int32")]
        with pytest.raises(ValueError, match="torch backend format='onnx' takes fixed lengths"):
            model.export(path, format="onnx", input_signature=signature)
    assert list(tmp_path.iterdir()) == []


# --- translators

# More than the 32 lines that the script translates at once. The last two are the same text, with é
# composed and decomposed.
TEXTS = [
    "abc",
    "fedcba",
    "r",
    "",
    "hgfedhgfed a",
    " ",
    "a b\u2028c",
    "bébé q",
    "be\u0301be\u0301 q",
] * 4
# A process without TensorFlow, Keras and this package.
ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(["keras_transformer", "keras", "tensorflow", "jax", "torch"]))
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def translated_alone(folder, texts):
    """Returns what the script of a translator prints for lines of text."""
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder / "translate.py")],
        input="".join(f"{text}\n" for text in texts),
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.removesuffix("\n").split("\n")


def character_tokenizer(letters):
    return train_tokenizer([f"{letter} " for letter in letters], 256, model_type="char")


def write_run(path, seed=29, **options):
    """Writes a run directory of a model with random weights and two vocabularies."""
    sizes = {**SIZES, "d_ff": 31, "target_vocabulary_size": 13, **options}
    model = models.Transformer(24, **sizes)
    random_weights(model, seed)
    if model.logits is not None:
        kernel = model.logits.kernel.numpy()
        kernel[:, [0, 2]] *= 3  # so that padding and start would win sometimes
        model.logits.kernel.assign(kernel)
    model.compile(optimizer="sgd", loss="mse")
    with RunDirectory.start(path, {}) as directory:
        directory.save_checkpoint(model, 1, {})
    character_tokenizer("abcdefghijklmnopqré").save(path / "source.model")
    character_tokenizer("stuvwxyz").save(path / "target.model")
    return path


# The seeds give translations of several letters and lengths.
VARIANTS = {
    "plain": {"seed": 29, "tie_logits": False},
    "learned": {
        "seed": 15,
        "positions": "learned",
        "max_length": 19,
        "num_decoder_layers": 2,
        "tie_logits": False,
    },
    "half": {
        "seed": 38,
        "norm": "pre",
        "activation": "gelu",
        "key_dim": 5,
        "dtype": "mixed_float16",
    },
}


# Fails if: the source has no end; padding or the start is chosen; the limit is another, or its last
# token is not the end; the cache is not passed on; blank texts are searched; the text is not NFC;
# the script needs this package; more than 32 lines are mixed up.
@pytest.mark.parametrize(
    ("variant", "format"),
    [
        ("plain", "onnx"),
        *(
            pytest.param(variant, format, marks=pytest.mark.slow)
            for variant in VARIANTS
            for format in RUNTIMES
            if (variant, format) != ("plain", "onnx")
        ),
    ],
)
def test_the_script_of_a_translator_translates_as_greedy_search(variant, format, tmp_path, capsys):
    runtime_of(format)
    run, folder = write_run(tmp_path / "run", **VARIANTS[variant]), tmp_path / "export"
    assert cli.main(["export", str(run), "--format", format, "--output", str(folder)]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"How to use it:  cat {folder}/README.txt"
    readme = (folder / "README.txt").read_text("utf-8").partition("translate.py:\n\n")[2]
    code = "".join(f"{line[4:]}\n" for line in readme.splitlines())
    assert code == (folder / "translate.py").read_text("utf-8")

    translator = load_translator(run)
    if variant == "half":
        translator.models[0] = in_full_precision(translator.models[0])
    expected = translator.translate(TEXTS, beam_size=1)
    assert len(set(expected)) >= 4 and min(map(len, expected)) == 0
    assert translated_alone(folder, TEXTS) == expected


def in_full_precision(model):
    copy = type(model).from_config({**model.get_config(), "dtype": "float32"})
    copy.set_weights(model.get_weights())
    return copy


def test_the_script_is_short_and_imports_little():
    for format, package in (("onnx", "onnxruntime"), ("litert", "ai_edge_litert")):
        lines = interop.runner.script(format).splitlines()
        assert len(lines) <= 65 and max(map(len, lines)) <= 100
        found = {
            name.split(".")[0]
            for line in lines
            if line.startswith(("import ", "from "))
            for name in line.removeprefix("import ")
            .removeprefix("from ")
            .split(" import")[0]
            .split(", ")
        }
        standard = {"json", "pathlib", "sys", "unicodedata"}
        assert found == standard | {"numpy as np", "sentencepiece", package}


def test_what_makes_no_translator_is_refused(tmp_path, monkeypatch):
    translator = load_translator(write_run(tmp_path / "run"))
    model, tokenizers = translator.models[0], (translator.tokenizer, translator.target_tokenizer)
    for write in (interop.to_onnx, interop.to_litert):
        with pytest.raises(ValueError, match="got an ensemble of 2: export one of them"):
            write(Translator([model, model], *tokenizers), tmp_path / "export")
        plain = keras.Model(model.input, model.output)
        with pytest.raises(ValueError, match="cache of a Transformer, and this is a Uncached"):
            write(Translator(plain, *tokenizers), tmp_path / "export")
        with pytest.raises(ValueError, match="run exists and is not overwritten"):
            write(translator, tmp_path / "run")
    for option in ("--quantization=int8", "--beam-size=1", "--length-penalty=0"):
        arguments = ["--format=onnx", f"--output={tmp_path / 'export'}", option]
        assert cli.main(["export", str(tmp_path / "run"), *arguments]) == 1
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for write in (interop.to_onnx, interop.to_litert):
        with pytest.raises(ValueError, match="tensorflow backend, this is jax: set KERAS_BACKEND"):
            write(translator, tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# Fails if: a folder is left when a converter fails.
def test_nothing_is_left_of_a_translator_that_was_not_finished(tmp_path, monkeypatch):
    runtime_of("onnx")
    translator = load_translator(write_run(tmp_path / "run"))

    def full(*_, **__):
        assert len(list(tmp_path.iterdir())) == 2  # the export is half written
        raise OSError("No space left on device")

    monkeypatch.setattr("tf2onnx.convert.from_function", full)
    with pytest.raises(OSError, match="No space"):
        interop.to_onnx(translator, tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
