"""One table: what Keras does for which model on which backend. docs/services.md is made of it.

A row names the test that checks it. `python tests/test_services.py` writes the page again.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import test_layout
import test_lora
import test_models
import test_r_drop
import test_runtimes
from test_lora import inputs_of
from test_models import MODELS, array, make

from keras_transformer import models, optimizers

PAGE = Path(__file__).parents[1] / "docs" / "services.md"
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX"}
NAMES = [name for name in MODELS if name != "recurrent"]  # which belongs to a recipe
BACKEND = keras.backend.backend()

pytestmark = pytest.mark.skipif(BACKEND not in BACKENDS, reason=f"no table for {BACKEND}")
every_model = pytest.mark.parametrize("name", NAMES)
# For tests that take seconds per model: two in the fast tier.
every_model_two_fast = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("transformer", "masked") else pytest.mark.slow)
        for name in NAMES
    ],
)


def output(model, name):
    return array(model(inputs_of(name)))


def emptied(name):
    """Returns a model of the same sizes whose weights are 0."""
    model = make(name)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    return model


# Fails if: a composed layer reads the weights of its parts, as in files of version 0.1.
@every_model
def test_weights_come_back_from_one_file_and_from_many(name, tmp_path):
    model, expected = make(name), output(make(name), name)
    model.save_weights(tmp_path / "one.weights.h5")
    model.save_weights(tmp_path / "many.weights.json", max_shard_size=5e-6)  # GB, of each file
    assert len(list(tmp_path.glob("many_*.weights.h5"))) > 1
    for file in ("one.weights.h5", "many.weights.json"):
        copy = emptied(name)
        copy.load_weights(tmp_path / file)
        np.testing.assert_array_equal(output(copy, name), expected)


# Fails if: a layer with a policy has no configuration of its own.
@every_model
def test_a_clone_has_the_same_graph(name):
    model = make(name)
    clone = keras.models.clone_model(model)
    assert clone.count_params() == model.count_params() and not isinstance(clone, type(model))
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(output(clone, name), output(model, name))


# Fails if: the configuration forgets an argument.
@every_model
def test_a_pickled_model_keeps_its_class_and_weights(name):
    model = make(name)
    copy = pickle.loads(pickle.dumps(model))
    assert type(copy) is type(model) and copy.get_config() == model.get_config()
    np.testing.assert_array_equal(output(copy, name), output(model, name))


# Fails if: a signature has fixed lengths.
@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter")
@every_model_two_fast
def test_a_saved_model_serves_what_the_model_computes(name, tmp_path):
    import tensorflow as tf

    model, inputs = make(name), MODELS[name][3]
    model.export(tmp_path / "1", verbose=False)
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    _, specs = serve.structured_input_signature
    assert set(specs) == {each.name for each in model.inputs}
    named = inputs if isinstance(inputs, dict) else dict.fromkeys(specs, inputs)
    tensors = {each: tf.constant(named[each], spec.dtype) for each, spec in specs.items()}
    for rows in (3, 1):
        [found] = serve(**{each: tensor[:rows] for each, tensor in tensors.items()}).values()
        np.testing.assert_allclose(array(found), output(model, name)[:rows], atol=1e-5)
    assert all(spec.shape[0] is None for spec in specs.values())
    assert all(spec.shape[1] is None for each, spec in specs.items() if each != "images")


# Fails if: a model forgets its dtype; weights are in half precision; validation is with the last
# weights, or `fit` ends with them; on JAX the average is lost after `evaluate`.
@every_model_two_fast
def test_a_model_trains_compiled_in_half_precision_with_an_average(name):
    model, inputs = make(name, dtype="mixed_bfloat16"), MODELS[name][3]
    assert {weight.dtype for weight in model.weights} == {"float32"}
    expected = output(make(name), name)
    difference = np.abs(output(model, name) - expected).max()
    assert 0 < difference < 0.03 * np.abs(expected).max()
    adam = optimizers.PaperAdam(learning_rate=0.02, use_ema=True, ema_momentum=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(adam, loss, jit_compile=True)
    labels = np.ones(expected.shape[:-1], "int32")
    swap = keras.callbacks.SwapEMAWeights()
    history = model.fit(
        inputs, labels, validation_data=(inputs, labels), epochs=3, verbose=0, callbacks=[swap]
    ).history
    assert model.jit_compile and history["loss"][-1] < history["loss"][0]
    averaged = model.evaluate(inputs, labels, verbose=0)
    np.testing.assert_allclose(history["val_loss"][-1], averaged, rtol=1e-3)
    last = adam._trainable_variables[0], adam._model_variables_moving_average[0]
    np.testing.assert_allclose(array(last[0]), array(last[1]), atol=1e-6)


# --- the table


class Service(NamedTuple):
    """A row.

    code: What a user writes.
    test: The test that runs it on every model, or None if every backend refuses.
    also: Further parameters of this test.
    refused: {backend: what the error says}, if it is refused there, for every model.
    asked: `asked(name, folder)` asks for what is refused.
    note: What a reader should know.
    """

    code: str
    test: Callable | None
    also: tuple = ()
    refused: dict = {}
    asked: Callable | None = None
    note: str = ""


def export_as(format):
    return lambda name, folder: make(name).export(folder / "model", format=format)


def calibrate(name, folder):
    make(name).quantize(config=keras.quantizers.GPTQConfig(dataset=["a"], tokenizer=str))


def split_the_weights(name, folder):
    devices = keras.distribution.list_devices()[:1]
    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), devices)
    before, parallel = keras.distribution.distribution(), keras.distribution.ModelParallel
    layouts = models.layout_map(mesh)
    keras.distribution.set_distribution(parallel(layout_map=layouts, batch_dim_name="batch"))
    try:
        make(name)
    finally:
        keras.distribution.set_distribution(before)


NO_BLOCKS = "which has no such list. Pass a config with quantization_layer_structure"
NOT_ON_JAX = {
    "jax": "its converter takes no open lengths. Save the model, set KERAS_BACKEND=tensorflow, "
    "load it and export it."
}
NOT_ON_TENSORFLOW = {
    "tensorflow": "keras.distribution.ModelParallel splits weights on the jax backend only"
}
SAVES = test_models.test_overridden_methods_are_trained_saved_loaded_and_decoded_with
QUANTISES = test_models.test_a_quantised_model_computes_nearly_the_same_and_is_saved
ADAPTS = test_lora.test_at_first_nothing_changes_and_only_the_adapters_train
WRITES_ADAPTERS = test_lora.test_a_file_of_adapters_gives_a_base_model_the_adapted_outputs
MERGES = test_lora.test_an_adapted_model_is_the_one_whose_weights_are_merged
RUNS_ELSEWHERE = test_runtimes.test_a_runtime_computes_what_the_model_computes_at_every_length
TRAINS = test_a_model_trains_compiled_in_half_precision_with_an_average
SERVICES = [
    Service('model.save("m.keras")', SAVES, note="with the class and its own wiring"),
    Service(
        'model.save_weights("m.weights.h5")', test_weights_come_back_from_one_file_and_from_many
    ),
    Service(
        'model.save_weights("m.weights.json", max_shard_size=1)',
        test_weights_come_back_from_one_file_and_from_many,
    ),
    Service(
        "model.layers[1].trainable = False",
        test_models.test_frozen_parts_are_frozen_in_a_loaded_model,
        (False,),
        note="a saved model keeps which of its parts are frozen, and what their optimizer knows",
    ),
    Service("pickle.dumps(model)", test_a_pickled_model_keeps_its_class_and_weights),
    Service(
        "keras.models.clone_model(model)",
        test_a_clone_has_the_same_graph,
        note="a plain `keras.Model` with new weights; "
        "`type(model).from_config(model.get_config())` keeps the class",
    ),
    Service('model.quantize("int8")', QUANTISES, ("int8",)),
    Service('model.quantize("int4")', QUANTISES, ("int4",)),
    Service('model.quantize("float8")', QUANTISES, ("float8",)),
    Service(
        "model.quantize(config=keras.quantizers.GPTQConfig(...))",
        None,
        refused=dict.fromkeys(BACKENDS, NO_BLOCKS),
        asked=calibrate,
    ),
    Service("model.enable_lora(rank=4)", ADAPTS),
    Service('model.save_adapter("adapter.npz")', WRITES_ADAPTERS),
    Service("model.merge_lora()", MERGES),
    Service(
        "model.enable_r_drop(1.0)",
        test_r_drop.test_the_loss_is_the_mean_of_two_passes_and_their_divergence,
        note="trains with the loss `kt.losses.SmoothedCrossentropy`",
    ),
    Service(
        'model.export("folder")',
        test_a_saved_model_serves_what_the_model_computes,
        note="a SavedModel with the signature `serving_default`",
    ),
    *(
        Service(
            f'model.export("m.{end}", format="{format}")',
            RUNS_ELSEWHERE,
            (format,),
            NOT_ON_JAX,
            export_as(format),
        )
        for format, end in (("onnx", "onnx"), ("litert", "tflite"))
    ),
    Service(
        "kt.models.layout_map(mesh)",
        test_layout.test_every_matrix_is_split_and_every_pattern_is_used,
        refused=NOT_ON_TENSORFLOW,
        asked=split_the_weights,
    ),
    Service('dtype="mixed_bfloat16"', TRAINS),
    Service("model.compile(..., jit_compile=True)", TRAINS),
    Service("kt.optimizers.PaperAdam(..., use_ema=True)", TRAINS),
    Service("keras.callbacks.SwapEMAWeights()", TRAINS),
]


def marks_of(thing):
    marks = getattr(thing, "pytestmark", [])
    return marks if isinstance(marks, list) else [marks]


def cases_of(test):
    """Returns the tuples of parameters that a test runs with."""
    [mark] = [mark for mark in marks_of(test) if mark.name == "parametrize"]
    values = [getattr(value, "values", value) for value in mark.args[1]]
    return {value if isinstance(value, tuple) else (value,) for value in values}


# Fails if: a test no longer runs on one of the models, or only on TensorFlow.
@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.code)
def test_a_service_that_works_is_tested_on_every_model_and_backend(service):
    works = set(BACKENDS) - set(service.refused)
    assert works if service.test else not works
    if service.test:
        assert {(name, *service.also) for name in NAMES} <= cases_of(service.test)
        module = __import__(service.test.__module__)
        only = {mark.name for mark in marks_of(service.test) + marks_of(module)}
        assert "jax" not in works or "tensorflow_only" not in only


REFUSED = [(service, name) for service in SERVICES if BACKEND in service.refused for name in NAMES]


# Fails if: on TensorFlow a model under ModelParallel is made, and is whole on every device.
@pytest.mark.parametrize(
    ("service", "name"), REFUSED, ids=lambda value: getattr(value, "code", value)
)
def test_a_service_that_does_not_work_says_why(service, name, tmp_path):
    with pytest.raises(ValueError) as error:
        service.asked(name, tmp_path)
    assert service.refused[BACKEND] in str(error.value)
    assert not list(tmp_path.iterdir())


# --- the page

BEGINNING = """\
# What Keras does for which model

