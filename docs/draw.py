"""Draws every picture of the walk-through, and Figure 1: `make pictures`.

Those of trained models come from docs/paper/figures.json, which docs/paper/measure.py writes.
`tests/test_docs.py` fails where a picture is not what this draws.
"""

import importlib.util
import io
from pathlib import Path

from keras_transformer.checkpoint_files import replacing

DOCS = Path(__file__).parent


def module(path):
    """A file of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def png(figure):
    """A figure as the bytes of its file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()


def drawn():
    """Path and bytes of each picture, drawn now."""
    for name, draw in module(DOCS / "paper" / "drawing.py").PICTURES.items():
        yield DOCS / "paper" / "pictures" / name, png(draw())
    yield DOCS / "figure1.svg", module(DOCS / "site" / "figure1.py").figure().encode()


if __name__ == "__main__":
    (DOCS / "paper" / "pictures").mkdir(exist_ok=True)
    for path, data in drawn():
        with replacing(path) as file:
            file.write(data)
        print(path.relative_to(DOCS.parent), f"{len(data):,} bytes")
