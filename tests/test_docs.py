"""The code in the docs runs as it stands there."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow_only  # it is about the page; the models are tested everywhere

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["family.md"])
def test_the_code_of_a_page_runs(page):
    """All of it, one piece after another; a comment `# [2, 3]` after an assignment is its shape."""
    text = (DOCS / page).read_text(encoding="utf-8")
    pieces = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names, shapes = {}, 0
    for piece in pieces:
        exec(compile(piece, page, "exec"), names)
        for name, shape in re.findall(r"^(\w+) = .*# (\[[\d, ]+\])", piece, re.MULTILINE):
            assert list(names[name].shape) == eval(shape), name
            shapes += 1
    assert len(pieces) > 3 and shapes > 3
