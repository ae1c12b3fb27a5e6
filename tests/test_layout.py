"""`layout_map`: every matrix of every model is split, and four devices compute as one."""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from test_models import MODELS

from keras_transformer import decoding, losses, models, optimizers, testing, text
from keras_transformer.models.layout import OPTIONAL, SPLIT, check_layouts

V = 10
SIZES = {"num_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 32, "dropout": 0.0}
IDS = testing.random_inputs(V, 4, 7, 5)


# Fails if: a layer gets another name, so that its weights would be on every device.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "recurrent"])
def test_every_matrix_is_split_and_every_pattern_is_used(name):
    model_class, positional, sizes, *_ = MODELS[name]
    weights = {weight.path: weight for weight in model_class(*positional, **sizes).weights}
    used = {path: [each for each in SPLIT if re.fullmatch(each, path)] for path in weights}
    whole = {path for path in used if not used[path] and len(weights[path].shape) > 1}
    assert all(re.search("(position|class|patches|classes|transform)/", path) for path in whole)
    assert {each for found in used.values() for each in found} >= set(SPLIT) - OPTIONAL
    for path, found in used.items():
        assert len(found) <= 1
        assert all(len(SPLIT[each]) == len(weights[path].shape) for each in found)


def train():
    """Returns the losses of three updates, the translations after them, and the model."""
    keras.utils.set_random_seed(3)
    model = models.Transformer(V, **SIZES)
    model.compile(optimizers.PaperAdam(learning_rate=0.01), losses.SmoothedCrossentropy())
    history = model.fit(IDS, IDS["target_ids"], batch_size=4, epochs=3, verbose=0).history
    lines = ["abcde ba", "b a b"]
    tokenizer = text.train_tokenizer(4 * lines, vocabulary_size=12, model_type="char")
    decoding.Translator.EXTRA_LENGTH = 3
    translated = decoding.Translator(model, tokenizer).translate(lines, beam_size=2)
    return history["loss"], translated, model


def on_four_devices():
    import jax

    assert len(jax.devices()) == 4
    expected, translated, model = train()
    bytes_of_one = sum(bytes_per_device(model).values())
    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"))
    with pytest.raises(ValueError, match="Name one of these"):
        models.layout_map(mesh, "heads")
    parallel = keras.distribution.ModelParallel
    layouts = models.layout_map(mesh)
    keras.distribution.set_distribution(parallel(layout_map=layouts, batch_dim_name="batch"))
    found, its, model = train()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert its == translated
    # Two of the four devices hold a half of every matrix, and of what the optimizer keeps of it.
    shares = [size / bytes_of_one for size in bytes_per_device(model).values()]
    assert len(shares) == 4 and max(shares) < 0.55, shares

    layouts["self_attention/query/kernel"] = keras.distribution.TensorLayout((None, "model"), mesh)
    with pytest.raises(ValueError, match="'self_attention/query/kernel' of the layout map fits no"):
        models.Transformer(V, **SIZES)


def bytes_per_device(model):
    sizes = {}
    for variable in [*model.variables, *model.optimizer.variables]:
        for shard in variable.value.addressable_shards:
            sizes[shard.device.id] = sizes.get(shard.device.id, 0) + shard.data.nbytes
    return sizes


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras splits weights on JAX only")
def test_four_devices_that_share_the_weights_compute_as_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_without_a_distribution_nothing_is_checked():
    assert check_layouts(models.Transformer(V, **SIZES)) is None


if __name__ == "__main__":
    on_four_devices()
