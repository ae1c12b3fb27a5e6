"""Tests that the docs are true: code prints what the pages show, and links and pictures exist."""

import ast
import contextlib
import importlib.util
import io
import json
import logging
import os
import re
import unicodedata
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow_only  # tests pages; other files test models on every backend

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# A block of Python, and the block of text directly below it, which shows its output.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
ANY_BLOCK = re.compile(r"^( *)(```+|~~~+).*?^\1\2$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")

PAGES = sorted(path for path in DOCS.rglob("*.md"))
WITH_CODE = [path for path in PAGES if BLOCK.search(path.read_text(encoding="utf-8"))]
TWINS = [path for path in PAGES if path.is_relative_to(DOCS / "ko")]


def name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path):
    return BLOCK.findall(path.read_text(encoding="utf-8"))


def english(path):
    """Returns the English twin of a Korean page."""
    return DOCS / path.relative_to(DOCS / "ko")


def code(path, strings=True):
    """Returns the blocks of a page as trees without comments, and optionally without strings."""
    trees = [ast.parse(text) for text, _ in blocks(path)]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not strings:
            node.value = ""
    return [ast.dump(tree) for tree in trees]


def same_code(path):
    return code(path) == code(english(path))


def anchors(path):
    """Returns the anchors of a page's headings, as GitHub and the site make them."""
    text = ANY_BLOCK.sub("", path.read_text(encoding="utf-8"))
    found = set()
    for heading in re.findall(r"^#+ (.+?)\s*(?:\{.*\})?$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        kept = re.sub(r"[^\w\- ]", "", unicodedata.normalize("NFC", plain))
        found.add(kept.replace(" ", "-"))
    return found


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


# The packages of extras that a page's code imports.
NEEDS = {
    "docs/howto/decoding.md": ("sentencex",),
    "docs/howto/exporting.md": ("tf2onnx", "onnxruntime", "ai_edge_litert"),
    "docs/howto/serve.md": ("starlette",),
}


# If a Korean page has exactly the English page's code, only its shown output is compared, below.
# Fails if: a printed number or a shape is changed.
@pytest.mark.parametrize(
    "path", [p for p in WITH_CODE if p not in TWINS or not same_code(p)], ids=name
)
def test_the_code_of_a_page_runs_and_prints_what_stands_below_it(path, tmp_path, policy):
    """Runs all blocks in order. A comment `# [2, 3]` after an assignment states its shape."""
    for package in NEEDS.get(name(path), ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    names = {"__name__": "page"}
    with contextlib.chdir(tmp_path):
        for number, (text, printed) in enumerate(blocks(path)):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, f"{name(path)}, block {number + 1}", "exec"), names)
            if printed:
                assert out.getvalue().rstrip() == printed.rstrip()
            for each, shape in re.findall(r"^(\w+) = .*# (\[[\d, ]+\])", text, re.MULTILINE):
                assert list(names[each].shape) == eval(shape), each


# Fails if: the code of a Korean page, or what it prints, is changed.
@pytest.mark.parametrize("path", TWINS, ids=name)
def test_both_languages_have_the_same_code_and_print_the_same(path):
    assert code(path, strings=False) == code(english(path), strings=False)
    if same_code(path):
        assert [text for _, text in blocks(path)] == [text for _, text in blocks(english(path))]


def test_every_chapter_is_there_in_both_languages():
    chapters, translated = (
        {p.name for p in (DOCS / d).glob("*.md")} for d in ("paper", "ko/paper")
    )
    assert chapters == translated
    assert len(chapters) > 10


# Fails if: a link or an anchor is changed.
@pytest.mark.parametrize(
    "path",
    [*PAGES, *ROOT.glob("README*.md"), ROOT / "tests/README.md", ROOT / "recipes/README.md"],
    ids=name,
)
def test_every_link_and_picture_is_there(path):
    text = ANY_BLOCK.sub("", path.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]+`", "", text)
    for link in LINK.findall(text):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = Path(os.path.normpath(path.parent / file)) if file else path
        assert target.exists(), f"{name(path)} links to {link}"
        assert target.is_relative_to(ROOT), f"{name(path)} links out of the repository: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name(path)} links to {link}"


def test_every_script_that_a_command_names_is_there():
    for path in [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("*/README.md")]:
        text = path.read_text(encoding="utf-8")
        for script in re.findall(r"python ((?:benchmarks|docs|recipes)/\S+\.py)", text):
            assert (ROOT / script).is_file(), (name(path), script)


def test_every_table_begins_after_an_empty_line():
    """Otherwise the site shows its bars."""
    for path in PAGES:
        text = ANY_BLOCK.sub("```", path.read_text(encoding="utf-8"))
        assert not re.search(r"^(?![ >]*\|).*\S.*\n *\|.*\|$", text, re.MULTILINE), name(path)


