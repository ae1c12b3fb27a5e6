"""The sections of docs/howto/keras-tools.md that need a package of their own, on every backend."""

import contextlib
import io
import re
from pathlib import Path

import keras
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "keras-tools.md"
# {heading: the package that the section needs}
SECTIONS = {
    "OrbaxCheckpoint": "orbax.checkpoint",
    "KerasTuner": "keras_tuner",
    "Pictures of a model": "pydot",
    "MLflow": "mlflow",
    "Weights & Biases": "wandb",
}
FAST = ("orbax.checkpoint", "pydot")  # the others train more, or load much
# The code of a section, and the text directly below it, which shows its output.
BLOCK = re.compile(r"^```py\n(.*?)^```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


# Fails if: a new section is not in the table.
def test_every_section_with_a_package_is_in_the_table():
    assert re.findall("^### (.*)$", PAGE.read_text(encoding="utf-8"), re.M) == list(SECTIONS)


# Fails if: two variables of the optimizer have one name, which Orbax knows them by.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "heading",
    [
        pytest.param(heading, marks=() if package in FAST else pytest.mark.slow)
        for heading, package in SECTIONS.items()
    ],
)
def test_the_code_of_a_section_prints_what_stands_below_it(heading, tmp_path):
    pytest.importorskip(SECTIONS[heading], reason=f"{SECTIONS[heading]} is not installed")
    if heading == "Weights & Biases" and keras.backend.backend() == "jax":
        pytest.skip("its logger asks the learning rate of a schedule for a method that JAX lacks")
    text = PAGE.read_text(encoding="utf-8")
    setup = re.search(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]
    section = text.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    [(code, printed)] = BLOCK.findall(section)
    out, names = io.StringIO(), {"__name__": "page", "Path": Path}
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(out):
        exec(compile(setup, "setup", "exec"), names)
        exec(compile(code, heading, "exec"), names)
    assert out.getvalue().splitlines()[-printed.count("\n") :] == printed.splitlines()
