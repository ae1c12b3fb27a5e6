"""LoRA (Hu et al., 2021) on every model: what trains, what a file holds, what merging gives."""

import zipfile

import keras
import numpy as np
import pytest
from keras import ops
from test_models import IDS, MODELS, array, every_model, make

from keras_transformer import losses, testing

RANK = 2


def inputs_of(name):
    return keras.tree.map_structure(ops.convert_to_tensor, MODELS[name][3])


def targets_of(name):
    return ("combine",) if name == "recurrent" else ("query", "value")


def adapted(name, trained=True, **options):
    """Returns a model with adapters that are no longer zero, unless `trained` is False."""
    model = make(name)
    model.enable_lora(RANK, **{"targets": targets_of(name), **options})
    if trained:
        random = np.random.default_rng(4)
        for weight in model.trainable_weights:
            weight.assign(random.normal(scale=0.5, size=weight.shape))
    return model


# Fails if: the second matrix does not begin at 0; a frozen weight still trains.
@every_model
def test_at_first_nothing_changes_and_only_the_adapters_train(name, uncompiled):
    plain, model = make(name), adapted(name, trained=False)
    inputs = inputs_of(name)
    np.testing.assert_array_equal(array(model(inputs)), array(plain(inputs)))
    assert {weight.name for weight in model.trainable_weights} == {"lora_kernel_a", "lora_kernel_b"}
    model = adapted(name)
    before = {weight.path: array(weight) for weight in model.weights}
    labels = np.zeros(array(model(inputs)).shape[:-1], "int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), loss)
    model.fit(MODELS[name][3], labels, verbose=0)
    after = {weight.path: array(weight) for weight in model.weights}
    changed = {path for path in after if (after[path] != before[path]).any()}
    assert changed == {weight.path for weight in model.trainable_weights}


# Fails if: a layer multiplies the kernel without its adapter; merging forgets alpha / rank.
@every_model
def test_an_adapted_model_is_the_one_whose_weights_are_merged(name):
    model = adapted(name, alpha=3.0)
    expected = array(model(inputs_of(name)))
    assert np.abs(expected - array(make(name)(inputs_of(name)))).max() > 1e-3
    layers = {layer.path: layer for layer in make(name)._flatten_layers()}
    for layer in model._flatten_layers():
        if getattr(layer, "lora_enabled", False):
            product = array(layer.lora_kernel_a) @ array(layer.lora_kernel_b)
            kernel = array(layers[layer.path].kernel) + 3.0 / RANK * product
            np.testing.assert_allclose(array(layer.kernel), kernel, atol=1e-5)
    merged = model.merge_lora()
    assert merged.count_params() == make(name).count_params()
    np.testing.assert_allclose(array(merged(inputs_of(name))), expected, atol=1e-4)


# Fails if: the file holds base weights; a layer's matrices go to another layer.
@every_model
def test_a_file_of_adapters_gives_a_base_model_the_adapted_outputs(name, tmp_path):
    model, base = adapted(name, alpha=3.0), make(name)
    model.save_adapter(tmp_path / "adapter.npz")
    with zipfile.ZipFile(tmp_path / "adapter.npz") as file:
        assert len(file.namelist()) == 1 + len(model.trainable_weights)
    base.load_adapter(tmp_path / "adapter.npz")
    expected = array(model(inputs_of(name)))
    np.testing.assert_array_equal(array(base(inputs_of(name))), expected)
    base.load_adapter(tmp_path / "adapter.npz")  # onto adapters that are there
    np.testing.assert_array_equal(array(base(inputs_of(name))), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(array(loaded(inputs_of(name))), expected, atol=1e-4)


def test_an_adapted_model_is_certified_and_has_adapters_everywhere_they_are_asked_for():
    every = ("query", "key", "value", "output", "inner", "outer", "token")
    model = adapted("transformer", targets=every)
    testing.assert_cached_equals_uncached(model, IDS)
    # Encoder: 4 + 2 matrices; decoder: 8 + 2; an embedding. Two weights each.
    assert len(model.trainable_weights) == 2 * (6 + 10 + 1)
    # Random adapters are far larger than trained ones.
    testing.assert_quantizes(model.merge_lora(), IDS, "int8", tolerance=0.5)


# Fails if: the bits of a quantised kernel are read as its numbers.
def test_a_quantised_model_learns_by_adapters():
    model = make("transformer")
    model.quantize("int8")
    expected = array(model(inputs_of("transformer")))
    model.enable_lora(RANK)
    np.testing.assert_array_equal(array(model(inputs_of("transformer"))), expected)
    model.compile("adam", losses.SmoothedCrossentropy())
    model.fit(IDS, IDS["target_ids"], verbose=0)
    assert np.abs(array(model(inputs_of("transformer"))) - expected).max() > 1e-4


def test_what_was_compiled_before_is_compiled_anew():
    model = make("classifier")
    before = model.predict(MODELS["classifier"][3], verbose=0)
    model.enable_lora(RANK)
    for weight in model.trainable_weights:
        weight.assign(ops.ones(weight.shape))
    assert np.abs(model.predict(MODELS["classifier"][3], verbose=0) - before).max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rank": 0}, "rank is a whole number of at least 1, got 0"),
        ({"rank": 2, "targets": ("query", "keys")}, "no keys. Choose among its layers: inner, key"),
        ({"rank": 2, "targets": ()}, "Choose among its layers: inner, key"),
    ],
)
def test_what_cannot_be_adapted_is_refused_and_changes_nothing(arguments, said):
    model = make("transformer")
    with pytest.raises(ValueError, match=said):
        model.enable_lora(**arguments)
    assert len(model.trainable_weights) == len(model.weights)


def test_adapters_come_once_and_before_training():
    model = adapted("classifier")
    with pytest.raises(ValueError, match="LoRA is enabled already"):
        model.enable_lora(RANK)
    trained = make("classifier")
    trained.compile("adam", "mse")
    trained.optimizer.build(trained.trainable_variables)
    with pytest.raises(ValueError, match="Call enable_lora\\(\\) before training"):
        trained.enable_lora(RANK)
    with pytest.raises(ValueError, match="no adapter to save"):
        trained.save_adapter("adapter.npz")


# Fails if: pickled objects are read; an adapter of other sizes is loaded in part.
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    model, path = make("transformer"), tmp_path / "adapter.npz"
    before = array(model(inputs_of("transformer")))
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="adapter.npz is no adapter that save_adapter wrote"):
        model.load_adapter(path)
    np.savez(path, lora=np.array({"rank": 1}, dtype=object))
    with pytest.raises(ValueError, match="is no adapter that save_adapter wrote"):
        model.load_adapter(path)
    adapted("classifier").save_adapter(path)
    with pytest.raises(ValueError, match="does not fit the model: .* is missing in the file and"):
        model.load_adapter(path)
    np.savez(path, lora=np.array("[1]"))
    with pytest.raises(ValueError, match="is no adapter that save_adapter wrote"):
        model.load_adapter(path)
    np.testing.assert_array_equal(array(model(inputs_of("transformer"))), before)
    assert len(model.trainable_weights) == len(model.weights)
