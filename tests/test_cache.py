"""Laws of the user's cache of compiled code."""

import os
import subprocess
import sys

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


# Fails if: nothing is kept, or a second process compiles again.
def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    kept = []
    # The tests' own cache of compiled code comes first otherwise.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", CODE],
            env={**environment, cache.FOLDER: str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        kept.append(run.stdout.split())
    assert kept[0] and kept[0] == kept[1]


# Fails if: code for another processor, version or flag is in the same folder, or a setting is lost.
def test_it_is_for_one_machine_and_leaves_the_users_settings(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    for name in ("TF_XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    first = cache.keep_compiled()
    assert os.environ["TF_XLA_FLAGS"] == f"--tf_xla_persistent_cache_directory={first}"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(first)
    found = {first, cache.keep_compiled()}
    assert len(found) == 1 and first.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    found.add(cache.keep_compiled())
    monkeypatch.setattr(cache, "_processor", lambda: ["riscv64", ""])
    found.add(cache.keep_compiled())
    monkeypatch.setattr(cache, "_versions", lambda: ["99.0", ""])
    found.add(cache.keep_compiled())
    assert len(found) == 4 and all(path.is_dir() for path in found)
    mine = "--tf_xla_auto_jit=0 --tf_xla_persistent_cache_directory=/mine"
    monkeypatch.setenv("TF_XLA_FLAGS", mine)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    cache.keep_compiled()
    assert (os.environ["TF_XLA_FLAGS"], os.environ["JAX_COMPILATION_CACHE_DIR"]) == (mine, "/mine")


# Fails if: the option is not heeded, or everybody's code is kept.
def test_the_command_keeps_compiled_code_if_asked(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(cache, "keep_compiled", lambda: asked.append(1))
    for option in ([], ["--compile-cache"]):
        assert cli.main(["translate", str(tmp_path / "nowhere"), *option]) == 1
    assert len(asked) == 1
