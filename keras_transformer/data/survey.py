"""What one pass over a corpus counts."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from keras_transformer.data.corpus import Pair
from keras_transformer.data.digest import in_chunks
from keras_transformer.text import comparable


@dataclasses.dataclass(frozen=True)
class Survey:
    """Counts of a corpus that do not depend on a vocabulary.

    Texts are compared after NFC and without spaces at their ends, by hashes of 64 bits: among 100
    million different texts two have the same hash with a probability of 0.03 %.
    """

    pairs: int
    characters: tuple[int, int]  # of all sources, of all targets
    duplicate_pairs: int
    distinct_sources: int
    distinct_targets: int
    validation_pairs: int | None = None
    validation_pairs_seen: int | None = None
    validation_sources_seen: int | None = None


class Surveyor:
    """Makes a `Survey` of pairs that are added in lists, and holds 24 bytes per pair."""

    def __init__(self) -> None:
        self._pairs = 0
        self._characters = np.zeros(2, np.int64)
        self._hashes: tuple[list, list, list] = ([], [], [])  # sources, targets, pairs

    def add(self, pairs: Sequence[Pair]) -> None:
        self._pairs += len(pairs)
        self._characters += sum(len(s) for s, _ in pairs), sum(len(t) for _, t in pairs)
        for kept, new in zip(self._hashes, _hashes(pairs), strict=True):
            kept.append(new)

    def survey(self, validation: Sequence[Pair] | None = None) -> Survey:
        """Returns the counts; with `validation` also how many of those pairs were added.

        Forgets the pairs.
        """
        looked_for = _hashes([] if validation is None else validation)
        distinct, seen = [], []
        for kept, wanted in zip(self._hashes, looked_for, strict=True):
            hashes = np.concatenate([*kept, np.empty(0, np.int64)])
            kept.clear()
            hashes.sort()
            places = np.searchsorted(hashes, wanted)
            seen.append(int((hashes[np.minimum(places, len(hashes) - 1)] == wanted).sum()))
            distinct.append(len(hashes) and 1 + int((hashes[1:] != hashes[:-1]).sum()))
        sources, targets, pairs = distinct
        found = Survey(
            self._pairs,
            (int(self._characters[0]), int(self._characters[1])),
            self._pairs - pairs,
            sources,
            targets,
        )
        if validation is None:
            return found
        return dataclasses.replace(
            found,
            validation_pairs=len(validation),
            validation_pairs_seen=seen[2],
            validation_sources_seen=seen[0],
        )


def survey(pairs: Iterable[Pair], validation: Sequence[Pair] | None = None) -> Survey:
    """Counts a corpus in one pass."""
    surveyor = Surveyor()
    for chunk in in_chunks(pairs, 10_000):
        surveyor.add(chunk)
    return surveyor.survey(validation)


def _hashes(pairs):
    """int64 arrays: the hashes of sources, of targets and of pairs."""
    texts = [(comparable(source), comparable(target)) for source, target in pairs]
    return [
        np.fromiter(map(hash, items), np.int64, len(texts))
        for items in ([s for s, _ in texts], [t for _, t in texts], texts)
    ]
