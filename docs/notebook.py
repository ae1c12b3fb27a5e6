"""Runs docs/walkthrough.ipynb and stores what it prints and shows: `make notebook`.

It does not use Jupyter, which would also store times, paths and versions of the machine.
`tests/test_notebook.py` fails if the stored outputs differ from what the code prints.
"""

import ast
import base64
import contextlib
import io
import json
import re
from pathlib import Path

from keras_transformer.files import replacing

NOTEBOOK = Path(__file__).with_name("walkthrough.ipynb")


def read():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def run(sizes=None):
    """Runs the code cells.

    Args:
        sizes: `(sentences, updates)` instead of the notebook's own.

    Returns:
        The outputs per code cell, in the format of notebooks, and the variables at the end.
    """
    names, outputs = {"__name__": "notebook"}, []
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
        out, value = io.StringIO(), None
        with contextlib.redirect_stdout(out):
            exec(compile(tree, f"cell {number}", "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        outputs.append([*_printed(out.getvalue()), *_shown(value)])
    return outputs, names


def _printed(text):
    if text:
        yield {
            "name": "stdout",
            "output_type": "stream",
            "text": [line.rstrip() + "\n" for line in text.splitlines()],
        }


def _shown(value):
    if value is not None:
        yield {
            "data": {"image/png": base64.b64encode(_small(value._repr_png_())).decode()},
            "metadata": {},
            "output_type": "display_data",
        }


def _small(png):
    """Reduces the picture to 64 colours, about a third of the bytes, and drops its date."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64).save(buffer, "png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    notebook, (outputs, _) = read(), run()
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, found) in enumerate(zip(code, outputs, strict=True), start=1):
        cell |= {"execution_count": number, "outputs": found}
    with replacing(NOTEBOOK) as file:
        file.write((json.dumps(notebook, ensure_ascii=False, indent=1) + "\n").encode())
