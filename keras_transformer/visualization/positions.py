"""The sinusoids of section 3.5."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras import ops

from keras_transformer.layers.positional_encoding import sinusoids
from keras_transformer.visualization.fonts import drawn_in_our_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn_in_our_fonts()
def positional_encoding(length: int, d_model: int, lines: Sequence[int] = (0, 4, 8)) -> "Figure":
    """Draws the positional encoding: a column per position, a row per feature (section 3.5).

    Args:
        length: The number of positions.
        d_model: Width D.
        lines: Features drawn as lines below: 2 i is the sine of pair i, and 2 i + 1 its cosine.

    Example:

    ```python
    kt.visualization.positional_encoding(50, 128).savefig("positions.png")
    ```
    """
    from matplotlib.figure import Figure

    table = ops.convert_to_numpy(sinusoids(length, d_model))  # [length, D]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    heat, curves = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    image = heat.imshow(table.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
    figure.colorbar(image, ax=heat)
    heat.set_ylabel("feature")
    for feature in lines:
        if feature < d_model:
            curves.plot(table[:, feature], marker=".", label=f"feature {feature}")
    curves.set_xlabel("position")
    curves.legend(fontsize=7, loc="upper right")
    return figure
