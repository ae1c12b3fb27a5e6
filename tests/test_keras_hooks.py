"""Tests of the private Keras hooks that we override: they exist, are called, or raise an error."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_transformer.models import LossPerLabel
from keras_transformer.ops.keras_hooks import HOOKS, guarded, is_checked
from keras_transformer.optimizers import LossScale, PaperAdam

KERAS = {
    PaperAdam: keras.optimizers.Adam,
    LossScale: keras.optimizers.LossScaleOptimizer,
    LossPerLabel: keras.Model,
}
# The hooks that Keras calls on this backend.
CALLED = [
    (cls, when.partition(" on ")[0], name)
    for cls in KERAS
    for when, names in HOOKS[cls.__name__].items()
    for name in names
    if when.partition(" on ")[2] in ("", keras.backend.backend())
]


class Model(LossPerLabel, keras.Model):
    pass


def fit(optimizer, steps=1):
    inputs = keras.Input((3,))
    model = Model(inputs, keras.layers.Dense(5)(inputs))
    model.compile(optimizer, "mse")
    x = np.ones((2 * steps, 3), "float32")
    model.fit(x, np.ones((2 * steps, 5), "float32"), batch_size=2, verbose=0)
    return model


def optimizer(cls, **options):
    inner = PaperAdam(d_model=7, **options)
    return LossScale(inner) if cls is LossScale else inner


@pytest.mark.parametrize(("cls", "when", "name"), CALLED)
def test_a_hook_that_keras_no_longer_has_is_an_error_at_import(cls, when, name, monkeypatch):
    for base in KERAS[cls].__mro__:
        if name in vars(base):
            monkeypatch.delattr(base, name)
    message = f"Keras {keras.__version__} no longer has `{name}`.*Use keras>=3.15,<"
    with pytest.raises(ImportError, match=message):
        guarded(KERAS[cls])(type(cls.__name__, (cls,), {}))


@pytest.mark.parametrize(("cls", "when", "name"), CALLED)
def test_a_hook_that_keras_no_longer_calls_is_an_error_in_the_first_update(
    cls, when, name, monkeypatch
):
    if cls is LossScale and keras.backend.backend() == "torch":
        pytest.skip("PyTorch calls the hook only in an update that is skipped")
    monkeypatch.setattr(cls, name, getattr(KERAS[cls], name))  # ours is never called
    with pytest.raises((RuntimeError, TypeError)) as caught:
        fit(optimizer(cls, use_ema="use_ema" in when))
    # On JAX the weights are lost after an error, so finishing the average fails as well.
    first = caught.value if isinstance(caught.value, RuntimeError) else caught.value.__context__
    assert f"{keras.__version__} no longer calls `{name}`" in str(first)


def test_a_loss_tracker_that_keras_no_longer_sets_is_an_error(monkeypatch):
    monkeypatch.setattr(LossPerLabel, "_loss_tracker", None)
    with pytest.raises(RuntimeError, match="no longer sets `_loss_tracker`"):
        fit("sgd")


@pytest.mark.parametrize("accumulate", [None, 3])
def test_the_hooks_are_checked_once(accumulate):
    adam = optimizer(PaperAdam, use_ema=True, gradient_accumulation_steps=accumulate)
    adam.apply([])
    assert not is_checked(adam, "update")
    model = fit(adam, steps=accumulate or 1)
    assert is_checked(adam, "update") and is_checked(adam, "update with use_ema")
    assert is_checked(adam, "end with use_ema") and is_checked(model, "update")


def test_saving_does_not_see_the_record(tmp_path):
    model = fit(optimizer(PaperAdam))
    model.save(tmp_path / "model.keras")
    with_record = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Model": Model})
    for a, b in zip(model.get_weights(), with_record.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


TRAINING = """
import keras, numpy as np, keras_transformer as kt
print("Keras", keras.__version__)
model = kt.models.Transformer(11, num_layers=1, d_model=8, num_heads=2, d_ff=13)
adam = kt.optimizers.PaperAdam(8, use_ema=True, weight_decay=0.1)
model.compile(kt.optimizers.LossScale(adam), kt.losses.SmoothedCrossentropy(0.1))
batch = {"source_ids": np.ones((2, 3), "int32"), "target_ids": np.ones((2, 5), "int32")}
x = {name: np.concatenate([ids] * 3) for name, ids in batch.items()}
model.fit(x, np.ones((6, 5), "int32"), batch_size=2, verbose=0)
print("updates", int(adam.updates))
"""


@pytest.mark.slow
@pytest.mark.parametrize("requirement", ["keras>=3.15,<4", "keras==3.15.0"])
def test_the_newest_and_the_oldest_keras_have_and_call_the_hooks(requirement, tmp_path):
    """Installs the Keras that pip finds, and keeps all other packages as they are."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    done = subprocess.run(
        [*install, str(tmp_path), requirement], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        pytest.skip(f"pip cannot install {requirement}: {done.stderr.strip()[-200:]}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    run = subprocess.run(
        [sys.executable, "-c", TRAINING], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    assert "updates 3" in run.stdout
