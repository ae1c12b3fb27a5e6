"""The contract of every model: one wiring, which subclasses may override, and Keras' features."""

import keras
import numpy as np
import pytest
from keras import ops
from recurrent_models import RecurrentSeq2Seq

from keras_transformer import losses, models, testing
from keras_transformer.optimizers import PaperAdam

V, B, S, T, P = 19, 3, 7, 5, 2
SIZES = {"num_layers": 1, "d_model": 14, "num_heads": 2, "d_ff": 17}
RECURRENT = {"units": 6, "attention": "additive", "num_layers": 1, "d_model": 14}
IDS = testing.random_inputs(V, B, S, T)
HIDDEN = {"token_ids": IDS["source_ids"], "masked_positions": np.array([[0, 3], [2, 1], [1, 0]])}
IMAGES = np.random.default_rng(1).normal(size=(B, 6, 6, 1)).astype("float32")
# Eagerly JAX compiles every operation by itself; tests/test_transformer.py has that.
JIT = {"jit": keras.backend.backend() == "jax"}
# Class, arguments, example inputs, methods that wire it.
MODELS = {
    "transformer": (
        models.Transformer,
        (V,),
        {**SIZES, "tie_logits": False},
        IDS,
        ["encode", "decode"],
    ),
    "causal": (
        models.CausalLanguageModel,
        (V,),
        {**SIZES, "max_length": S},
        IDS["source_ids"],
        ["decode"],
    ),
    "masked": (
        models.MaskedLanguageModel,
        (V,),
        {**SIZES, "max_length": S},
        HIDDEN,
        ["encode", "decode"],
    ),
    "classifier": (
        models.TextClassifier,
        (V, 3),
        {**SIZES, "max_length": S},
        IDS["source_ids"],
        ["classify"],
    ),
    "vision": (models.VisionTransformer, ((6, 6, 1), 3, 2), SIZES, IMAGES, ["classify"]),
    "recurrent": (RecurrentSeq2Seq, (V,), RECURRENT, IDS, ["encode", "decode"]),
}
every_model = pytest.mark.parametrize("name", MODELS)


def make(name, model_class=None, **options):
    base, positional, sizes, _, _ = MODELS[name]
    keras.utils.set_random_seed(3)
    return (model_class or base)(*positional, **sizes, **options)


