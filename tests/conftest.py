"""Shared by all tests: the backend, the seed and the real data.

Backends: Keras fixes its backend once per process, so the suite runs once per backend.
KERAS_BACKEND chooses it (default: tensorflow). A test of pure `keras.ops` code (layers, models,
search, losses, metrics, schedules) needs no marker, because its law holds on every backend. Some
tests need TensorFlow itself (tf.data, keras-nlp or tensorflow-text tokenizers, TensorBoard,
SavedModel). Others need no backend at all (files, scores, arguments). Both gain nothing from a
second run. Mark such a test with `pytest.mark.tensorflow_only`, or its file with
`pytestmark = pytest.mark.tensorflow_only`; other backends then skip it.

Speed: `slow` marks tests that take more than a few seconds. `make test` skips them, and
`make test-all` runs them.

Seeds: Python, NumPy and the backend are seeded before every test. After
`keras.utils.set_random_seed`, an older keras-nlp SentencePiece tokenizer no longer works inside
tf.data. So build tokenizers in the test or in a function-scoped fixture. A module or session
fixture should return a path to load from.
"""

import fcntl
import functools
import gc
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# No test writes into the user's own cache.
os.environ.setdefault(
    "KERAS_TRANSFORMER_CACHE", tempfile.mkdtemp(prefix="keras_transformer-cache-")
)
# Tests start subprocesses, and on a GPU the first process would otherwise take all of its memory.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

# There is no deadline, because the first example compiles. Derandomized, so that failures repeat.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("quick")


def pytest_report_header():
    return f"keras backend: {os.environ['KERAS_BACKEND']}"


def pytest_make_parametrize_id(val, argname):
    # All processes of a run must give a test the same name, and gzipped bytes may hold a time.
    return argname if isinstance(val, bytes) else None


# Its asserts then show their values, as those of tests do.
pytest.register_assert_rewrite("command_line")

# The files that take longest, on TensorFlow or JAX. They start first, so that no process is left
# with them at the end.
LONGEST = (
    "test_cli_train test_recipes test_transformer test_translator test_docs test_models "
    "test_benchmarks test_docstrings test_export test_testing test_ablate_paper test_layers "
    "test_ops test_cli_translate test_cli_evaluate test_cli"
).split()


def pytest_collection_modifyitems(items):
    place = {stem: number for number, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))  # the others as they come
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        return
    skip = pytest.mark.skip(reason="tensorflow_only: runs under KERAS_BACKEND=tensorflow")
    for item in items:
        if "tensorflow_only" in item.keywords:
            item.add_marker(skip)


def keep_ir_contexts():
    """Lets each thread lower all its functions in one context.

    JAX makes a context for each function that it compiles, and keeps it: a third of the processor
    time and two thirds of the memory of these tests, whose functions are many and small.
    """
    from jax._src.interpreters import mlir

    make = getattr(mlir, "make_ir_context", None)
    if make is not None:  # not a public name, so later versions may lack it
        kept = functools.cache(lambda thread: make())
        mlir.make_ir_context = lambda: kept(threading.get_ident())


def pytest_collection_finish(session):
    if os.environ["KERAS_BACKEND"] == "jax":
        keep_ir_contexts()
    # The garbage collector need not read what the libraries hold: 4 % of the processor time.
    gc.freeze()
    # Keras asks for a whole collection whenever a layer loses a variable: seconds for each matrix
    # that is quantised, because the tests' models are alive too.
    collect = gc.collect

    def collect_elsewhere(*args):
        return 0 if sys._getframe(1).f_code.co_name == "__delattr__" else collect(*args)

    gc.collect = collect_elsewhere


@pytest.fixture(autouse=True)
def seed():
    """Sets the same seed before every test, so that no test depends on earlier tests."""
    import keras  # imported late, so that `pytest --help` and collection errors are quick

    keras.utils.set_random_seed(2017)


@pytest.fixture
def uncompiled(monkeypatch):
    """Makes searches short, and searches and trainings eager. tests/uncompiled.py says why."""
    from uncompiled import search_uncompiled, train_uncompiled

    search_uncompiled(monkeypatch)
    train_uncompiled(monkeypatch)


@pytest.fixture(scope="session")
def data_dir():
    """Returns the folder with real parallel text that KERAS_TRANSFORMER_DATA names."""
    folder = os.environ.get("KERAS_TRANSFORMER_DATA")
    if not folder:
        pytest.skip("KERAS_TRANSFORMER_DATA names no folder with real data")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"KERAS_TRANSFORMER_DATA names {folder!r}, which is not a folder.")
    return Path(folder)


def shared(factory, name, make):
    """Returns the folder `name` of all processes of the session. The first of them makes it."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / name).exists():
            make(root / name)
    return root / name


@pytest.fixture(scope="session")
def parallel(tmp_path_factory):
    """Returns options that name a parallel text: two to four words, and their reversals."""
    from command_line import write_parallel

    folder = shared(tmp_path_factory, "text", write_parallel)
    parts = [(part, side) for part in ("train", "valid") for side in ("source", "target")]
    return [f"--{part}-{side}={folder / f'{part}.{side}'}" for part, side in parts]


@pytest.fixture(scope="session")
def run(tmp_path_factory, parallel):
    """Returns a run of 6 updates that was never stopped: a copy of its own for each process."""
    from command_line import train_run

    made = shared(tmp_path_factory, "run", lambda path: train_run(path, parallel))
    return shutil.copytree(made, tmp_path_factory.mktemp("runs") / "run")
