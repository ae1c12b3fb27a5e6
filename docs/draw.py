"""Draws every picture of docs/ that comes from running code: `make pictures`.

Pictures of the walk-through's trained model need docs/paper/figures.json, which
docs/paper/measure.py writes. Pictures of long measurements need the reports and tables beside their
code. `tests/test_docs.py` fails if a stored picture differs from the one drawn here.
"""

import importlib.util
import io
from pathlib import Path

from keras_transformer.files import replacing

DOCS = Path(__file__).parent
# Code with PICTURES, {file: function that returns a figure}; folder of the pictures; dots per inch.
CODE = (
    ("paper/drawing.py", "paper/pictures", 90),
    ("family/draw.py", "family", 100),
    ("performance/draw.py", "performance", 110),
    ("results/draw.py", "results", 110),
)


def module(path):
    """Imports a file of docs/ as a module."""
    name = "_".join(path.relative_to(DOCS).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def png(figure, dpi):
    """Returns the bytes of a figure's PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def drawn():
    """Draws all pictures, and yields their paths and bytes."""
    for code, folder, dpi in CODE:
        for name, draw in module(DOCS / code).PICTURES.items():
            yield DOCS / folder / name, png(draw(), dpi)
    yield DOCS / "figure1.svg", module(DOCS / "site" / "figure1.py").figure().encode()


if __name__ == "__main__":
    for path, data in drawn():
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as file:
            file.write(data)
        print(path.relative_to(DOCS.parent), f"{len(data):,} bytes")
