"""What feeding batches to a training costs."""

from typing import Any

import numpy as np
from keras import tree


class FeedMeter:
    """Counts the padding in a training's batches, and the time that it waited for them.

    Hand the same meter to the dataset and to a callback that shows the shares of both.

    Attributes:
        waited: Seconds spent waiting for a batch. On JAX and PyTorch a batch is made when it is
            asked for, and that time counts as waiting.
        positions: Positions in the batches' ids, padding included.
        padding: How many of the positions hold padding, id 0.

    Example:

    ```python
    meter = kt.data.FeedMeter()
    model.fit(
        plan.dataset(meter=meter),
        steps_per_epoch=500,
        callbacks=[kt.callbacks.TensorBoard("logs", meter=meter)],
    )
    ```
    """

    def __init__(self) -> None:
        self.waited, self.positions, self.padding = 0.0, 0, 0

    def add(self, waited: float, positions: int, padding: int) -> None:
        """Adds a batch that was taken."""
        self.waited += waited
        self.positions += positions
        self.padding += padding

    def count(self, batch: Any) -> tuple[int, int]:
        """Returns the positions of a batch's ids, and how many of them are padding."""
        inputs = batch[0] if isinstance(batch, tuple) else batch
        ids = [
            array
            for array in tree.flatten(inputs)
            if array.ndim == 2 and np.issubdtype(array.dtype, np.integer)
        ]
        positions = sum(array.size for array in ids)
        return positions, positions - sum(int(np.count_nonzero(array)) for array in ids)
