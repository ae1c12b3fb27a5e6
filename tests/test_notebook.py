"""The notebook runs from top to bottom, by hand equals the layers, and its model translates."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import keras
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "walkthrough.ipynb"


def read():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def run(sizes=None):
    """What the code cells print, one text a cell, and the values that notebooks show below them."""
    names, prints, shown = {"__name__": "notebook"}, [], []
    for number, cell in enumerate(read()["cells"]):
        if cell["cell_type"] != "code":
            continue
        code = "".join(cell["source"])
        if sizes:
            code = re.sub(
                r"^SENTENCES, UPDATES = .*$", f"SENTENCES, UPDATES = {sizes}", code, flags=re.M
            )
        tree = ast.parse(code)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(tree, f"cell {number}", "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
                shown += [] if value is None else [value]
        prints.append(out.getvalue())
    assert not sizes or (names["SENTENCES"], names["UPDATES"]) == sizes
    return prints, shown, names


def check(prints, shown):
    text = "".join(prints)
    verdicts = re.findall(r"(the same|by hand|padding is 0|see it): (True|False)", text)
    assert len(verdicts) == 6
    assert all(verdict == str(claim != "see it") for claim, verdict in verdicts), text
    assert len(shown) == 4
    for picture in shown:
        assert picture._repr_png_().startswith(b"\x89PNG")


@pytest.mark.tensorflow_only
def test_the_format():
    notebook = read()
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"]) > 15
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        assert not cell.get("outputs")  # they would be stale at the next change
    for text in ("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"):
        for link in re.findall(r"\]\(([^)]+)\)", text):
            assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.tensorflow_only
def test_every_cell_runs(uncompiled):
    """On other backends too in the test below; here with hardly any training, to a few tokens."""
    prints, shown, _ = run((3_000, 4))
    check(prints, shown)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="it is for TensorFlow and JAX")
def test_the_whole_notebook_translates():
    prints, shown, names = run()
    check(prints, shown)
    assert names["score"].value > 80  # 400 of the 800 updates gave 87 and 90
    assert sum(map(str.__eq__, names["found"], names["references"])) >= 6
    seconds = float(re.search(r"the whole notebook: (\d+) s", "".join(prints))[1])
    assert seconds < 300
