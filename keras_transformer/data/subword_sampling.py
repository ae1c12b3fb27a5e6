"""Another segmentation of the corpus in each epoch: BPE-dropout and subword regularization."""

import dataclasses

import numpy as np

from keras_transformer.text.subwords import Segmenter


class SubwordSampling:
    """Cuts the texts of a corpus into pieces anew, at random, for each epoch.

    A model that sees "unfold" as `un fold`, `unf old` and `u n fold` learns what pieces have to do
    with each other, and is less easily thrown off by rare words (see `Tokenizer.sample`). Only
    training is sampled; validation and translation use the one best segmentation.

    Args:
        encoded: `EncodedPairs` of the corpus.
        tokenizer: Its tokenizer.
        target_tokenizer: The target's tokenizer, if it is another.
        alpha: How much; see `Tokenizer.sample`. 0.1 is the paper's for "bpe".

    Raises:
        ValueError: If `alpha` is out of its range, or a vocabulary is neither "bpe" nor "unigram".

    Example:

    ```python
    encoded = kt.data.encode_pairs(pairs, tokenizer)
    sampling = kt.data.SubwordSampling(encoded, tokenizer, alpha=0.1)
    plan = kt.data.BatchPlan(encoded, 4096, seed=1, sampling=sampling)
    ```
    """

    def __init__(self, encoded, tokenizer, target_tokenizer=None, *, alpha=0.1):
        self._encoded = encoded
        source, target = tokenizer.model_proto, (target_tokenizer or tokenizer).model_proto
        self._sides = {
            "source": Segmenter(source, encoded.source_ids, encoded.source_offsets, alpha),
            "target": Segmenter(target, encoded.target_ids, encoded.target_offsets, alpha),
        }

    def draw(self, seed, longest):
        """The corpus in one random segmentation, a pure function of the arguments.

        Args:
            seed: A sequence of integers from 0.
            longest: Most tokens of a side, its start or end included; a sentence that would come
                out longer keeps its best segmentation.

        Returns:
            `EncodedPairs` of the same pairs in the same order.
        """
        arrays = {}
        for number, (side, segmenter) in enumerate(self._sides.items()):
            ids, offsets = segmenter.draw(np.random.default_rng([*seed, number]))
            best = getattr(self._encoded, f"{side}_ids"), getattr(self._encoded, f"{side}_offsets")
            fits = np.diff(offsets) < longest
            arrays[f"{side}_ids"], arrays[f"{side}_offsets"] = _either(fits, (ids, offsets), best)
        return dataclasses.replace(self._encoded, **arrays)


def _either(first, one, other):
    """Of two corpora the sentences of `one` where `first` is true, else those of `other`."""
    lengths = np.where(first, np.diff(one[1]), np.diff(other[1]))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    both = np.concatenate([one[0], other[0]])
    begins = np.where(first, one[1][:-1], len(one[0]) + other[1][:-1])
    return both[np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], lengths)], offsets
