"""Tests of the docs as a site: built without a warning, complete, and readable offline."""

import html as entities
import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import keras
import pytest

pytestmark = [
    pytest.mark.tensorflow_only,  # needs no backend
    pytest.mark.skipif(
        importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None,
        reason="needs the extra docs: make test EXTRAS=test,ko,wmt,docs",
    ),
]

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """The links, assets, anchors, formulas and plain text of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.assets, self.ids, self.text, self.formulas = [], [], set(), [], 0
        self._code = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given["id"]} if "id" in given else set()
        self.formulas += tag == "math"
        self._code += tag in ("code", "pre", "script", "style")
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in given:
            self.assets.append(given["src"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.assets.append(given["href"])

    def handle_endtag(self, tag):
        self._code -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data):
        if not self._code:
            self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr.strip(), done.stderr[-3000:]  # there is no warning
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


# Fails if: the theme loads its fonts or its worker from the network.
def test_pages_take_nothing_from_a_network(site, pages):
    for path, page in pages.items():
        for asset in page.assets:
            assert not re.match(r"(\w+:)?//", asset), f"{path.relative_to(site)} loads {asset}"
            assert (path.parent / unquote(asset.split("?")[0].split("#")[0])).exists(), asset
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", sheet.read_text("utf-8")), sheet


# Fails if: a link names an anchor that does not exist.
def test_every_link_leads_to_a_page_and_its_anchor(site, pages):
    known = {path.resolve(): page for path, page in pages.items()}
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"https?:|mailto:|javascript:", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path.resolve()
            assert target.exists(), f"{path.relative_to(site)} links to {link}"
            if anchor and target in known and "__" not in anchor:
                assert anchor in known[target].ids, f"{path.relative_to(site)} links to {link}"


# Fails if: a box of Figure 1 leads to no page; two files of one name share a page.
def test_code_is_two_clicks_from_the_front_page(site, pages):
    """Every box of Figure 1 links to chapter and code, and every file of the package has a page."""
    for front in ("index.html", "ko/index.html"):
        html = (site / front).read_text(encoding="utf-8")
        figure = html[html.index("<title>Figure 1 of") :]
        figure = figure[: figure.index("</svg>")]
        links = set(re.findall(r'href="([^"]+)"', figure))
        chapters = {link for link in links if "paper/" in link}
        assert len(chapters) >= 10 and len(links - chapters) >= 10
        for link in links:
            assert (site / front).parent.joinpath(link).exists(), link
        assert all(("ko/paper/" in link) == front.startswith("ko/") for link in chapters)
    for source in (ROOT / "keras_transformer").rglob("*.py"):
        assert (site / "code" / f"{source.relative_to(ROOT)}.html").exists(), source


# Fails if: a formula before a Korean particle stays text.
def test_formulas_are_mathml(site, pages):
    """No formula stays in LaTeX, not even before a Korean particle."""
    found = 0
    for path, page in pages.items():
        if "paper" in path.relative_to(site).parts:
            found += page.formulas
            assert not re.search(r"\$[^$\n]+\$", "".join(page.text)), path.relative_to(site)
    assert found > 50


def test_formulas_scroll_by_themselves(site, pages):
    """A formula on its own line is in a box that scrolls. Otherwise it would widen the page."""
    css = (site / "extra" / "extra.css").read_text(encoding="utf-8")
    assert re.search(r"\.formula \{[^}]*overflow-x: auto", css)
    found = 0
    for path in pages:
        html = path.read_text(encoding="utf-8")
        displayed = len(re.findall(r'<math[^>]*display="block"', html))
        assert displayed == html.count('<span class="formula"><math'), path.relative_to(site)
        found += displayed
    assert found > 10


# Opens every page in a frame as wide as a phone, and writes the widths into its own text.
FRAMES = """<pre></pre><script>
const pages = %s, widths = {};
async function measure() {
  for (const page of pages) {
    const frame = document.createElement("iframe");
    frame.style = "width: 390px; height: 844px; border: 0";
    frame.src = page;
    document.body.append(frame);
    await new Promise(done => frame.onload = done);
    widths[page] = frame.contentDocument.documentElement.scrollWidth;
    frame.remove();
  }
  document.querySelector("pre").textContent = JSON.stringify(widths);
}
measure();
</script>"""


@pytest.mark.slow
def test_no_page_is_wider_than_a_phone(site, pages, tmp_path):
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None
    )
    if browser is None:
        pytest.skip("needs chromium for the layout of pages")
    read = [path for path in pages if path.relative_to(site).parts[0] != "code"]
    (tmp_path / "frames.html").write_text(FRAMES % json.dumps([p.as_uri() for p in read]))
    options = "--headless --no-sandbox --disable-gpu --disable-web-security --dump-dom"
    done = subprocess.run(
        [browser, *options.split(), "--allow-file-access-from-files", "--virtual-time-budget=60000",
         f"--user-data-dir={tmp_path}", (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    widths = json.loads(re.search(r"<pre>(\{.*?\})</pre>", done.stdout)[1])
    assert len(widths) == len(read) > 40
    assert not {page: width for page, width in widths.items() if width > 390}


# Fails if: the search knows English only.
def test_the_search_knows_both_languages_without_a_server(site):
    script = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    index = json.loads(script.removeprefix("var __index = "))
    assert {"en", "ko"} == set(index["config"]["lang"])
    texts = " ".join(each["title"] + each["text"] for each in index["docs"])
    assert "어텐션" in texts and "MultiHeadAttention" in texts
    assert not any(each["location"].startswith("code/") for each in index["docs"])
    assert "extra/iframe-worker.js" in (site / "index.html").read_text(encoding="utf-8")


# Fails if: the switch leads to the front page.
def test_the_language_switch_leads_to_the_same_page(site):
    for page, link in (
        ("paper/05-attention.html", "../ko/paper/05-attention.html"),
        ("ko/paper/05-attention.html", "../../paper/05-attention.html"),
        ("index.html", "ko/index.html"),
        ("results.html", "ko/index.html"),
    ):
        html = (site / page).read_text(encoding="utf-8")
        assert f'<a href="{link}" hreflang="{"en" if "ko/" in page else "ko"}"' in html, page
        assert f'<html lang="{"ko" if page.startswith("ko/") else "en"}"' in html


def test_the_notebook_is_a_page(site, pages):
    """The page has the outputs of the cells, and a link to download the file."""
    assert '"walkthrough.html"' in (site / "index.html").read_text(encoding="utf-8")
    page = pages[site / "walkthrough.html"]
    cells = json.loads((site / "walkthrough.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = sum("data" in output for cell in cells for output in cell.get("outputs", ()))
    assert shown == sum(asset.startswith("walkthrough/") for asset in page.assets) == 4
    for path, other in pages.items():
        raw = [link for link in other.links if link.endswith(".ipynb")]
        assert not raw or path.name == "walkthrough.html", path.relative_to(site)
    html = (site / "walkthrough.html").read_text(encoding="utf-8")
    assert "byhand:True" in plain(html) and page.formulas == 2


# Fails if: "Call arguments" is not known as a section.
def test_docstrings_show_their_arguments(site):
    """This includes Keras' section "Call arguments:", which the tool does not know by itself."""
    html = (site / "api" / "layers.html").read_text(encoding="utf-8")
    attention = html[html.index('id="keras_transformer.layers.MultiHeadAttention"') :]
    attention = attention[: attention.index('id="keras_transformer.layers.PositionalEmbedding"')]
    call = attention[attention.index("Call arguments") :]
    for argument in ("query", "key_mask", "cache"):
        assert re.search(rf"<li[^>]*>\s*<b><code>{argument}</code>", call)
    assert 'class="highlight"' in attention  # its source is below it


