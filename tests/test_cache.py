"""Laws of the user's cache of compiled code."""

import os
import subprocess
import sys

import keras
import pytest

from keras_transformer import cli
from keras_transformer.runs import cache

CODE = """
from keras_transformer.runs.cache import keep_compiled
folder = keep_compiled()
import numpy as np
from keras_transformer.ops.compilation import compile_with_weights
assert compile_with_weights(lambda x: x @ x + 1)(np.ones((9, 9), "float32"))[0, 0] == 10
print(*sorted(path.name for path in folder.iterdir()))
"""
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX keeps compiled code")


@pytest.fixture(autouse=True)
def unset(monkeypatch, tmp_path):
    """The tests' own cache of compiled code, which comes first otherwise, is turned off."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    if keras.backend.backend() == "jax":
        import jax

        names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
        before = {name: getattr(jax.config, name) for name in names}
        jax.config.update(names[0], None)
        yield
        for name, value in before.items():
            jax.config.update(name, value)
    else:
        yield


# Fails if: nothing is kept, a second process compiles again, or either says something.
@on_jax
def test_a_second_process_finds_what_the_first_compiled():
    kept = []
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        kept.append(run.stdout.split())
    assert kept[0] and kept[0] == kept[1]


# Fails if: code for another processor, version or flag is in the same folder, or a setting is lost.
@on_jax
def test_it_is_for_one_machine_and_leaves_the_users_settings(monkeypatch, tmp_path):
    import jax

    def folder():
        jax.config.update("jax_compilation_cache_dir", None)
        found = cache.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == str(found)
        assert found.is_relative_to(tmp_path) and found.stat().st_mode & 0o077 == 0
        return found

    found = {folder(), folder()}
    assert len(found) == 1
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to=/nowhere")
    found.add(folder())
    monkeypatch.setattr(cache, "_processor", lambda: ["riscv64", ""])
    found.add(folder())
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    found.add(folder())
    assert len(found) == 4
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    assert cache.keep_compiled() == tmp_path / "mine"


# Fails if: the option is not heeded, or everybody's code is kept.
def test_the_command_keeps_compiled_code_if_asked(monkeypatch, tmp_path, capsys):
    asked, keep = [], cache.keep_compiled
    monkeypatch.setattr(cache, "keep_compiled", lambda: asked.append(1))
    for option in ([], ["--compile-cache"]):
        assert cli.main(["translate", str(tmp_path / "nowhere"), *option]) == 1
    assert len(asked) == 1
    if keras.backend.backend() != "jax":
        with pytest.raises(ValueError, match="kept on JAX only, and the backend is"):
            keep()
