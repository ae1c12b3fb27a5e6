"""What every test shares: the backend, the seed, the real data.

Backends. Keras fixes its backend once per process, so the suite runs once per backend, chosen by
KERAS_BACKEND (default tensorflow). A test of pure `keras.ops` code (layers, models, search, losses,
metrics, schedules) needs no marker: it states a law that holds on every backend and runs on every
one. A test that needs TensorFlow itself (tf.data, keras-nlp or tensorflow-text tokenizers,
TensorBoard, SavedModel), or no backend at all (files, scores, arguments), gains nothing from a
second run: mark it, or its whole file by `pytestmark = pytest.mark.tensorflow_only`, and the other
backends skip it.

Speed. `slow` marks what takes more than a few seconds: `make test` leaves it out, `make test-all`
runs it.

Seeds. Python, NumPy and the backend are seeded before each test. `keras.utils.set_random_seed`
breaks inside tf.data any keras-nlp SentencePiece tokenizer that was built before it: build
tokenizers in the test or in a function-scoped fixture, and let a module or session fixture return
a path to load from.
"""

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests start subprocesses, and on a GPU the first process would otherwise take all of its memory.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

# Compilation makes the first example slow, hence no deadline. Derandomized, so failures repeat.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("quick")


def pytest_report_header():
    return f"keras backend: {os.environ['KERAS_BACKEND']}"


def pytest_make_parametrize_id(val, argname):
    # Both processes of a run must name the tests alike, and bytes may hold a time (gzip's do).
    return argname if isinstance(val, bytes) else None


# Few tests of these take long each: with two processes they are to begin, not to be left over.
LONGEST = ("test_recipes", "test_benchmarks", "test_checkpoints", "test_cli")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)  # keeps the order of the others
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        return
    skip = pytest.mark.skip(reason="tensorflow_only: runs under KERAS_BACKEND=tensorflow")
    for item in items:
        if "tensorflow_only" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def seed():
    """Same seed before each test, so that no test depends on those that ran before it."""
    import keras  # here, so that `pytest --help` and collection errors do not wait for it

    keras.utils.set_random_seed(2017)


@pytest.fixture
def uncompiled(monkeypatch):
    """Searches of this test are short and not compiled: tests/test_translator.py has real ones."""
    from uncompiled import search_uncompiled

    search_uncompiled(monkeypatch)


@pytest.fixture(scope="session")
def data_dir():
    """The folder with real parallel text that KERAS_TRANSFORMER_DATA names."""
    folder = os.environ.get("KERAS_TRANSFORMER_DATA")
    if not folder:
        pytest.skip("KERAS_TRANSFORMER_DATA names no folder with real data")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"KERAS_TRANSFORMER_DATA names {folder!r}, which is not a folder.")
    return Path(folder)