Every service is run by a test on every model and backend, or is refused by an error. The tests make
this page (`python tests/test_services.py` writes it), and fail if it says something else. PyTorch
stays out: layers, models and searches run there, but only some of these services are tested.
"""


def page():
    """Returns the page, which is the same on every backend."""
    classes = [MODELS[name][0].__name__ for name in NAMES]
    reasons, lines = [], [BEGINNING]
    for backend, title in BACKENDS.items():
        lines += [f"## {title}", "", f"| | {' | '.join(f'`{each}`' for each in classes)} | test |"]
        lines += ["|---" * (len(NAMES) + 2) + "|"]
        for service in SERVICES:
            cell = "works"
            if reason := service.refused.get(backend):
                reasons += [] if reason in reasons else [reason]
                cell = f"refused [{reasons.index(reason) + 1}]"
            where = Path(__file__).stem
            if not reason and service.test.__module__ != __name__:
                where = service.test.__module__
            test = f"[{where}](../tests/{where}.py)"
            lines += [f"| `{service.code}` | {' | '.join([cell] * len(NAMES))} | {test} |"]
        lines += [""]
    lines += ["## What an error says", ""]
    lines += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    lines += ["", "## Notes", ""]
    lines += [f"- `{service.code}`: {service.note}." for service in SERVICES if service.note]
    lines += ["- Exports, trainings and `int4` of some models are `slow` tests: `make test-all`."]
    return "\n".join(lines) + "\n"


@pytest.mark.tensorflow_only
def test_the_page_is_what_the_table_says():
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/test_services.py writes it"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
