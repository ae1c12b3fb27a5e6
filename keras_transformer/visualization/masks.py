"""Which positions may see which (section 3.2.3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from keras_transformer.ops.masks import causal_mask, combine_masks, padding_mask
from keras_transformer.visualization.fonts import drawn_in_our_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn_in_our_fonts()
def masks(sources: Sequence[str], targets: Sequence[str], pad: str = "<pad>") -> "Figure":
    """Draws the three masks of a Transformer, with queries as rows. Dark keys are hidden.

    Encoder: no position sees padding. Decoder: a position sees itself and earlier positions.
    Across: every target position sees the source without its padding.

    Args:
        sources: The source's tokens with its padding.
        targets: The decoder's input with its padding.
        pad: How padding is written in both.

    Example:

    ```python
    kt.visualization.masks(["나는", "간다", "<end>", "<pad>"], ["<start>", "I", "go", "<pad>"])
    ```
    """
    from matplotlib.figure import Figure

    source, target = (padding_mask([[int(x != pad) for x in s]]) for s in (sources, targets))
    panels = (
        ("encoder: padding", sources, sources, combine_masks(source)),
        (
            "decoder: padding and what is later",
            targets,
            targets,
            combine_masks(target, causal=causal_mask(len(targets))),
        ),
        ("across: padding", targets, sources, combine_masks(source)),
    )
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, (title, queries, keys, seen) in zip(figure.subplots(1, 3), panels, strict=True):
        seen = np.broadcast_to(ops.convert_to_numpy(seen)[0, 0], (len(queries), len(keys)))
        axes.imshow(seen, cmap="gray", vmin=-0.4, vmax=1)
        axes.set_xticks(range(len(keys)), keys, rotation=90, fontsize=8)
        axes.set_yticks(range(len(queries)), queries, fontsize=8)
        axes.set_xticks(np.arange(len(keys) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(queries) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="tab:gray", linewidth=0.5)
        axes.tick_params(which="both", length=0)
        axes.set_title(title, fontsize=9)
    return figure
