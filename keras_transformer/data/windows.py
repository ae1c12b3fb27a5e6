"""Batches of a long text for language models: windows of it, each with the next tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transformer.data.feed import FeedMeter
from keras_transformer.data.rows import check_devices, filled_up
from keras_transformer.ops.input_pipeline import endless, one_pass


class WindowPlan:
    """`plan(seed, update) -> batch`: windows at random places of a long text.

    Args:
        ids: Integers [N], the whole text. Id 0 is padding and not allowed.
        sequence_length: Tokens per window, T.
        batch_size: Windows per batch, B.
        seed: Of the random places. The same seed gives the same batches.
        devices: Rows of zeros with weight 0 fill up a batch until this number divides its rows.

    Raises:
        ValueError: If the text is not longer than a window, or holds padding.

    Example:

    ```python
    plan = WindowPlan(ids, sequence_length=64, batch_size=12)
    model.fit(plan.dataset(), steps_per_epoch=250, epochs=8)
    ```
    """

    def __init__(
        self,
        ids: Sequence[int] | np.ndarray,
        sequence_length: int,
        batch_size: int,
        seed: int = 1,
        devices: int = 1,
    ) -> None:
        self.ids = np.asarray(ids, "int32")
        if len(self.ids) <= sequence_length:
            raise ValueError(
                f"A text of {len(self.ids)} tokens is too short for a window of {sequence_length} "
                "and the token that follows it. Give more text, or shorter windows."
            )
        if (self.ids == 0).any():
            raise ValueError("The text holds id 0, which is padding. Count its tokens from 1.")
        self.sequence_length, self.batch_size, self.seed = sequence_length, batch_size, seed
        check_devices(devices)
        self.devices = devices

    def batch(self, update: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns `(token_ids [B, T], labels [B, T], weights [B, T])`; the weights sum to 1."""
        random = np.random.default_rng([self.seed, update])
        last = len(self.ids) - self.sequence_length
        return self._windows(random.integers(0, last, self.batch_size))

    def dataset(self, first_update: int = 0, meter: FeedMeter | None = None) -> Any:
        """The endless batches of `fit`, from an update on; see `BatchPlan.dataset`."""
        return endless(self.batch, first_update, meter)

    def evaluation(self, ids: Sequence[int] | np.ndarray) -> Any:
        """A dataset of another text, window after window, without an incomplete last window."""
        whole = WindowPlan(ids, self.sequence_length, self.batch_size, devices=self.devices)
        length, size = self.sequence_length, self.batch_size
        begins = np.arange(0, len(whole.ids) - length, length)

        def batch(index):
            return whole._windows(begins[index * size : (index + 1) * size])

        return one_pass(batch, -(-len(begins) // size))

    def _windows(self, begins):
        places = begins[:, None] + np.arange(self.sequence_length)
        weights = np.full(places.shape, 1 / places.size, "float32")
        return filled_up(self.devices, self.ids[places], self.ids[places + 1], weights)