def array(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def changed(tensor):
    """Changes a tensor of floats, and keeps its shape. Other tensors stay as they are."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
        return tensor
    return ops.flip(tensor, axis=-1)


def overriding(name):
    """Returns a registered subclass whose wiring methods change their first result."""
    base, *_, methods = MODELS[name]

    def override(method):
        def overridden(self, *args, **kwargs):
            result = getattr(base, method)(self, *args, **kwargs)
            if isinstance(result, tuple):
                return keras.tree.map_structure(changed, result[0]), *result[1:]
            return changed(result)

        return overridden

    subclass = type(name, (base,), {method: override(method) for method in methods})
    return keras.saving.register_keras_serializable(package="test_models")(subclass)


# --- one wiring


@every_model
def test_overridden_methods_are_trained_saved_loaded_and_decoded_with(name, tmp_path):
    # Fails if: the graph calls a method of the base class; a saved class is loaded as its base.
    base, _, _, inputs, methods = MODELS[name]
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    mine = make(name, overriding(name))
    trained = array(mine(inputs))
    np.testing.assert_allclose(array(mine.wire(inputs)), trained, atol=1e-5)
    for method in methods:  # the same weights, and one method of the base class
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(mine), method, getattr(base, method))
            assert np.abs(array(mine.wire(inputs)) - trained).max() > 1e-2, method
    mine.save(tmp_path / "mine.keras")
    loaded = keras.models.load_model(tmp_path / "mine.keras")
    assert type(loaded) is type(mine)
    np.testing.assert_array_equal(array(loaded(inputs)), trained)
    if hasattr(mine, "encode") and hasattr(mine, "start_cache"):
        testing.assert_cached_equals_uncached(mine, MODELS[name][3], rewinds=False, **JIT)


@keras.saving.register_keras_serializable(package="test_models")
class Gated(models.Transformer):
    """A subclass with a layer and an argument of its own."""

    def __init__(self, *args, gate="sigmoid", **kwargs):
        self.gate = gate
        super().__init__(*args, **kwargs)

    def make_layers(self, dtype, **sizes):
        layer = keras.layers.Dense(sizes["d_model"], activation=self.gate, name="gate")
        return {**super().make_layers(dtype, **sizes), "gate_layer": layer}

    def encode(self, source_ids):
        memory, mask = super().encode(source_ids)
        return memory * self.gate_layer(memory), mask

    def get_config(self):
        return {**super().get_config(), "gate": self.gate}


def test_layers_of_a_subclass_are_trained_and_saved():
    model = Gated(V, **SIZES, gate="tanh", dropout=0.0)
    testing.assert_wired(model, IDS)
    testing.assert_saves_and_loads(model, IDS)
    before = [np.array(w) for w in model.gate_layer.get_weights()]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(IDS, np.ones((B, T)))
    assert all((a != b).any() for a, b in zip(before, model.gate_layer.get_weights(), strict=True))
    testing.assert_wired(model, IDS)
    features = model.feature_extractor()
    np.testing.assert_allclose(
        array(features(IDS["source_ids"])), array(model.encode(IDS["source_ids"])[0]), atol=1e-6
    )
    # The model keeps the mask, although the product in `encode` loses it.
    pooled = keras.layers.GlobalAveragePooling1D()
    short = IDS["source_ids"][1:2]
    real = int((short != 0).sum())
    np.testing.assert_allclose(
        array(pooled(features(short))), array(pooled(features(short[:, :real]))), atol=1e-5
    )


def test_a_layer_made_too_late_is_explained():
    class Late(models.Transformer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.late = keras.layers.Dense(14)

        def encode(self, source_ids):
            memory, mask = super().encode(source_ids)
            return self.late(memory), mask

    with pytest.raises(AttributeError, match="late") as error:
        Late(V, **SIZES)
    assert "Let make_layers return their layers" in error.value.__notes__[0]


# --- files


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("causal", ["embedding", "decoder"]),
        ("masked", ["embedding", "encoder"]),
        ("classifier", ["embedding", "encoder", "classes"]),
        ("vision", ["embedding", "encoder", "logits"]),
    ],
)
def test_files_know_the_weights_by_these_layers_in_this_order(name, layers):
    # Fails if: a layer gets another name or place, so that earlier files cannot be loaded.
    paths = [weight.path.split("/")[0] for weight in make(name).weights]
    assert list(dict.fromkeys(paths)) == layers


# Fails if: on JAX a copy shares arrays with its model, which a compiled step of one gives away.
@pytest.mark.parametrize("way", ["merge_lora", "take_encoder"])
def test_a_copy_owns_its_weights(way):
    model, inputs = make("classifier"), MODELS["classifier"][3]
    expected = array(model(inputs))
    if way == "merge_lora":
        copy = model.merge_lora()
    else:
        copy = make("classifier")
        copy.take_encoder(model)
    copy.compile(loss="mse")
    copy.evaluate(inputs, np.ones((B, 3)), verbose=0)
    np.testing.assert_array_equal(array(model(inputs)), expected)


# --- frozen


# Fails if: a file forgets which parts are frozen, so that Keras also leaves out what the optimizer
# knows; or if parts whose layers LoRA froze stay frozen without its adapters.
@pytest.mark.parametrize(
    ("name", "deep"), [(name, deep) for name in MODELS for deep in (False, True)]
)
def test_frozen_parts_are_frozen_in_a_loaded_model(name, deep, tmp_path):
    model = make(name)
    parts = model._flatten_layers(include_self=False) if deep else model.layers
    part = [layer for layer in parts if layer.trainable_weights][-1]
    part.trainable = False
    expected = [weight.trainable for weight in model.weights]
    assert 0 < sum(expected) < len(make(name).trainable_weights)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert [weight.trainable for weight in copy.weights] == expected
    adapted = make(name)
    adapted.enable_lora(2, ["combine"] if name == "recurrent" else ["query"])
    assert len(adapted.merge_lora().trainable_weights) == len(make(name).trainable_weights)


@pytest.mark.tensorflow_only
def test_a_loaded_model_with_a_frozen_part_goes_on_with_its_optimizer(tmp_path):
    model = make("transformer")
    model.encoder.trainable = False
    model.compile(PaperAdam(8), losses.SmoothedCrossentropy(), run_eagerly=True)
    model.fit(IDS, IDS["target_ids"], verbose=0)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert int(copy.optimizer.iterations) == int(model.optimizer.iterations) == 1


# --- quantised


# Fails if: an average is asked of the scales of float8, which have none.
@pytest.mark.filterwarnings("ignore:Layer")
def test_a_model_in_float8_is_trained_with_averages(tmp_path):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras trains no float8 on PyTorch")
    model = make("transformer")
    model.quantize("float8")
    model.compile(PaperAdam(8, use_ema=True), losses.SmoothedCrossentropy())
    before = model.get_weights()
    model.fit(IDS, IDS["target_ids"], verbose=0)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(name, mode, marks=pytest.mark.slow if wide else ())
        for name in MODELS
        for mode, wide in (("int8", False), ("int4", name != "transformer"), ("float8", False))
    ],
)
def test_a_quantised_model_computes_nearly_the_same_and_is_saved(name, mode):
    # Fails if: a layer multiplies the integers of a quantised kernel; a file forgets the mode; a
    # model refuses the mode, which the certificate accepts.
    model = make(name)
    testing.assert_quantizes(model, MODELS[name][3], mode)
    assert any(layer.quantization_mode == mode for layer in model._flatten_layers())


# Fails if: a projection or an embedding keeps its float weights.
@pytest.mark.filterwarnings("ignore:Layer")
@pytest.mark.parametrize(("mode", "share"), [("int8", 0.3), ("int4", 0.2)])
def test_quantised_weights_are_smaller(mode, share):
    model = models.Transformer(1000, num_layers=1, d_model=128, num_heads=2, d_ff=512)
    sizes = [bytes_of(model)]
    model.quantize(mode)
    sizes.append(bytes_of(model))
    assert sizes[1] <= share * sizes[0], sizes


def bytes_of(model):
    return sum(ops.convert_to_numpy(weight).nbytes for weight in model.weights)


@pytest.mark.filterwarnings("ignore:Layer")
def test_a_quantised_model_holds_integers_and_can_be_quantised_in_part(tmp_path):
    model = make("transformer", dtype="mixed_bfloat16")
    model.quantize("int8", filters="inner")
    policies = {layer.path: layer.quantization_mode for layer in model._flatten_layers()}
    quantized = {path for path, mode in policies.items() if mode}
    assert quantized == {f"{stack}/layer_0/feed_forward/inner" for stack in ("encoder", "decoder")}
    inner = model.encoder.layers[0].feed_forward.inner
    assert keras.backend.standardize_dtype(inner.kernel.dtype) == "int8"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded(IDS)), array(model(IDS)))
    assert loaded.get_config() == model.get_config()
    testing.assert_cached_equals_uncached(model, IDS, tolerance=0.2, **JIT)


@pytest.mark.filterwarnings("ignore:Layer")
def test_what_cannot_be_quantised_is_refused():
    model = make("transformer")
    before = array(model(IDS))
    config = keras.quantizers.GPTQConfig(dataset=["a"], tokenizer=str)
    with pytest.raises(ValueError, match=r"quantize\('gptq'\) needs to know the blocks of a Trans"):
        model.quantize(config=config)
    np.testing.assert_array_equal(array(model(IDS)), before)
    model.quantize(config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
    assert np.abs(array(model(IDS)) - before).max() < 0.1
    with pytest.raises(ValueError, match="activation_quantizer=None, which is not Keras' default"):
        model.get_config()
