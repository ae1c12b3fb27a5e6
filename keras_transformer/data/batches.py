"""Token-budget batches as a pure function of (seed, update)."""

import functools
from typing import Any, NamedTuple

import numpy as np

from keras_transformer.data.feed import FeedMeter
from keras_transformer.data.layout import Layout, dynamic_bounds, static_bounds
from keras_transformer.data.rows import filled_rows, spread
from keras_transformer.data.subword_sampling import SubwordSampling
from keras_transformer.ops.compilation import compiles_each_shape
from keras_transformer.ops.input_pipeline import endless, one_pass

_TRAINING, _EVALUATION = 0, 1
_MEMBERS_AT_A_TIME = 1 << 20


class _Epoch(NamedTuple):
    encoded: Any
    layout: Layout
    order: np.ndarray  # of the pairs
    turns: np.ndarray  # the order of the batches


class BatchPlan:
    """Which pairs are in which batch of which update, without end (paper section 5.1).

    A batch is `({"source_ids": [B, S], "target_ids": [B, T]}, labels [B, T], weights [B, T])`,
    the ids and labels int32, the weights float32, all padded with 0:

    ```
    source_ids   a b c </s>        target_ids   <s> x y        labels   x y </s>
    ```

    The budget: `B * S <= tokens_per_batch` and `B * T <= tokens_per_batch`. Every position counts:
    tokens, start or end, padding. So a batch has at most `tokens_per_batch` source tokens and as
    many target tokens; `summary()` says how many it has.

    The weights: `mask * accumulate / (target tokens of the update)`. With a loss that sums, and
    Keras' average of the gradients of `accumulate` micro-batches, an update is exactly that of
    one big batch with a loss per target token. The weights of an update sum to `accumulate`.

    The order: an epoch holds every pair once. Pairs of similar lengths are together, with other
    pairs and in another order each time. All epochs have the same number of batches. Micro-batches
    form one endless sequence; update u is its elements `u * accumulate` to
    `(u + 1) * accumulate - 1`, also across the end of an epoch. Every update is computed directly,
    so resuming costs nothing.

    Args:
        encoded: The `EncodedPairs` to train on.
        tokens_per_batch: The budget above, in tokens.
        seed: Integer from 0. The same seed gives the same batches.
        shapes: "dynamic" pads to the longest pair of the batch: least padding, many shapes.
            "static" makes at most 16 shapes (B, S, S), including those of `evaluation`, because XLA
            compiles every shape anew; rows of zeros fill up the last batch of an epoch. "auto" is
            static if Keras compiles the training step by default: on JAX, and on TensorFlow with
            an accelerator.
        accumulate: Micro-batches per update: the optimizer's `gradient_accumulation_steps`.
        rows_multiple: B is a multiple of it, for replicas. Rows of zeros fill up a batch, so that
            the real rows of `rows_multiple` equal contiguous parts differ by at most one.
        devices: B is a multiple of it too, by further rows of zeros beyond the budget. So the pairs
            of every update, and what is learned from them, are those of one device.
        sampling: `SubwordSampling` of the same corpus, for another segmentation in each epoch.
            Lengths then differ between epochs. About one batch in a hundred is halved, so that all
            epochs have the same number of batches.

    Raises:
        ValueError: If a pair is too long for the budget, or an argument is out of its range.

    Example:

    ```python
    plan = kt.data.BatchPlan(kt.data.encode_pairs(pairs, tokenizer), 4096, seed=1)
    print(plan.summary())
    [(inputs, labels, weights)] = plan.batches(update=1000)
    model.fit(plan.dataset(), steps_per_epoch=500, epochs=10)
    ```
    """

    def __init__(
        self,
        encoded: Any,
        tokens_per_batch: int = 4096,
        *,
        seed: int = 0,
        shapes: str = "auto",
        accumulate: int = 1,
        rows_multiple: int = 1,
        devices: int = 1,
        sampling: SubwordSampling | None = None,
    ) -> None:
        if shapes not in ("auto", "dynamic", "static"):
            raise ValueError(f'shapes is "auto", "dynamic" or "static", got {shapes!r}.')
        if min(accumulate, rows_multiple, devices) < 1 or seed < 0:
            raise ValueError(
                "accumulate, rows_multiple and devices are at least 1 and seed is at least 0, got "
                f"{accumulate=}, {rows_multiple=}, {devices=}, {seed=}."
            )
        self.encoded = encoded
        self.tokens_per_batch = tokens_per_batch
        self.seed = seed
        self.accumulate = accumulate
        self.rows_multiple = rows_multiple
        self.devices = devices
        self.static = shapes == "static" or (shapes == "auto" and compiles_each_shape())
        self._sampling = sampling

        limit = tokens_per_batch // rows_multiple
        _check_fits(_longest(encoded), limit, "tokens_per_batch / rows_multiple")
        self._longest = min(limit, encoded.max_length)
        first = encoded if sampling is None else sampling.draw([seed, 0, 0], self._longest)
        if self.static:
            self._bounds = static_bounds(_longest(first), self._longest)
        else:
            self._bounds = dynamic_bounds(limit)
        self._layout = self._lay_out(first)
        self._counted_per_epoch = self._total(first)
        if sampling is not None:
            room = max(1, len(self._layout) // 100)
            self._layout.split(min(len(self._layout) + room, len(encoded)))
        # Two epochs, because an update may reach from one into the next.
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches that hold every pair once, the same number in all epochs."""
        return len(self._layout)

    @property
    def updates_per_epoch(self) -> float:
        """Updates that hold every pair once, perhaps a fraction."""
        return self.batches_per_epoch / self.accumulate

    def batches(self, update: int) -> list[Any]:
        """Returns the `accumulate` micro-batches of an update, counted from 0."""
        first = update * self.accumulate
        return [self._micro_batch(index) for index in range(first, first + self.accumulate)]

    def dataset(self, first_update: int = 0, meter: FeedMeter | None = None) -> Any:
        """The endless micro-batches of `fit`, from an update on.

        Args:
            first_update: The first update, from 0.
            meter: Counts their padding and the time that training waits for them.

        Returns:
            A `tf.data.Dataset` of infinite cardinality on the TensorFlow backend, otherwise a
            generator of NumPy batches. `fit` needs `steps_per_epoch`, which counts micro-batches.
        """
        return endless(self._micro_batch, first_update * self.accumulate, meter)

    def evaluation(self, encoded: Any) -> Any:
        """The data of `validation_data=` and `evaluate`: every pair once, in a fixed order.

        Budget and shapes are those of the plan. Weights are `mask * (rows of the pass) / (rows of
        the batch * target tokens of the pass)`. Keras' `val_loss` is the mean over batches,
        weighted by their rows. So with a loss that sums it is the loss per target token of the
        whole corpus, in any Keras model.

        Args:
            encoded: `EncodedPairs`, with at most the training corpus' `max_length`.

        Returns:
            A dataset that can be iterated again and again: a `tf.data.Dataset` on the TensorFlow
            backend, otherwise a `keras.utils.PyDataset`.

        Raises:
            ValueError: If a pair is too long for every batch of the plan.
        """
        _check_fits(_longest(encoded), self._bounds[-1], "the plan's longest row")
        layout = self._lay_out(encoded)
        order = layout.order()
        rows = layout.shapes(order)[:, 0]
        weights = self._evaluation_weights(rows, self._total(encoded))

        def batch(position):
            members, shape = layout.batch(order, position)
            return self._arrays(encoded, members, shape, weights[position], (_EVALUATION, position))

        return one_pass(batch, len(layout))

    def shapes(self, epoch: int = 0) -> list[tuple[int, int, int]]:
        """Returns the distinct shapes (B, S, T) of an epoch, sorted."""
        _, layout, order, _ = self._epoch(epoch)
        return sorted({tuple(shape) for shape in layout.shapes(order).tolist()})

    def padding(self, epoch: int = 0) -> float:
        """Returns the share of padding in an epoch's positions. Start and end are tokens."""
        _, layout, order, _ = self._epoch(epoch)
        rows, source, target = layout.shapes(order).T
        tokens = layout.source_lengths.sum(dtype=np.int64) + layout.target_lengths.sum(
            dtype=np.int64
        )
        return float(1 - tokens / (rows * (source + target)).sum())

    def summary(self) -> str:
        """Returns two lines: updates per epoch, and their shapes and padding."""
        items, budget, counted = self._words
        return (
            f"{len(self.encoded):,} {items}, {self.updates_per_epoch:,.1f} updates per epoch of "
            f"{self.accumulate} x {self.tokens_per_batch:,} {budget}\n"
            f"{len(self.shapes())} {'static' if self.static else 'dynamic'} shapes, "
            f"{self.padding():.1%} padding, "
            f"{self._counted_per_epoch / self.updates_per_epoch:,.0f} {counted} per update"
        )

    __str__ = summary

    def _lay_out(self, encoded):
        fitting = self.tokens_per_batch // self._bounds
        rows = fitting - fitting % self.rows_multiple
        return Layout(encoded, self._bounds, rows, self.static, self.rows_multiple, self.devices)

    def _total(self, encoded):
        """Returns how many labels of all members the loss counts."""
        begins = range(0, len(encoded), _MEMBERS_AT_A_TIME)
        ends = (min(begin + _MEMBERS_AT_A_TIME, len(encoded)) for begin in begins)
        members = (np.arange(begin, end) for begin, end in zip(begins, ends, strict=True))
        return sum(self._counted(encoded, some) for some in members)

    def _shuffled(self, epoch):
        encoded, layout = self.encoded, self._layout
        if self._sampling is not None:
            encoded, layout = self._sampled(epoch)
        rng = np.random.default_rng([self.seed, epoch])
        return _Epoch(encoded, layout, layout.order(rng), rng.permutation(len(layout)))

    def _sampled(self, epoch):
        # The sample of a small corpus may by chance be longer than all batches can hold.
        for attempt in range(1000):
            encoded = self._sampling.draw([self.seed, epoch, attempt], self._longest)
            layout = self._lay_out(encoded)
            if len(layout) <= len(self._layout):
                layout.split(len(self._layout))
                return encoded, layout
        raise RuntimeError(
            f"Epoch {epoch}: none of 1,000 segmentations fitted {len(self._layout)} batches of "
            f"{self.tokens_per_batch} tokens. Raise tokens_per_batch or lower the sampling's alpha."
        )

    def _members(self, index):
        """Returns the epoch of a micro-batch, its pairs and its shape."""
        number, position = divmod(index, len(self._layout))
        epoch = self._epoch(number)
        return epoch, *epoch.layout.batch(epoch.order, epoch.turns[position])

    def _micro_batch(self, index):
        first = index - index % self.accumulate
        counted = 0
        for neighbour in range(first, first + self.accumulate):
            epoch, members, _ = self._members(neighbour)
            counted += self._counted(epoch.encoded, members)
        epoch, members, shape = self._members(index)
        weight = self.accumulate / counted
        return self._arrays(epoch.encoded, members, shape, weight, (_TRAINING, index))

    # Overridden for corpora that are not pairs (data/labelled_texts.py, data/masked.py).

    _words = ("pairs", "tokens per side", "target tokens")

    def _counted(self, encoded, members):
        """Returns how many labels of these members the loss counts."""
        lengths = encoded.target_offsets[members + 1] - encoded.target_offsets[members]
        return (lengths + 1).sum()

    def _evaluation_weights(self, rows, counted):
        """Returns the weight of a label in each batch of a pass with `rows` [batches]."""
        return rows.sum() / (rows * counted)

    def _arrays(self, encoded, members, shape, weight, draw):
        """Returns the batch of these members. `draw` is two integers that no other batch has."""
        return _arrays(encoded, members, shape, weight)


def _longest(encoded):
    """Integers [len]: tokens of each pair's longer side, with its start or end."""
    return np.maximum(encoded.source_lengths, encoded.target_lengths) + 1


def _check_fits(longest, limit, name):
    if longest.max() > limit:
        raise ValueError(
            f"{(longest > limit).sum()} pair(s) are too long for a batch: the longest has "
            f"{longest.max()} tokens with its start or end, and {name} allows {limit}. Encode with "
            f"max_length={limit}, or raise tokens_per_batch."
        )


def _arrays(encoded, members, shape, weight):
    rows, source_width, target_width = shape
    places = spread(len(members), rows)
    source = encoded.source_ids, encoded.source_offsets, encoded.source_end_id
    target = encoded.target_ids, encoded.target_offsets, encoded.target_end_id
    source_ids, _ = filled_rows(*source, members, places, (rows, source_width))
    labels, real = filled_rows(*target, members, places, (rows, target_width))
    target_ids = np.zeros_like(labels)
    target_ids[:, 1:] = np.where(real[:, 1:], labels[:, :-1], 0)
    target_ids[places, 0] = encoded.target_start_id
    weights = real.astype(np.float32) * np.float32(weight)
    return {"source_ids": source_ids, "target_ids": target_ids}, labels, weights
