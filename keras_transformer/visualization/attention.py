"""Heat maps of attention, and the probabilities of tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transformer.visualization.fonts import drawn_in_our_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn_in_our_fonts()
def attention(
    weights: Any, queries: Sequence[str], keys: Sequence[str], title: str | None = None
) -> "Figure":
    """Draws who attends to whom: a heat map per head, with queries as rows (section 3.2).

    Every row sums to 1, and all maps share one scale, from 0 to 1.

    Args:
        weights: [L, H, T, S], drawn as a row of maps per layer; [H, T, S]; or [T, S] of one head or
            of a mean of heads.
        queries: T strings, the tokens that attend.
        keys: S strings, the tokens that are attended to.
        title: A title above all maps.

    Raises:
        ValueError: If there are not as many labels as rows and columns.

    Example:

    ```python
    figure = kt.visualization.attention(np.eye(2), ["나는", "간다"], ["I", "go"])
    figure.savefig("attention.png")
    ```
    """
    from matplotlib.figure import Figure

    weights = np.asarray(weights, "float32")
    if not 2 <= weights.ndim <= 4 or weights.shape[-2:] != (len(queries), len(keys)):
        raise ValueError(
            f"Weights of shape {weights.shape} do not go with {len(queries)} queries and "
            f"{len(keys)} keys. Pass weights [heads, queries, keys]."
        )
    if weights.ndim == 4:
        return _mosaic(weights, queries, keys, title)
    heads = 1 if weights.ndim == 2 else len(weights)
    columns = min(heads, 4 if len(keys) <= 24 else 2)
    names = [f"head {h + 1}" for h in range(heads)] if weights.ndim == 3 else [""]
    weights = weights.reshape(-1, len(queries), len(keys))
    rows = -(-len(weights) // columns)
    cell, fontsize = (0.2 if max(len(keys), len(queries)) > 12 else 0.26), 7  # inches, points
    if heads == 1:  # a map by itself can be larger
        cell, fontsize = 0.3, 10
    letter = 0.09 * fontsize / 7
    longest = [letter * max(map(len, labels)) + 0.25 for labels in (queries, keys)]
    size = cell * len(keys) + longest[0], cell * len(queries) + longest[1] + 0.3
    figure = Figure(
        figsize=(columns * size[0] + 0.8, rows * size[1] + (0.4 if title else 0.1)),
        layout="constrained",
    )
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for number, panel in enumerate(panels):
        if number >= len(weights):
            panel.set_axis_off()
            continue
        image = panel.imshow(weights[number], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        panel.set_xticks(range(len(keys)), keys, rotation=90, fontsize=fontsize)
        panel.set_yticks(range(len(queries)), queries, fontsize=fontsize)
        panel.tick_params(length=0)
        if names[number]:
            panel.set_title(names[number], fontsize=8)
    figure.colorbar(image, ax=figure.axes, fraction=0.02, pad=0.01).ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _mosaic(weights, queries, keys, title):
    """Draws all layers and heads as one image, because many small axes would take seconds."""
    from matplotlib.figure import Figure

    layers, heads, rows, columns = weights.shape
    # A blank row and column after each map.
    padded = np.pad(weights, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    image = padded.transpose(0, 2, 1, 3).reshape(layers * (rows + 1), heads * (columns + 1))
    size = 0.17 * image.shape[1] + 1.6, 0.17 * image.shape[0] + 1.4
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    panel.imshow(image, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
    across = [h * (columns + 1) + k for h in range(heads) for k in range(columns)]
    down = [i * (rows + 1) + q for i in range(layers) for q in range(rows)]
    panel.set_xticks(across, list(keys) * heads, rotation=90, fontsize=6)
    panel.set_yticks(down, list(queries) * layers, fontsize=6)
    panel.tick_params(length=0)
    for head in range(heads):
        place = head * (columns + 1) + (columns - 1) / 2
        panel.text(place, -0.8, f"head {head + 1}", ha="center", va="bottom", fontsize=7)
    for layer in range(layers):
        place = layer * (rows + 1) + (rows - 1) / 2
        panel.text(
            image.shape[1] - 0.4, place, f"layer {layer + 1}", va="center", rotation=270, fontsize=7
        )
    panel.spines[:].set_visible(False)
    if title:
        panel.set_title(title, fontsize=9, pad=14)
    return figure


@drawn_in_our_fonts()
def token_probabilities(
    tokens: Sequence[str], probabilities: Sequence[float], title: str | None = None
) -> "Figure":
    """Draws how probable each token of a translation was, one bar per token.

    Args:
        tokens: T strings.
        probabilities: T numbers from 0 to 1.
        title: A title above the bars.

    Example:

    ```python
    kt.visualization.token_probabilities(["I", "go", "home"], [0.9, 0.7, 0.95])
    ```
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.45 * len(tokens) + 1, 2.4), layout="constrained")
    panel = figure.subplots()
    panel.bar(range(len(tokens)), probabilities, color="tab:blue")
    panel.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8)
    panel.set_ylim(0, 1)
    panel.set_ylabel("probability")
    if title:
        panel.set_title(title, fontsize=10)
    return figure
