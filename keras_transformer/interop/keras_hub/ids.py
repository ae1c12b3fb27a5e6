"""Ids of KerasHub's models and ours: in ours 0 is padding."""

import numpy as np

NONE = -1
START = 1  # of BART, in ours
# Their id of padding, as in the presets of KerasHub. GPT-2 has none.
PADDING = {
    "BertBackbone": 0,
    "RobertaBackbone": 1,
    "XLMRobertaBackbone": 1,
    "GPT2Backbone": NONE,
    "BartBackbone": 1,
}


def their_ids(backbone: str, size: int, pad_id: int | None = None) -> np.ndarray:
    """Their id of each of our ids: integers [V].

    Padding and their id 0 change places. GPT-2 gets an id of padding, which is `NONE` there. BART
    begins a target with its end. Here a search never emits the start, so the start is an id of its
    own, which is the end there.

    Args:
        backbone: The name of the class of the backbone.
        size: The number of their ids.
        pad_id: Their id of padding, if it is another than in `PADDING`.
    """
    pad_id = PADDING[backbone] if pad_id is None else pad_id
    ids = np.arange(size)
    if pad_id == NONE:
        return np.array([NONE, *ids])
    if backbone == "BartBackbone":
        return np.array([1, 2, 0, *ids[2:]])  # <pad>, </s> as the start, <s>, </s>, ...
    ids[[0, pad_id]] = [pad_id, 0]
    return ids


def our_ids(theirs: np.ndarray) -> np.ndarray:
    """Our id of each of their ids, from `their_ids`: integers [their number]."""
    ours = np.zeros(theirs.max() + 1, int)
    real = np.nonzero(theirs != NONE)[0]
    ours[theirs[real]] = real  # the later of two
    return ours
