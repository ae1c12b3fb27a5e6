"""The paper's models by name: every row of its Table 3, and a small one.

This file imports nothing heavy, because the command line lists the names.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One row of Table 3: what it changes in `"base"`, and what the paper measured."""

    changes: dict  # arguments of `Transformer`
    perplexity: float  # per word piece, English-German newstest2013
    bleu: float  # on the same text
    millions: int | None = None  # of parameters; None if the paper gives no other than the base's
    label_smoothing: float = 0.1  # an argument of the loss, not of the model
    updates: int = 100_000


_BASE = {"num_layers": 6, "d_model": 512, "num_heads": 8, "d_ff": 2048, "dropout": 0.1}
_BIG = {"d_model": 1024, "num_heads": 16, "d_ff": 4096, "dropout": 0.3}

# The width of a head is d_model / num_heads, so rows (A) cost the same. Rows (B) have smaller keys
# and values of the same size, as their numbers of parameters show.
TABLE_3 = {
    "base": Row({}, 4.92, 25.8, 65),
    "big": Row(_BIG, 4.33, 26.4, 213, updates=300_000),
    "A-heads-1": Row({"num_heads": 1}, 5.29, 24.9),
    "A-heads-4": Row({"num_heads": 4}, 5.00, 25.5),
    "A-heads-16": Row({"num_heads": 16}, 4.91, 25.8),
    "A-heads-32": Row({"num_heads": 32}, 5.01, 25.4),
    "B-key-dim-16": Row({"key_dim": 16, "value_dim": 64}, 5.16, 25.1, 58),
    "B-key-dim-32": Row({"key_dim": 32, "value_dim": 64}, 5.01, 25.4, 60),
    "C-layers-2": Row({"num_layers": 2}, 6.11, 23.7, 36),
    "C-layers-4": Row({"num_layers": 4}, 5.19, 25.3, 50),
    "C-layers-8": Row({"num_layers": 8}, 4.88, 25.5, 80),
    "C-d-model-256": Row({"d_model": 256}, 5.75, 24.5, 28),
    "C-d-model-1024": Row({"d_model": 1024}, 4.66, 26.0, 168),
    "C-d-ff-1024": Row({"d_ff": 1024}, 5.12, 25.4, 53),
    "C-d-ff-4096": Row({"d_ff": 4096}, 4.75, 26.2, 90),
    "D-dropout-0": Row({"dropout": 0.0}, 5.77, 24.6),
    "D-dropout-0.2": Row({"dropout": 0.2}, 4.95, 25.5),
    "D-smoothing-0": Row({}, 4.67, 25.3, label_smoothing=0.0),
    "D-smoothing-0.2": Row({}, 5.47, 25.7, label_smoothing=0.2),
    # The paper does not say how many positions it learned.
    "E-learned-positions": Row({"positions": "learned", "max_length": 256}, 4.92, 25.7),
}

# The arguments of `Transformer`. "tiny" is not from the paper; it is for small corpora (Multi30k).
PRESETS = {
    "tiny": {"num_layers": 4, "d_model": 128, "num_heads": 4, "d_ff": 256, "dropout": 0.3},
    **{name: {**_BASE, **row.changes} for name, row in TABLE_3.items()},
}


def label_smoothing(preset: str) -> float:
    """Returns the smoothing that a preset is trained with: that of its row, or the paper's 0.1.

    Example:

    >>> label_smoothing("D-smoothing-0.2")  # 0.2
    """
    return TABLE_3[preset if preset in TABLE_3 else "base"].label_smoothing
