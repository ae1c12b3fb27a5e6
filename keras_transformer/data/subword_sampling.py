"""Another segmentation of the corpus in each epoch: BPE-dropout and subword regularization."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transformer.data.encoded_pairs import EncodedPairs
from keras_transformer.text.subwords import Segmenter


class SubwordSampling:
    """Cuts the texts of a corpus into random pieces, other ones in each epoch.

    A model that sees "unfold" as `un fold`, `unf old` and `u n fold` learns how pieces are related,
    and copes better with rare words. Validation and translation use the best segmentation.

    Args:
        encoded: `EncodedPairs` of the corpus.
        tokenizer: Its tokenizer.
        target_tokenizer: The target's tokenizer, if it is another.
        alpha: How often; see `Tokenizer.sample`. The paper on "bpe" dropout uses 0.1.

    Raises:
        ValueError: If `alpha` is out of its range, or a vocabulary is neither "bpe" nor "unigram".

    Example:

    ```python
    encoded = kt.data.encode_pairs(pairs, tokenizer)
    sampling = kt.data.SubwordSampling(encoded, tokenizer, alpha=0.1)
    plan = kt.data.BatchPlan(encoded, 4096, seed=1, sampling=sampling)
    ```
    """

    def __init__(
        self,
        encoded: EncodedPairs,
        tokenizer: Any,
        target_tokenizer: Any = None,
        *,
        alpha: float = 0.1,
    ) -> None:
        self._encoded = encoded
        source, target = tokenizer.model_proto, (target_tokenizer or tokenizer).model_proto
        self._sides = {
            "source": Segmenter(source, encoded.source_ids, encoded.source_offsets, alpha),
            "target": Segmenter(target, encoded.target_ids, encoded.target_offsets, alpha),
        }

    def draw(self, seed: Sequence[int], longest: int) -> EncodedPairs:
        """Returns the corpus in a random segmentation, a pure function of `seed`, integers from 0.

        A sentence that would have more than `longest` tokens, with its start or end, keeps its best
        segmentation.
        """
        arrays = {}
        for number, (side, segmenter) in enumerate(self._sides.items()):
            ids, offsets = segmenter.draw(np.random.default_rng([*seed, number]))
            best = getattr(self._encoded, f"{side}_ids"), getattr(self._encoded, f"{side}_offsets")
            fits = np.diff(offsets) < longest
            arrays[f"{side}_ids"], arrays[f"{side}_offsets"] = _either(fits, (ids, offsets), best)
        return dataclasses.replace(self._encoded, **arrays)


def _either(first, one, other):
    """Mixes two corpora: the sentences of `one` if `first` is true, otherwise those of `other`."""
    lengths = np.where(first, np.diff(one[1]), np.diff(other[1]))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    both = np.concatenate([one[0], other[0]])
    begins = np.where(first, one[1][:-1], len(one[0]) + other[1][:-1])
    return both[np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], lengths)], offsets
