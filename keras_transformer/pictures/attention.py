"""Heat maps of attention, and the probabilities of tokens."""

import numpy as np

from keras_transformer.pictures.fonts import drawn_in_our_fonts


@drawn_in_our_fonts()
def attention(weights, queries, keys, title=None, head_names=None):
    """Who attends to whom: a heat map for each head, queries down, keys across (section 3.2).

    Every row sums to 1, and all maps share one scale, from 0 to 1.

    Args:
        weights: [H, T, S], or [T, S] of one head or of a mean of heads.
        queries: T strings, the tokens that attend.
        keys: S strings, the tokens that are attended to.
        title: above all maps.
        head_names: H strings; by default "head 1" and so on.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: where the labels are not as many as the weights have rows and columns.

    Example:

    ```python
    pictures.attention(np.eye(3), ["나는", "집에", "간다"], ["I", "go", "home"]).savefig("a.png")
    ```
    """
    from matplotlib.figure import Figure

    weights = np.asarray(weights, "float32")
    if weights.ndim == 2:
        weights, head_names = weights[None], head_names or [""]
    if weights.ndim != 3 or weights.shape[1:] != (len(queries), len(keys)):
        raise ValueError(
            f"Weights of shape {weights.shape} do not go with {len(queries)} queries and "
            f"{len(keys)} keys: expected [heads, queries, keys]."
        )
    heads = len(weights)
    columns = min(heads, 4 if len(keys) <= 24 else 2)
    rows = -(-heads // columns)
    cell = 0.2 if max(len(keys), len(queries)) > 12 else 0.26  # inches
    longest = [0.09 * max(map(len, labels)) + 0.25 for labels in (queries, keys)]
    size = cell * len(keys) + longest[0], cell * len(queries) + longest[1] + 0.3
    figure = Figure(
        figsize=(columns * size[0] + 0.8, rows * size[1] + (0.4 if title else 0.1)),
        layout="constrained",
    )
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for number, panel in enumerate(panels):
        if number >= heads:
            panel.set_axis_off()
            continue
        image = panel.imshow(weights[number], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        panel.set_xticks(range(len(keys)), keys, rotation=90, fontsize=7)
        panel.set_yticks(range(len(queries)), queries, fontsize=7)
        panel.tick_params(length=0)
        name = head_names[number] if head_names else f"head {number + 1}"
        if name:
            panel.set_title(name, fontsize=8)
    figure.colorbar(image, ax=figure.axes, fraction=0.02, pad=0.01).ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


@drawn_in_our_fonts()
def token_probabilities(tokens, probabilities, title=None):
    """How probable each token of a translation was, one bar a token.

    Args:
        tokens: T strings.
        probabilities: T numbers from 0 to 1.
        title: above.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    ```python
    pictures.token_probabilities(["I", "go", "home"], [0.9, 0.7, 0.95])
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
