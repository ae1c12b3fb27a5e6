"""Ids of KerasHub's models and ours: in ours 0 is padding."""

import numpy as np

# Their ids of our first ids; those that follow are the same in both orders. GPT-2 has no padding,
# so it gets a zero vector. BART begins a target with its end. Here a search never emits the start,
# so the start is an id of its own, with the same vector.
NONE = -1
START = 1  # ours, of BART
FIRST: dict[str, tuple[int, ...]] = {
    "BertBackbone": (0,),  # [PAD]
    "RobertaBackbone": (1, 0),  # <pad>, <s>
    "XLMRobertaBackbone": (1, 0),
    "GPT2Backbone": (NONE,),
    "BartBackbone": (1, 2, 0, 2),  # <pad>, </s> as the start, <s>, </s>
}


def their_ids(backbone: str, size: int) -> np.ndarray:
    """Their id of each of our ids, or `NONE`: integers [V].

    Args:
        backbone: The name of the class of the backbone.
        size: The number of their ids.
    """
    first = FIRST[backbone]
    return np.array([*first, *range(max(first) + 1, size)])


def our_ids(backbone: str, size: int) -> np.ndarray:
    """Our id of each of their ids: integers [size]."""
    theirs = their_ids(backbone, size)
    ours = np.zeros(size, int)
    real = np.nonzero(theirs != NONE)[0]
    ours[theirs[real]] = real  # the later of two
    return ours
