"""Masked tokens to be predicted from their context (Devlin et al., 2018, section 3.1)."""

from typing import Any

import numpy as np

from keras_transformer.data.batches import BatchPlan
from keras_transformer.data.labelled_texts import EncodedTexts
from keras_transformer.data.rows import filled_up_to

# The shares of the chosen tokens that become the mask, and a random token. The rest stays.
MASKED, RANDOM = 0.8, 0.1


def predicted_count(tokens: np.ndarray | int, share: float = 0.15) -> np.ndarray:
    """Returns how many tokens of a text are predicted: `share` rounded, at least one if it has any.

    Example:

    >>> predicted_count(np.array([0, 1, 10, 20]))  # [0, 1, 2, 3]
    """
    rounded = np.floor(np.asarray(tokens) * share + 0.5).astype(np.int64)
    return np.where(np.asarray(tokens) > 0, np.maximum(rounded, 1), 0)


def mask_tokens(
    token_ids: np.ndarray,
    mask_id: int,
    ordinary_ids: np.ndarray,
    width: int,
    rng: np.random.Generator,
    share: float = 0.15,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chooses tokens at random and hides them: 80 % as the mask, 10 % as a random token, 10 % not.

    Args:
        token_ids: Integers [B, S], padded.
        mask_id: The id of the mask.
        ordinary_ids: The ids of text. Only these are chosen, and replace others.
        width: Columns P of the result. A row with fewer chosen tokens ends in zeros.
        rng: The random numbers. The same state gives the same masks.
        share: The share of each row's ordinary tokens, rounded as in `predicted_count`.

    Returns:
        Masked ids [B, S], masked positions [B, P] in ascending order, and labels [B, P]: the tokens
        that were there, or 0 if a row has fewer.
    """
    ordinary = np.isin(token_ids, ordinary_ids)
    counts = predicted_count(ordinary.sum(axis=1), share)
    ranks = np.where(ordinary, rng.random(token_ids.shape), 2.0)
    chosen = np.argsort(ranks, axis=1)[:, :width]
    used = np.arange(width) < counts[:, None]
    # Sorted; the unused ones come last.
    positions = np.sort(np.where(used, chosen, token_ids.shape[1]), axis=1)
    positions = np.where(used, positions, 0).astype(np.int32)
    labels = np.where(used, np.take_along_axis(token_ids, positions, axis=1), 0)
    luck = rng.random(labels.shape)
    others = rng.choice(ordinary_ids, labels.shape)
    shown = np.where(luck < MASKED, mask_id, np.where(luck < MASKED + RANDOM, others, labels))
    masked, rows = token_ids.copy(), np.nonzero(used)[0]
    masked[rows, positions[used]] = shown[used]
    return masked, positions, labels.astype(np.int32)


class MaskedPlan(BatchPlan):
    """Which texts are in which batch, and which of their tokens are hidden, without end.

    A batch is `({"token_ids": [B, S], "masked_positions": [B, P]}, labels [B, P], weights [B, P])`
    with `B * S <= tokens_per_batch`. There are labels only for the positions P, so that a model
    makes logits nowhere else:

    ```
    a text       <s> a b c d e </s>
    token_ids    <s> a <mask> c d e </s>     masked_positions  2     labels  b
    ```

    In each epoch `predicted_count` tokens of each text are chosen anew, never the start, the end,
    padding or another special id. 80 % of them become the mask, 10 % a random token, 10 % stay. P
    follows from S, so that there are as few shapes as in `BatchPlan`. A row with fewer predictions
    ends in position 0, label 0 and weight 0. The weights of an update sum to `accumulate`, evenly
    over its predicted tokens.

    Args:
        encoded: `EncodedTexts`; texts without an ordinary token are left out.
        tokenizer: Their tokenizer, with a mask: `train_tokenizer(..., mask=True)`.
        share: The share of tokens that are predicted.
        tokens_per_batch, seed, shapes, accumulate, rows_multiple, devices: See `BatchPlan`.

    Raises:
        ValueError: If the vocabulary has no mask, no text has a token, or an argument is out of
            its range.

    Example:

    ```python
    tokenizer = kt.text.train_tokenizer(texts, 300, mask=True)
    plan = kt.data.MaskedPlan(kt.data.encode_texts(texts, tokenizer), tokenizer, 4096)
    model.fit(plan.dataset(), steps_per_epoch=500, epochs=10)
    ```
    """

    _words = ("texts", "tokens", "predicted tokens")

    def __init__(
        self,
        encoded: EncodedTexts,
        tokenizer: Any,
        tokens_per_batch: int = 4096,
        *,
        share: float = 0.15,
        **options: Any,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is above 0 and at most 1, got {share}.")
        if tokenizer.mask_id is None:
            raise ValueError(
                "The vocabulary has no mask. Train one with train_tokenizer(..., mask=True)."
            )
        self.share, self._mask_id = share, tokenizer.mask_id
        self._ordinary_ids = np.setdiff1d(
            np.arange(tokenizer.vocabulary_size, dtype=np.int32), tokenizer.special_ids()
        )
        super().__init__(_with_tokens(encoded), tokens_per_batch, **options)

    def evaluation(self, encoded: EncodedTexts) -> Any:
        """The data of `validation_data=` and `evaluate`: every text once, see `BatchPlan`.

        The masks are the same in each pass.
        """
        return super().evaluation(_with_tokens(encoded))

    def _counted(self, encoded, members):
        return predicted_count(encoded.ordinary[members], self.share).sum()

    def _arrays(self, encoded, members, shape, weight, draw):
        rng = np.random.default_rng([self.seed, *draw])
        width = int(predicted_count(shape[1] - 2, self.share))  # all but start and end
        # Only the texts' own rows draw numbers, so that `devices` changes no mask.
        token_ids = encoded.rows(members, (len(members), shape[1]))
        hidden = mask_tokens(token_ids, self._mask_id, self._ordinary_ids, width, rng, self.share)
        masked, positions, labels = filled_up_to(shape[0], *hidden)
        weights = (labels != 0).astype(np.float32) * np.float32(weight)
        return {"token_ids": masked, "masked_positions": positions}, labels, weights


def _with_tokens(encoded):
    if not encoded.ordinary.any():
        raise ValueError(
            f"None of the {len(encoded)} texts has a token to predict. Give other texts."
        )
    return encoded.select(encoded.ordinary > 0)
