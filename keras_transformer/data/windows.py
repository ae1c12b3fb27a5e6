"""One long text to batches for a language model: windows of it, each with its next tokens."""

import numpy as np

from keras_transformer.data.feed import endless, one_pass


class WindowPlan:
    """`plan(seed, update) -> batch`: windows at random places of a long text.

    Args:
        ids: integers [N], the whole text; 0 is padding and not allowed.
        length: tokens of a window T.
        rows: windows of a batch B.
        seed: of the places; the same one gives the same batches.

    Raises:
        ValueError: where the text is not longer than a window, or holds padding.

    Example:

    ```python
    plan = WindowPlan(ids, length=64, rows=12)
    model.fit(plan.dataset(), steps_per_epoch=250, epochs=8)
    ```
    """

    def __init__(self, ids, length, rows, seed=1):
        self.ids = np.asarray(ids, "int32")
        if len(self.ids) <= length:
            raise ValueError(
                f"A text of {len(self.ids)} tokens has no window of {length} and the token that "
                "follows: give more text, or shorter windows."
            )
        if (self.ids == 0).any():
            raise ValueError("The text holds id 0, which is padding: count its tokens from 1.")
        self.length, self.rows, self.seed = length, rows, seed

    def batch(self, update):
        """`(token_ids [B, T], labels [B, T], weights [B, T])`; the weights sum to 1."""
        random = np.random.default_rng([self.seed, update])
        return self._windows(random.integers(0, len(self.ids) - self.length, self.rows))

    def dataset(self, update=0):
        """The endless batches of `fit`, from an update on; it needs `steps_per_epoch`."""
        return endless(self.batch, update)

    def evaluation(self, ids):
        """A dataset of the whole of another text, window after window, its rest left out."""
        whole = WindowPlan(ids, self.length, self.rows)
        begins = np.arange(0, len(whole.ids) - self.length, self.length)
        count = -(-len(begins) // self.rows)

        def batch(index):
            return whole._windows(begins[index * self.rows : (index + 1) * self.rows])

        return one_pass(batch, count)

    def _windows(self, begins):
        places = begins[:, None] + np.arange(self.length)
        weights = np.full(places.shape, 1 / places.size, "float32")
        return self.ids[places], self.ids[places + 1], weights
