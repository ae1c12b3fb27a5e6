"""Tests of a small GPU benchmark, on a processor: it trains and decodes without TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# The benchmark chooses JAX itself, so one run of the tests is enough.
pytestmark = [pytest.mark.tensorflow_only, pytest.mark.slow]

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
# The packages that are missing if only keras, jax and numpy are installed.
MISSING = [
    *("tensorflow", "tensorflow_text", "keras_nlp", "keras_hub", "sentencepiece", "tensorboard"),
    *("sacrebleu", "matplotlib", "torch"),
]


def run(folder, *options):
    # Python runs this file at its start, also in the processes that the benchmark starts.
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({MISSING}))\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(folder)}
    imports = [sys.executable, "-c", "import tensorflow"]
    assert subprocess.run(imports, env=environment, capture_output=True).returncode == 1
    command = [sys.executable, str(SCRIPT), "--size", "tiny", "--flash", "on", *options]
    command += ["--tokens", "256", "--length", "64", "--steps", "2", "--rounds", "1"]
    command += ["--vocabulary-size", "100"]
    command += ["--output", str(folder / "gpu.json"), "--logs", str(folder / "logs")]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    return done, json.loads((folder / "gpu.json").read_text())


def test_it_measures_without_tensorflow(tmp_path):
    done, report = run(tmp_path, "--rows", "1", "2", "--decode-length", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["device"] and report["versions"]["jax"] and report["versions"]["keras"]
    assert [(cell["rows"], cell["length"]) for cell in report["train"]] == [(4, 64)]
    assert [(cell["rows"], cell["length"]) for cell in report["decode"]] == [(1, 3), (2, 3)]
    for cell in report["train"] + report["decode"]:
        assert "error" not in cell, cell
        assert (cell["size"], cell["flash"]) == ("tiny", "on") and cell["attention"]
        for name in ("first_seconds", "seconds_a_step", "tokens_per_second", "parameters"):
            assert cell[name] > 0, name
        assert "peak_bytes" in cell
    [cell] = report["train"]
    assert cell["operations"] > 0 and cell["matmul_rate"] > 0
    # A model cannot be faster than the best rate. The limit is 2, because machines are noisy.
    assert 0 < cell["share_of_matmul_rate"] < 2
    assert "target tokens/s" in done.stdout


def test_what_fails_is_a_line_and_the_rest_goes_on(tmp_path):
    # Impossible shapes fail here, instead of shapes that take too much memory.
    done, report = run(tmp_path, "--only", "decode", "--rows", "-1", "1", "--decode-length", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    failed, measured = report["decode"]
    assert "negative dimensions" in failed["error"] and failed["error"] in done.stdout
    assert measured["tokens_per_second"] > 0
