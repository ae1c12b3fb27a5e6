"""What `mkdocs build` does beside MkDocs: code as pages, formulas as MathML, Figure 1 as links."""

import posixpath
import re
from pathlib import Path

import latex2mathml.converter
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
FOLDERS = ("keras_transformer", "recipes", "benchmarks", "tests")
# A link out of docs/ to a file or folder of the repository.
OUTSIDE = re.compile(rf"\]\(((?:\.\./)+)((?:{'|'.join(FOLDERS)})\b[\w/.-]*|[\w.-]+)(#[\w-]*)?\)")
CODE = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]+`)", re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$([^$\n]+?)\$(?![\w$])", re.DOTALL)


def on_files(files, config):
    """Adds a page for each source file, so that code is read without leaving the site."""
    sources = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    listed = []
    for path in [*sources, ROOT / "Makefile", ROOT / "pyproject.toml"]:
        name = path.relative_to(ROOT).as_posix()
        listed.append(f"- [{name}]({name}.md)")
        language = "python" if path.suffix == ".py" else "makefile"
        text = (
            f"---\nsearch:\n  exclude: true\ntitle: {path.name}\n---\n# `{name}`\n\n"
            f"````{language}\n{path.read_text(encoding='utf-8')}\n````\n"
        )
        files.append(File.generated(config, f"code/{name}.md", content=text))
    text = "---\nsearch:\n  exclude: true\n---\n# All code\n\n" + "\n".join(listed) + "\n"
    files.append(File.generated(config, "code/index.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to code become links to its pages, formulas MathML."""
    if page.file.src_uri.startswith("code/"):
        return markdown
    here = posixpath.dirname(page.file.src_uri)

    def code_link(match):
        up, target, anchor = match.groups()
        outside = posixpath.normpath(posixpath.join("docs", here, up, target))
        if not (ROOT / outside).exists():
            return match[0]  # MkDocs warns of it
        if (ROOT / outside).is_dir():
            found = "code/index.md"
        elif outside.endswith((".py", "Makefile", "pyproject.toml")):
            found = f"code/{outside}.md"
        elif outside.startswith("docs/"):
            return match[0]
        else:  # README.md and its like are what the front page says
            found = "index.md"
        return f"]({posixpath.relpath(found, here or '.')})"

    parts = CODE.split(OUTSIDE.sub(code_link, markdown))
    parts[::2] = [FORMULA.sub(_mathml, part) for part in parts[::2]]
    markdown = "".join(parts)
    if "figure1.svg)" in markdown:  # the drawing itself: links in an image do not work
        up = posixpath.relpath(".", here or ".")
        drawing = (ROOT / "docs" / "figure1.svg").read_text(encoding="utf-8")
        korean = page.file.src_uri.startswith("ko/")
        drawing = drawing.replace('href="', f'href="{up}/').replace("\n", "")
        drawing = drawing.replace("paper/", "ko/paper/") if korean else drawing
        markdown = re.sub(r"!\[[^\]]*\]\([^)]*figure1\.svg\)", lambda _: drawing, markdown)
    return markdown


def _mathml(match):
    formula, display = match[1] or match[2], "block" if match[1] else "inline"
    return latex2mathml.converter.convert(formula.strip(), display=display)
