"""Another segmentation of the corpus in each epoch: BPE-dropout and subword regularization."""

import dataclasses
import itertools

import numpy as np

_LINES_AT_A_TIME = 10_000


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
        self._encoded, self._alpha = encoded, alpha
        self._tokenizers = tokenizer, target_tokenizer or tokenizer
        for each in self._tokenizers:
            each.sample(["a"], alpha, seed=0)  # what does not fit fails now

    def draw(self, seed, longest):
        """The corpus in one random segmentation, a pure function of the arguments.

        Args:
            seed: A sequence of integers from 0.
            longest: Most tokens of a side, its start or end included; a sentence that would come
                out longer keeps its best segmentation.

        Returns:
            `EncodedPairs` of the same pairs in the same order.
        """
        encoded = self._encoded
        arrays = {}
        for side, tokenizer, offsets, ids in (
            ("source", self._tokenizers[0], encoded.source_offsets, encoded.source_ids),
            ("target", self._tokenizers[1], encoded.target_offsets, encoded.target_ids),
        ):
            chunks, lengths = [], []
            for first in range(0, len(encoded), _LINES_AT_A_TIME):
                ends = offsets[first : first + _LINES_AT_A_TIME + 1]
                best = [ids[a:b].tolist() for a, b in itertools.pairwise(ends)]
                key = np.random.SeedSequence([*seed, side == "target", first])
                drawn = tokenizer.sample(
                    tokenizer.decode(best), self._alpha, int(key.generate_state(1)[0])
                )
                kept = [
                    new if len(new) < longest else old for new, old in zip(drawn, best, strict=True)
                ]
                chunks.append(np.fromiter(itertools.chain.from_iterable(kept), np.int32))
                lengths.append(np.fromiter(map(len, kept), np.int64))
            arrays[f"{side}_ids"] = np.concatenate(chunks)
            arrays[f"{side}_offsets"] = np.cumsum(np.concatenate([[0], *lengths]))
        return dataclasses.replace(encoded, **arrays)
