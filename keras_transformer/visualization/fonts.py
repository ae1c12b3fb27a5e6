"""Fonts that have every glyph of our pictures, on any machine."""

import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path


def korean_font() -> Path:
    """Returns the path of NanumGothic (Open Font License) in the package koreanize-matplotlib.

    The package is not imported, because that would change matplotlib's settings for the process.
    """
    package = importlib.util.find_spec("koreanize_matplotlib")
    if package is None or not package.submodule_search_locations:
        raise ImportError("Korean in pictures needs a package: pip install koreanize-matplotlib")
    return Path(package.submodule_search_locations[0]) / "fonts" / "NanumGothic.ttf"


@functools.cache
def _families():
    """Font families in order. NanumGothic has neither ▁ nor −, and DejaVu has no Korean."""
    from matplotlib import font_manager

    path = str(korean_font())
    font_manager.fontManager.addfont(path)
    return ["DejaVu Sans", font_manager.FontProperties(fname=path).get_name()]


@contextlib.contextmanager
def drawn_in_our_fonts() -> Iterator[None]:
    """Lets matplotlib draw Korean, ▁ and the minus sign in this block or in a decorated function.

    Example:

    ```python
    @drawn_in_our_fonts()
    def draw():
        figure = matplotlib.figure.Figure()
        figure.suptitle("나는 집에 간다")
        return figure
    ```
    """
    import matplotlib

    with matplotlib.rc_context({"font.family": _families(), "axes.unicode_minus": True}):
        yield
