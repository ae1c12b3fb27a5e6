"""Tests that recipes learn the same on several devices as on one.

Devices must be set up before anything is computed. So the test runs this file as a script in a
process of its own, as in test_distribution.py.
"""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_transformer import cli, models

TINY = {"num_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 16, "dropout": 0.0}
# Batches that neither 2 nor 3 devices divide. Without dropout, whose masks differ on TensorFlow.
RECIPES = {
    "translate_multi30k": "--vocabulary-size 280 --updates 2 --validate-every 1",
    "language_model": "--layers 1 --heads 1 --width 8 --context 8 --batch 5 --updates 2 "
    "--validate-every 1",
    "classify_images": "--patch 4 --width 8 --layers 1 --heads 1 --batch 7 --updates 2 "
    "--validate-every 1",
    "pretrain_and_classify": "--vocabulary-size 290 --layers 1 --width 8 --heads 1 --dropout 0 "
    "--pretrain-updates 2 --updates 2 --validate-every 1 --scratch-rates 0.001 "
    "--finetune-rates 0.001 --tokens-per-batch 129",
}
CURVES = ("nats_per_token", "gradient_norm", "token_accuracy", "accuracy")
CURVES += tuple(f"val_{name}" for name in CURVES)


def write_data(folder):
    """Writes what the recipes read, and returns the option of each for it."""
    from test_masked_language_model import write_nsmc
    from test_recipes import write_text

    write_text(folder)
    write_nsmc(folder)
    (folder / "text").write_text("ab cd\n가나 " * 60, encoding="utf-8")
    rng, arrays = np.random.default_rng(5), {}
    for part, count in (("train", 43), ("test", 7)):
        arrays[f"x_{part}"] = rng.integers(256, size=(count, 8, 8)).astype("uint8")
        arrays[f"y_{part}"] = np.arange(count) % 3
    np.savez(folder / "mnist.npz", **arrays)
    return {name: f"--data {folder}" for name in RECIPES} | {
        "language_model": f"--text {folder}/text"
    }


def curves(run):
    """The figures of every log in a run's folder, in their order."""
    found = {}
    for path in sorted(run.rglob("log.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            place = (str(path.relative_to(run)), record["event"], record["update"])
            found |= {(*place, name): record[name] for name in CURVES if name in record}
    return found


def train(name, run, options, devices):
    """Runs a recipe; returns its curves and its stderr."""
    recipe, said = importlib.import_module(name), io.StringIO()
    sys.argv = [name, *options.split(), "--run-dir", str(run), "--devices", devices]
    with contextlib.redirect_stderr(said):
        recipe.main()
    keras.distribution.set_distribution(None)
    return curves(run), said.getvalue()


def compare_all(folder, devices):
    import uncompiled

    uncompiled.search_uncompiled(pytest.MonkeyPatch())
    models.PRESETS["tiny"] |= TINY
    from_preset = models.Transformer.from_preset
    models.Transformer.from_preset = lambda *names, **sizes: from_preset(*names, **sizes | TINY)
    data = write_data(folder)
    for name, options in RECIPES.items():
        options = f"{options} {data[name]}"
        one, said = train(name, folder / f"{name}-1", options, "1")
        assert "share each batch" not in said, said
        many, said = train(name, folder / f"{name}-all", options, "all")
        assert f"{devices} devices share each batch" in said, said
        assert one.keys() == many.keys() and len(one) > 8, (name, one, many)
        for key in one:
            np.testing.assert_allclose(many[key], one[key], rtol=1e-3, atol=1e-5, err_msg=key)
        print(f"{name}: {len(one)} figures are equal")


# Fails if: rows that fill up a batch count; a recipe ignores --devices; a model is compiled outside
# the strategy's scope.
@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras trains on one device with torch"
)
def test_recipes_learn_the_same_on_several_devices():
    devices = {"tensorflow": 2, "jax": 3}[keras.backend.backend()]
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, __file__, str(devices)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("figures are equal") == len(RECIPES)


if __name__ == "__main__":
    number = int(sys.argv[1])
    if keras.backend.backend() == "tensorflow":
        from test_distribution import make_cpus

        make_cpus(number)
    with tempfile.TemporaryDirectory() as directory, cli.program("recipes"):
        compare_all(Path(directory), number)
