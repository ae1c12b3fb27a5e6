"""The sinusoids of section 3.5."""

from keras import ops

from keras_transformer.layers.positional_encoding import sinusoids
from keras_transformer.visualization.fonts import drawn_in_our_fonts


@drawn_in_our_fonts()
def positional_encoding(length, d_model, lines=(0, 4, 8)):
    """The positional encoding: positions across, the features of one position down (section 3.5).

    Args:
        length: number of positions.
        d_model: width D.
        lines: features drawn as lines below: 2 i is the sine of pair i, 2 i + 1 its cosine.

    Returns:
        A `matplotlib.figure.Figure`.

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
