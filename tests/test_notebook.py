"""Tests that the notebook runs, that its hand-made results equal the layers, and translates."""

import base64
import importlib.util
import io
import re
import time
from pathlib import Path

import keras
import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def notebook():
    spec = importlib.util.spec_from_file_location("notebook_of_docs", DOCS / "notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(notebook):
    return [cell["outputs"] for cell in notebook.read()["cells"] if cell["cell_type"] == "code"]


def printed(outputs):
    return "".join(line for each in outputs if "text" in each for line in each["text"])


def pictures(outputs):
    from PIL import Image

    for each in outputs:
        if "data" in each:
            data = base64.b64decode(each["data"]["image/png"])
            yield np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), "float32")


def check(outputs):
    text = "".join(map(printed, outputs))
    verdicts = re.findall(r"(the same|by hand|padding is 0|see it): (True|False)", text)
    assert len(verdicts) == 6
    assert all(verdict == str(claim != "see it") for claim, verdict in verdicts), text
    assert sum(len(list(pictures(each))) for each in outputs) == 4


# Fails if: a link is dead.
@pytest.mark.tensorflow_only
def test_the_format(notebook):
    found = notebook.read()
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in found["cells"]}) == len(found["cells"]) > 15
    for cell in found["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        assert not cell["metadata"]  # metadata would hold times
    for text in ("".join(c["source"]) for c in found["cells"] if c["cell_type"] == "markdown"):
        for link in re.findall(r"\]\(([^)]+)\)", text):
            assert (DOCS / link).exists(), link


@pytest.mark.tensorflow_only
def test_what_it_prints_is_stored_and_nothing_of_a_machine(notebook):
    outputs = stored(notebook)
    check(outputs)
    assert all(map(printed, outputs))  # every cell prints
    score = re.search(r"unseen sentences: ([\d.]+) BLEU", "".join(map(printed, outputs)))
    assert float(score[1]) > 80
    text = notebook.NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 100_000
    assert not re.search(r"/home/|/tmp/|/usr/|0x[0-9a-f]{6}|\d\d:\d\d", printed(sum(outputs, [])))


@pytest.mark.tensorflow_only
def test_what_is_stored_is_what_the_code_prints(notebook, uncompiled):
    """Compares the cells that do not depend on training, after a training of four updates.

    Fails if: a cell, a layer or a picture changed and `make notebook` was not run.
    """
    outputs, names = notebook.run((24_000, 4))
    assert (names["SENTENCES"], names["UPDATES"]) == (24_000, 4)
    check(outputs)
    untrained = [i for i, cell in enumerate(outputs) if "nats_per_token" in printed(cell)][0]
    for now, before in zip(outputs[:untrained], stored(notebook), strict=False):
        assert printed(now) == printed(before)
        for picture, other in zip(pictures(now), pictures(before), strict=True):
            assert picture.shape == other.shape
            assert np.abs(picture - other).mean() < 0.1
    assert printed(outputs[-1]) == printed(stored(notebook)[-1])  # the last cell prints shapes


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="it is for TensorFlow and JAX")
def test_the_whole_notebook_translates(notebook):
    start = time.perf_counter()
    outputs, names = notebook.run()
    check(outputs)
    assert names["score"].value > 80  # 400 of the 800 updates gave 87 and 90
    assert sum(map(str.__eq__, names["found"], names["references"])) >= 6
    assert time.perf_counter() - start < 300
