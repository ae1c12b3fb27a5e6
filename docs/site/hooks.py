"""Adds to MkDocs: code and the notebook as pages, formulas, and links in Figure 1."""

import base64
import json
import posixpath
import re
from pathlib import Path

import latex2mathml.converter
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
FOLDERS = ("keras_transformer", "recipes", "benchmarks", "tests")
# A link out of docs/ to a file or folder of the repository.
OUTSIDE = re.compile(rf"\]\(((?:\.\./)+)((?:{'|'.join(FOLDERS)})\b[\w/.-]*|[\w.-]+)(#[\w-]*)?\)")
NOTEBOOK_PAGE = "walkthrough.md"
# The files that pages link to, besides Python files.
OTHERS = ("Makefile", "pyproject.toml", "constraints.txt", "tests/README.md")
LANGUAGES = {".py": "python", ".toml": "toml", "": "makefile"}
CODE = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]+`)", re.DOTALL)
# A Korean particle may follow a formula without a space.
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![a-zA-Z0-9$\\])\$([^$\n]+?)\$(?![a-zA-Z0-9$])", re.DOTALL)


def on_files(files, config):
    """Adds a page per source file, so that readers of code stay on the site."""
    sources = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    listed = []
    for path in [*sources, *(ROOT / name for name in OTHERS)]:
        name = path.relative_to(ROOT).as_posix()
        listed.append(f"- [{name}]({name}.md)")
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".md":
            language = LANGUAGES.get(path.suffix, "text")
            text = f"# `{name}`\n\n````{language}\n{text}\n````\n"
        head = f"---\nsearch:\n  exclude: true\nhide: [toc]\ntitle: {path.name}\n---\n"
        files.append(File.generated(config, f"code/{name}.md", content=head + text))
    text = "---\nsearch:\n  exclude: true\n---\n# All code\n\n" + "\n".join(listed) + "\n"
    files.append(File.generated(config, "code/index.md", content=text))
    text, pictures = notebook_page()
    files.append(File.generated(config, NOTEBOOK_PAGE, content=text))
    for name, picture in pictures.items():
        files.append(File.generated(config, name, content=picture))
    return files


def notebook_page():
    """Returns the notebook as Markdown, with the outputs of its cells, and its pictures by name."""
    path = ROOT / "docs" / "walkthrough.ipynb"
    parts, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            else:
                name = f"walkthrough/{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![what the cell above shows]({name})")
    title, *rest = parts
    get = (
        "This page is a notebook: [download it](walkthrough.ipynb), install what opens it with "
        "`pip install -e '.[notebook]'` in a copy of the repository, and start `jupyter lab`."
    )
    return "\n\n".join([title, get, *rest]) + "\n", pictures


def on_page_markdown(markdown, page, config, files):
    """Turns links to code into links to its pages, and formulas into MathML."""
    if page.file.src_uri.startswith("code/"):
        return markdown
    here = posixpath.dirname(page.file.src_uri)

    def code_link(match):
        up, target, anchor = match.groups()
        outside = posixpath.normpath(posixpath.join("docs", here, up, target))
        if outside.startswith("docs/") or not (ROOT / outside).exists():
            return match[0]  # MkDocs finds the file or warns
        if (ROOT / outside).is_dir():
            found = "code/index.md"
        elif outside.endswith(".py") or outside in OTHERS:
            found = f"code/{outside}.md"
        elif outside in ("README.md", "README.ko.md"):  # the front page has the same text
            found = "ko/index.md" if ".ko." in outside else "index.md"
        else:
            return match[0]
        return f"]({posixpath.relpath(found, here or '.')})"

    if page.file.src_uri != NOTEBOOK_PAGE:  # the notebook's page links to the file to download
        markdown = markdown.replace("walkthrough.ipynb)", f"{NOTEBOOK_PAGE})")
    parts = CODE.split(OUTSIDE.sub(code_link, markdown))
    parts[::2] = [FORMULA.sub(_mathml, part) for part in parts[::2]]
    markdown = "".join(parts)
    if "figure1.svg)" in markdown:  # inlines the drawing, because links in an image do not work
        up = posixpath.relpath(".", here or ".")
        drawing = (ROOT / "docs" / "figure1.svg").read_text(encoding="utf-8")
        korean = page.file.src_uri.startswith("ko/")
        drawing = drawing.replace('href="', f'href="{up}/').replace("\n", "")
        drawing = drawing.replace("paper/", "ko/paper/") if korean else drawing
        markdown = re.sub(r"!\[[^\]]*\]\([^)]*figure1\.svg\)", lambda _: drawing, markdown)
    return markdown


def _mathml(match):
    formula, display = match[1] or match[2], "block" if match[1] else "inline"
    math = latex2mathml.converter.convert(formula.strip(), display=display)
    # A formula on a line of its own scrolls by itself on narrow screens (extra.css).
    return f'<span class="formula">{math}</span>' if match[1] else math


def on_post_page(output, page, config):
    """Makes the language switch lead to the same page in the other language, if there is one."""
    here = page.file.src_uri
    korean = here.startswith("ko/")
    twin = here.removeprefix("ko/") if korean else f"ko/{here}"
    if korean:
        output = output.replace('<html lang="en"', '<html lang="ko"', 1)
    if (ROOT / "docs" / twin).exists():
        link = posixpath.relpath(twin, posixpath.dirname(here) or ".").removesuffix(".md")
        other = "en" if korean else "ko"
        output = re.sub(
            rf'<a href="[^"]*"( hreflang="{other}")', rf'<a href="{link}.html"\1', output
        )
    return output