def shown_signatures(site):
    """Reads {path of a class: (its signature, how it is called)} from the reference."""
    found = {}
    for page in (site / "api").glob("*.html"):
        html = page.read_text(encoding="utf-8")
        for part in html.split('<div class="doc doc-object doc-class">')[1:]:
            path = re.search(r'id="(keras_transformer[\w.]+)"', part)[1]
            head, _, body = part.partition('<div class="doc doc-contents')
            call = body.partition('<span class="doc-section-title">Call arguments')[0]
            found[path] = plain(head), plain(call)
    return found


def plain(html):
    """Returns the text of HTML without spaces and with one kind of quotes."""
    text = entities.unescape(re.sub(r"<[^>]+>", "", html))
    return re.sub(r"\s", "", text).replace("'", '"')


def arguments(function):
    """Yields `name=default`, or `name`, for every parameter that has a name."""
    for each in inspect.signature(function).parameters.values():
        if each.name != "self" and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
            default = "" if each.default is each.empty else f"={each.default!r}"
            yield plain(f"{each.name}{default}")


def assert_shown(function, name, text, path):
    _, _, signature = text.rpartition(f"{name}(")
    for argument in arguments(function):
        assert re.search(rf"(^|,){re.escape(argument)}[,)]", signature), f"{path} lacks {argument}"


def test_every_class_of_the_reference_shows_its_arguments_and_their_defaults(site):
    """Compares the pages with the signatures of the constructor and of `call` in Python."""
    shown = shown_signatures(site)
    assert len(shown) > 40
    for path, (constructor, call) in shown.items():
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        assert_shown(cls, name, constructor, path)
        if issubclass(cls, keras.Layer) and not issubclass(cls, keras.Model):
            assert_shown(cls.call, "layer", call, path)
        if issubclass(cls, keras.Loss):
            assert_shown(cls.call, "loss", call, path)


def test_the_reference_shows_what_is_handed_on(site):
    """The arguments behind `*args` and `**options` of our classes are shown."""
    shown = shown_signatures(site)
    for path in ("layers.DecoderLayer", "layers.Encoder", "layers.Decoder"):
        assert "attention_dropout=0.0," in shown[f"keras_transformer.{path}"][0], path
    assert "rows_multiple=1," in shown["keras_transformer.data.LabelledPlan"][0]
