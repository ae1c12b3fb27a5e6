"""Fonts that have every glyph of our pictures, on any machine."""

import contextlib
import functools
import importlib.util
from pathlib import Path


def korean_font():
    """The path of NanumGothic (Open Font License), which the koreanize-matplotlib package carries.

    The package is not imported: that would change matplotlib's settings for everybody.
    """
    package = importlib.util.find_spec("koreanize_matplotlib")
    if package is None:
        raise ImportError("Korean in pictures needs koreanize-matplotlib: pip install it.")
    return Path(package.submodule_search_locations[0]) / "fonts" / "NanumGothic.ttf"


@functools.cache
def _families():
    """The families to take, in order: NanumGothic has no ▁ and no −, DejaVu no Korean."""
    from matplotlib import font_manager

    path = str(korean_font())
    font_manager.fontManager.addfont(path)
    return ["DejaVu Sans", font_manager.FontProperties(fname=path).get_name()]


@contextlib.contextmanager
def drawn_in_our_fonts():
    """Text that matplotlib makes in this context, or in a function that it decorates, has glyphs
    for Korean, for ▁ and for the minus sign; a wrong glyph is never drawn in silence.

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
