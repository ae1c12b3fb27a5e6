"""Tests that ONNX Runtime and LiteRT compute what exported models compute."""

import sys

import keras
import numpy as np
import pytest

from keras_transformer import models

pytestmark = pytest.mark.tensorflow_only

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


def random_weights(model):
    rng = np.random.default_rng(3)
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
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning")
@pytest.mark.parametrize(("name", "format"), exports())
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
