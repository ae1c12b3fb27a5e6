"""Batches of labelled images: each image once per epoch, moved a little each time."""

import functools
from typing import Any

import numpy as np

from keras_transformer.data.feed import FeedMeter
from keras_transformer.data.rows import check_devices, filled_up
from keras_transformer.ops.input_pipeline import endless, one_pass


def scaled(images: np.ndarray) -> np.ndarray:
    """Returns pixels from 0 to 255 as floats from -1 to 1.

    Example:

    >>> scaled(np.array([0, 255]))  # [-1., 1.]
    """
    return np.asarray(images, "float32") / 127.5 - 1


class ImagePlan:
    """`plan(seed, update) -> batch`: an endless sequence of epochs, cut into batches.

    Each epoch holds every image once, in another order. A batch is `(images [B, Y, X, C] from -1 to
    1, labels [B], weights [B])`. The weights sum to 1, for a loss that sums.

    Args:
        images: Integers [N, Y, X, C] from 0 to 255.
        labels: Integers [N] from 0.
        batch_size: Images per batch, B.
        seed: Of order, shifts and mirroring. The same seed gives the same batches.
        shift: Each image is moved by at most this many pixels, vertically and horizontally. The
            border that appears is 0, black.
        mirror: Whether half of the images, chosen at random, are mirrored.
        devices: Black images with weight 0 fill up a batch until this number divides its images.

    Raises:
        ValueError: If the images and labels do not fit each other, or there are none.

    Example:

    ```python
    plan = ImagePlan(images, labels, batch_size=128, shift=2)
    model.fit(plan.dataset(), steps_per_epoch=100, epochs=10)
    ```
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int = 1,
        shift: int = 0,
        mirror: bool = False,
        devices: int = 1,
    ) -> None:
        self.images, self.labels = np.asarray(images), np.asarray(labels, "int32")
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                "Images are [N, Y, X, C] and labels [N], got shapes "
                f"{self.images.shape} and {self.labels.shape}."
            )
        if not len(self.images):
            raise ValueError("There is no image to make batches of. Give one or more.")
        self.batch_size, self.seed, self.shift, self.mirror = batch_size, seed, shift, mirror
        check_devices(devices)
        self.devices = devices

    def batch(self, update: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns `(images [B, Y, X, C], labels [B], weights [B])`."""
        size, count = self.batch_size, len(self.images)
        epochs, places = np.divmod(update * size + np.arange(size), count)
        orders = {epoch: _order(self.seed, epoch, count) for epoch in set(epochs)}
        chosen = [orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)]
        images = self.images[chosen]
        random = np.random.default_rng([self.seed, update])
        if self.shift:
            images = _moved(
                images, random.integers(-self.shift, self.shift + 1, (2, size)), self.shift
            )
        if self.mirror:
            mirrored = random.random(size) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        return _batch(images, self.labels[chosen], self.devices)

    def dataset(self, first_update: int = 0, meter: FeedMeter | None = None) -> Any:
        """The endless batches of `fit`, from an update on; see `BatchPlan.dataset`."""
        return endless(self.batch, first_update, meter)

    def evaluation(self, images: np.ndarray, labels: np.ndarray) -> Any:
        """A dataset of other images, unchanged, each once."""
        whole = ImagePlan(images, labels, self.batch_size)

        def batch(index):
            part = slice(index * self.batch_size, (index + 1) * self.batch_size)
            return _batch(whole.images[part], whole.labels[part], self.devices)

        return one_pass(batch, -(-len(whole.images) // self.batch_size))


@functools.lru_cache(maxsize=4)
def _order(seed, epoch, count):
    # Four numbers, so that no order uses the random numbers of an update's shifts.
    return np.random.default_rng([seed, epoch, count, 1]).permutation(count)


def _moved(images, steps, most):
    """Moves each image down and right by its `steps` [2, B], from -most to most."""
    framed = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(framed, images.shape[1:3], axis=(1, 2))
    down, right = most - steps
    return np.moveaxis(views[np.arange(len(images)), down, right], 1, -1)


def _batch(images, labels, devices):
    weights = np.full(len(images), 1 / len(images), "float32")
    images, labels, weights = filled_up(devices, images, labels, weights)
    return scaled(images), labels, weights
