"""The code in the docs runs as it stands there, its output is what stands below it."""

import ast
import contextlib
import importlib.util
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow_only  # it is about the pages; the models are tested everywhere

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CODE = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
KOREAN = sorted((DOCS / "ko").rglob("*.md"))
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if page not in KOREAN and "```python" in page.read_text(encoding="utf-8")
]


def pieces_of(page):
    return CODE.findall(page.read_text(encoding="utf-8"))


def test_there_are_pages():
    names = {page.name for page in PAGES}
    assert {"family.md", "05-attention.md", "13-break-it.md", "your-own-layer.md"} < names
    assert len(KOREAN) == 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_it_says(page, tmp_path, monkeypatch):
    """All of it, one piece after another; a comment `# [2, 3]` after an assignment is its shape."""
    if page.name == "testing.md":
        pytest.skip("its pieces are excerpts; tests/test_testing.py runs all certificates")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code, output in pieces_of(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page.name, "exec"), names)
        if output:
            assert printed.getvalue().rstrip() == output.rstrip()
        for name, shape in re.findall(r"^(\w+) = .*# (\[[\d, ]+\])", code, re.MULTILINE):
            assert list(names[name].shape) == ast.literal_eval(shape), name


@pytest.mark.parametrize("page", KOREAN, ids=lambda page: page.stem)
def test_a_korean_page_has_the_code_of_its_english_one(page):
    english = DOCS / page.relative_to(DOCS / "ko")
    assert pieces_of(page) == pieces_of(english)
    text = page.read_text(encoding="utf-8")
    hangul = len(re.findall(r"[가-힣]", text))
    assert hangul > 200  # it is in Korean


def anchors(text):
    """The anchors that MkDocs gives to the headings of a page."""
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"[`*]", "", heading).lower()
        yield re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain)).strip("-")


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in set(anchors(found.read_text(encoding="utf-8"))), target


def test_every_chapter_is_one_click_from_the_front_page_and_its_code_one_more():
    for front in (DOCS / "index.md", DOCS / "ko" / "index.md"):
        text = front.read_text(encoding="utf-8")
        for chapter in sorted((DOCS / "paper").glob("*.md")):
            assert f"(paper/{chapter.name}" in text
    for chapter in (DOCS / "paper").glob("*.md"):
        assert re.search(r"\]\(\.\./\.\./(keras_transformer|recipes)/", chapter.read_text("utf-8"))
    drawing = (DOCS / "figure1.svg").read_text(encoding="utf-8")
    for target in re.findall(r'href="([^"]+)\.html"', drawing):
        source = DOCS / f"{target}.md" if target.startswith("paper") else ROOT / target[5:]
        assert source.exists(), target


@pytest.fixture(scope="module")
def drawn():
    spec = importlib.util.spec_from_file_location("draw", DOCS / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    return dict(draw.drawn())


def test_no_picture_is_stale(drawn):
    """`make pictures` draws them anew. Other versions of libraries may move a pixel a little."""
    from PIL import Image

    for path, data in drawn.items():
        if path.suffix == ".svg":
            assert path.read_bytes() == data, path.name
            continue
        with Image.open(path) as old, Image.open(io.BytesIO(data)) as new:
            assert old.size == new.size, path.name
            old, new = (np.asarray(each.convert("RGB"), "float32") for each in (old, new))
            assert np.abs(old - new).mean() < 1, f"{path.name} is stale: make pictures"
    there = {path for path in (DOCS / "paper" / "pictures").iterdir()}
    assert there == {path for path in drawn if path.suffix == ".png"}


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds_without_warnings_and_without_a_network(tmp_path, monkeypatch):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0 and not done.stdout.strip(), done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 100  # those of the code too
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assets = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="([^"]+)"', text)
        assert not [each for each in assets if each.startswith(("http", "//"))], page
    attention = (tmp_path / "paper" / "05-attention.html").read_text(encoding="utf-8")
    assert "<math" in attention and "$" not in re.sub(
        r"<(pre|code).*?</\1>", "", attention, flags=re.S
    )
    front = (tmp_path / "index.html").read_text(encoding="utf-8")
    for target in re.findall(r'<a href="(\./)?((?:paper|code)/[^"]+\.html)"', front):
        assert (tmp_path / target[1]).exists(), target
