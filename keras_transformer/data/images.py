"""Labelled images to batches: each once an epoch, moved a little each time."""

import functools

import numpy as np

from keras_transformer.data.feed import endless, one_pass


def scaled(images):
    """Pixels 0 to 255 as floats from -1 to 1.

    Example:

    >>> scaled(np.array([0, 255]))  # [-1., 1.]
    """
    return np.asarray(images, "float32") / 127.5 - 1


class ImagePlan:
    """`plan(seed, update) -> batch`: an endless sequence of epochs, cut into batches.

    Each epoch holds every image once, in another order. A batch is `(images [B, Y, X, C] from -1 to
    1, labels [B], weights [B])`; the weights sum to 1, for a loss that sums.

    Args:
        images: integers [N, Y, X, C] from 0 to 255.
        labels: integers [N] from 0.
        rows: images of a batch B.
        seed: of order, shifts and mirroring; the same one gives the same batches.
        shift: each image is moved by up to so many pixels, down or up and right or left; what
            comes in is 0, black.
        mirror: whether every other image, by chance, is seen in a mirror.

    Raises:
        ValueError: where images and labels do not fit each other, or there are none.

    Example:

    ```python
    plan = ImagePlan(images, labels, rows=128, shift=2)
    model.fit(plan.dataset(), steps_per_epoch=100, epochs=10)
    ```
    """

    def __init__(self, images, labels, rows, seed=1, shift=0, mirror=False):
        self.images, self.labels = np.asarray(images), np.asarray(labels, "int32")
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                "Images are [N, Y, X, C] and labels [N], got shapes "
                f"{self.images.shape} and {self.labels.shape}."
            )
        if not len(self.images):
            raise ValueError("There is no image to make batches of.")
        self.rows, self.seed, self.shift, self.mirror = rows, seed, shift, mirror

    def batch(self, update):
        """`(images [B, Y, X, C], labels [B], weights [B])`."""
        epochs, places = np.divmod(update * self.rows + np.arange(self.rows), len(self.images))
        orders = {epoch: _order(self.seed, epoch, len(self.images)) for epoch in set(epochs)}
        chosen = [orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)]
        images = self.images[chosen]
        random = np.random.default_rng([self.seed, update])
        if self.shift:
            steps = random.integers(-self.shift, self.shift + 1, (2, self.rows))
            images = _moved(images, steps, self.shift)
        if self.mirror:
            mirrored = random.random(self.rows) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        return _batch(images, self.labels[chosen])

    def dataset(self, update=0):
        """The endless batches of `fit`, from an update on; it needs `steps_per_epoch`."""
        return endless(self.batch, update)

    def evaluation(self, images, labels):
        """A dataset of other images as they are, each once."""
        whole = ImagePlan(images, labels, self.rows)

        def batch(index):
            part = slice(index * self.rows, (index + 1) * self.rows)
            return _batch(whole.images[part], whole.labels[part])

        return one_pass(batch, -(-len(whole.images) // self.rows))


@functools.lru_cache(maxsize=4)
def _order(seed, epoch, count):
    # Four numbers, so that no order draws what the shifts of an update draw.
    return np.random.default_rng([seed, epoch, count, 1]).permutation(count)


def _moved(images, steps, most):
    """Each image moved down and right by its `steps` [2, B], from -most to most."""
    framed = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(framed, images.shape[1:3], axis=(1, 2))
    down, right = most - steps
    return np.moveaxis(views[np.arange(len(images)), down, right], 1, -1)


def _batch(images, labels):
    return scaled(images), labels, np.full(len(images), 1 / len(images), "float32")
