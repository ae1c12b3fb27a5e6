"""From pairs of texts to what `fit` takes, in one line."""

import os
from collections.abc import Iterable
from typing import Any

from keras_transformer.data.batches import BatchPlan
from keras_transformer.data.encoding import encode_pairs
from keras_transformer.data.feed import FeedMeter
from keras_transformer.data.subword_sampling import SubwordSampling


def token_batches(
    pairs: Iterable[tuple[str, str]],
    tokenizer: Any,
    tokens_per_batch: int = 4096,
    target_tokenizer: Any = None,
    *,
    max_length: int = 256,
    cache: str | os.PathLike | None = None,
    subword_sampling: float | None = None,
    meter: FeedMeter | None = None,
    **plan: Any,
) -> Any:
    """Makes the endless batches of `fit`: `encode_pairs`, `BatchPlan` and `.dataset()` in one line.

    Args:
        pairs, tokenizer, target_tokenizer, max_length, cache: See `encode_pairs`.
        tokens_per_batch: See `BatchPlan`.
        subword_sampling: The `alpha` of a `SubwordSampling`, for example 0.1; None for none.
        meter: See `BatchPlan.dataset`.
        **plan: `seed`, `shapes`, `accumulate`, `rows_multiple` and `devices` of `BatchPlan`.

    Example:

    ```python
    train = kt.data.token_batches(pairs, tokenizer, tokens_per_batch=4096)
    model.fit(train, epochs=10, steps_per_epoch=500)
    ```
    """
    encoded = encode_pairs(pairs, tokenizer, target_tokenizer, max_length, cache)
    if subword_sampling is not None:
        plan["sampling"] = SubwordSampling(
            encoded, tokenizer, target_tokenizer, alpha=subword_sampling
        )
    return BatchPlan(encoded, tokens_per_batch, **plan).dataset(meter=meter)
