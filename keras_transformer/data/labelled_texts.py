"""Single texts to ids and to batches, for models that are only an encoder."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_transformer import progress
from keras_transformer.data.batches import BatchPlan
from keras_transformer.data.rows import check_devices, filled_rows, spread
from keras_transformer.ops.input_pipeline import one_pass
from keras_transformer.ops.labels import check_special_ids
from keras_transformer.text.protocol import check_tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Texts as ids: text i is `.text(i)`, without the start and end that batches add.

    Attributes:
        ids: int32, all texts one after another.
        offsets: int64 [len + 1]; text i is `ids[offsets[i]:offsets[i + 1]]`.
        labels: int32 [len], the class of each text, or None.
        start_id, end_id: The ids that batches put around each text.
        special_ids: Ids that are not text.
        max_length: The longest row of a batch, start and end included.
        cut: How many texts were longer and lost their ends.

    Raises:
        ValueError: If the start or the end has id 0, which is padding.
    """

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    start_id: int
    end_id: int
    special_ids: tuple
    max_length: int
    cut: int

    def __post_init__(self):
        check_special_ids(self.start_id, self.end_id)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [len]: tokens of each text, without start and end."""
        return np.diff(self.offsets)

    # BatchPlan expects two lengths per item. A text reports its own, with the start, for both.
    @property
    def source_lengths(self) -> np.ndarray:
        return self.lengths + 1

    target_lengths = source_lengths

    @functools.cached_property
    def ordinary(self) -> np.ndarray:
        """int64 [len]: tokens of each text that are not special ids."""
        counts = np.cumsum(~np.isin(self.ids, self.special_ids))
        return np.diff(np.concatenate([[0], counts])[self.offsets])

    def text(self, i: int) -> np.ndarray:
        """int32 [lengths[i]]: the ids of text i."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def select(self, chosen: np.ndarray) -> "EncodedTexts":
        """Returns the texts of these indices, in their order, or where booleans [len] are True."""
        chosen = np.arange(len(self))[chosen]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[chosen])])
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], self.lengths[chosen])
        return dataclasses.replace(
            self,
            ids=self.ids[np.repeat(self.offsets[chosen], self.lengths[chosen]) + places],
            offsets=offsets,
            labels=None if self.labels is None else self.labels[chosen],
        )

    def rows(self, members: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Returns int32 [B, S]: `<s> text </s>` of each member, then padding."""
        members, (rows, width) = np.asarray(members), shape
        places = spread(len(members), rows)
        token_ids = np.zeros((rows, width), np.int32)
        token_ids[:, 1:], _ = filled_rows(
            self.ids, self.offsets, self.end_id, members, places, (rows, width - 1)
        )
        token_ids[places, 0] = self.start_id
        return token_ids

    def prediction(self, tokens_per_batch: int = 4096, devices: int = 1) -> tuple[Any, np.ndarray]:
        """Returns the data of `model.predict`: every text, texts of similar lengths together.

        Args:
            tokens_per_batch: The greatest `B * S` of a batch `(token_ids [B, S],)`, unless it is a
                single text.
            devices: The last text of a batch is repeated until this number divides its rows.

        Returns:
            A dataset, and integers: the text of each of its rows.

        Example:

        ```python
        dataset, order = encoded.prediction()
        logits = np.empty((len(encoded), num_classes))
        logits[order] = classifier.predict(dataset)
        ```
        """
        check_devices(devices)
        order, widths = np.argsort(-self.lengths, kind="stable"), self.lengths + 2
        begins = [0]
        while begins[-1] < len(order):
            width = widths[order[begins[-1]]]
            begins.append(min(len(order), begins[-1] + max(1, tokens_per_batch // width)))

        parts = [order[a:b] for a, b in itertools.pairwise(begins)]
        parts = [np.append(part, part[-1:].repeat(-len(part) % devices)) for part in parts]

        def batch(index):
            members = parts[index]
            return (self.rows(members, (len(members), widths[members[0]])),)

        return one_pass(batch, len(parts)), np.concatenate(parts)


def encode_texts(
    texts: Iterable[str],
    tokenizer: Any,
    labels: Sequence[int] | np.ndarray | None = None,
    max_length: int = 256,
) -> EncodedTexts:
    """Encodes single texts once. Long texts are cut, and empty ones kept.

    Args:
        texts: Strings.
        tokenizer: A `kt.text.Tokenizer`, or an object with its `encode`, `start_id`, `end_id` and
            `special_ids`, such as a `kt.interop.keras_hub.HubTokenizer`.
        labels: Integers, the class of each text, if there are classes.
        max_length: The longest row, in tokens with start and end.

    Raises:
        ValueError: If there is no text, or another number of labels, or the tokenizer lacks these.

    Example:

    ```python
    train = kt.data.encode_texts(["a fine film", "no"], tokenizer, labels=[1, 0])
    plan = kt.data.LabelledPlan(train, tokens_per_batch=4096)
    ```
    """
    if max_length < 3:
        raise ValueError(f"A row has a start, a token and an end, got max_length={max_length}.")
    check_tokenizer(tokenizer, ("encode", "start_id", "end_id", "special_ids"))
    texts, encoded = list(texts), []
    with progress.work("encoding", sum(map(len, texts)), "characters") as done:
        for text in texts:
            encoded.append(tokenizer.encode(text))
            done(len(text))
    if not encoded:
        raise ValueError("There is no text to encode. Give one or more.")
    if labels is not None and len(labels) != len(encoded):
        raise ValueError(f"Got {len(encoded)} texts and {len(labels)} labels: each text needs one.")
    kept = [ids[: max_length - 2] for ids in encoded]
    return EncodedTexts(
        ids=np.fromiter(itertools.chain.from_iterable(kept), np.int32),
        offsets=np.cumsum([0, *map(len, kept)]),
        labels=None if labels is None else np.asarray(labels, np.int32),
        start_id=tokenizer.start_id,
        end_id=tokenizer.end_id,
        special_ids=tuple(tokenizer.special_ids()),
        max_length=max_length,
        cut=sum(len(ids) > max_length - 2 for ids in encoded),
    )


class LabelledPlan(BatchPlan):
    """Which texts are in which batch of which update: `BatchPlan` for a text and its class.

    A batch is `(token_ids [B, S], labels [B], weights [B])` with `B * S <= tokens_per_batch`. A row
    is `<s> text </s>` and padding. The weights of an update sum to `accumulate`, evenly over its
    texts; rows that fill up a batch have weight 0.

    Args:
        encoded: `EncodedTexts` with labels.
        tokens_per_batch, seed, shapes, accumulate, rows_multiple, devices: See `BatchPlan`.

    Raises:
        ValueError: If there are no labels, or an argument is out of its range.

    Example:

    ```python
    plan = kt.data.LabelledPlan(kt.data.encode_texts(texts, tokenizer, labels), 4096)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model.compile(optimizer="adam", loss=loss, weighted_metrics=["accuracy"])
    model.fit(plan.dataset(), steps_per_epoch=500, validation_data=plan.evaluation(valid))
    ```
    """

    _words = ("texts", "tokens", "labels")

    def __init__(self, encoded: EncodedTexts, tokens_per_batch: int = 4096, **options: Any) -> None:
        _check_labels(encoded)
        super().__init__(encoded, tokens_per_batch, **options)

    def evaluation(self, encoded: EncodedTexts) -> Any:
        """The data of `validation_data=` and `evaluate`: every text once, see `BatchPlan`.

        All texts have the same weight, so that Keras' weighted metrics are exact as well.
        """
        _check_labels(encoded)
        return super().evaluation(encoded)

    def _counted(self, encoded, members):
        return len(members)

    def _evaluation_weights(self, rows, counted):
        return np.full(len(rows), len(rows) / counted)

    def _arrays(self, encoded, members, shape, weight, draw):
        places = spread(len(members), shape[0])
        labels, weights = np.zeros(shape[0], np.int32), np.zeros(shape[0], np.float32)
        labels[places], weights[places] = encoded.labels[members], weight
        return encoded.rows(members, shape[:2]), labels, weights


def _check_labels(encoded):
    if encoded.labels is None:
        raise ValueError("The texts have no labels. Use encode_texts(texts, tokenizer, labels).")