def test_every_recipe_is_in_the_table_of_recipes():
    recipes = {
        file.name
        for file in (ROOT / "recipes").glob("*.py")
        if 'if __name__ == "__main__"' in file.read_text(encoding="utf-8")
    }
    table = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(\w+\.py)\]", table, re.M)) == recipes


# Fails if: a concept has no chapter.
def test_both_front_pages_give_the_same_results():
    def figures(page, heading):
        section = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
        rows = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("|")]
        return [sorted(re.findall(r"\d+\.\d+", row)) for row in rows]

    assert figures("README.ko.md", "결과") == figures("README.md", "Results")


def test_every_concept_has_its_chapter_and_its_code_on_the_front_pages():
    """The explanation is one click away, and the code another one."""
    rows = {}
    for page in (DOCS / "index.md", DOCS / "ko/index.md"):
        text = page.read_text(encoding="utf-8")
        rows[page] = re.findall(
            r"^\| .+ \| \[.+\]\((paper/[\w-]+\.md).*?\) \| (\[.+\)) \|$", text, re.M
        )
        assert {chapter for chapter, _ in rows[page]} == {
            f"paper/{each.name}" for each in (page.parent / "paper").glob("*.md")
        }
    first, second = rows.values()
    assert [(chapter, code.replace("../../", "../")) for chapter, code in second] == first


@pytest.fixture(scope="module")
def drawing():
    """Draws all pictures, and returns them with the messages of matplotlib."""
    spec = importlib.util.spec_from_file_location("draw", DOCS / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    said = io.StringIO()
    handler, logger = logging.StreamHandler(said), logging.getLogger("matplotlib")
    logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures = dict(draw.drawn())
    logger.removeHandler(handler)
    return pictures, said.getvalue() + "".join(str(each.message) for each in caught)


@pytest.fixture
def drawn(drawing):
    return drawing[0]


def pixels(data):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), "float32")


# Fails if: a label loses a space; a line is drawn in another way.
def test_pictures_are_what_the_code_draws(drawn):
    """The mean difference is below 0.02 of 255. A missing space in a label gives 0.06."""
    assert len(drawn) > 10
    for path, data in drawn.items():
        assert path.exists(), f"{name(path)} is missing: make pictures"
        if path.suffix == ".svg":
            assert path.read_bytes() == data, f"{name(path)} is stale: make pictures"
            continue
        committed, now = pixels(path.read_bytes()), pixels(data)
        assert committed.shape == now.shape, f"{name(path)} is stale: make pictures"
        assert np.abs(committed - now).mean() < 0.02, f"{name(path)} is stale: make pictures"
        assert path.stat().st_size < 150_000, name(path)


def test_pictures_that_the_walk_through_shows_are_drawn_by_its_code(drawn):
    shown = set()
    for path in (DOCS / "paper").glob("*.md"):
        for link in re.findall(
            r"!\[[^\]]*\]\((pictures/[^)]+)\)", path.read_text(encoding="utf-8")
        ):
            shown.add(path.parent / link)
    assert shown == {path for path in drawn if path.parent == DOCS / "paper" / "pictures"}


# Fails if: a label mixes Korean and a formula.
def test_pictures_lack_no_glyph(drawing):
    """A formula ($...$) has its own fonts, which lack Korean, so no label may mix the two."""
    assert "lyph" not in drawing[1]


def test_chapter_1_shows_the_vanishing_gradient_that_it_speaks_of():
    """The picture falls as the text says, and both languages have the picture's numbers."""
    spec = importlib.util.spec_from_file_location("family_draw", DOCS / "family" / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    [axes] = draw.vanishing_gradient().axes
    lines = {line.get_label(): np.array(line.get_ydata()) for line in axes.lines}
    assert lines["plain RNN"][-1] < lines["LSTM"][-1] / 10 < lines["Transformer"][-1] / 100
    assert np.all(np.diff(lines["plain RNN"]) < 0)  # at every position
    assert lines["Transformer"].min() > 70
    for page in (DOCS / "paper/01-before-attention.md", DOCS / "ko/paper/01-before-attention.md"):
        text = page.read_text(encoding="utf-8")
        for name in ("plain RNN", "LSTM"):
            assert f"{lines[name][-1]:.1f} %" in text, name
        assert "family/vanishing_gradient.png)" in text
        assert "gradient_reach.png" not in text  # shows trained models, where nothing vanishes


def test_the_pages_give_the_scores_that_were_measured():
    """Chapter 1 and family.md give the report's scores of the LSTM and the Transformer."""
    report = json.loads((DOCS / "family/multi30k_quality.json").read_text(encoding="utf-8"))
    best, ours = (f"{report[name]['bleu']:.1f}" for name in ("lstm-dot", "transformer"))
    pages = "paper/01-before-attention.md", "ko/paper/01-before-attention.md", "family.md"
    for page in pages:
        text = (DOCS / page).read_text(encoding="utf-8")
        assert best in text and ours in text, page
