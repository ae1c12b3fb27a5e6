"""Figures of a parallel corpus, to look at before training on it."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_transformer.data.encoded_pairs import EncodedPairs
from keras_transformer.data.survey import Survey, survey
from keras_transformer.text import comparable


@dataclass(frozen=True)
class Report:
    """Figures of a corpus; `str(report)` is a readable block of lines.

    Texts are compared after NFC and without spaces at their ends. Lengths are (mean, 95th
    percentile, longest) in `unit`, "tokens" (without start and end) or "characters". A ratio is
    target length / source length. Counts that were not asked for are None.
    """

    pairs: int
    duplicate_pairs: int
    distinct_sources: int
    distinct_targets: int
    unit: str
    source_length: tuple[float, float, int]
    target_length: tuple[float, float, int]
    ratio_percentiles: tuple[float, float, float]  # 1 %, median, 99 %
    ratio_outside: int  # pairs outside 1:3 .. 3:1
    dropped_empty: int | None = None
    dropped_long: int | None = None
    validation_pairs: int | None = None
    validation_pairs_seen: int | None = None
    validation_sources_seen: int | None = None

    def __str__(self) -> str:
        low, median, high = self.ratio_percentiles
        lines = [
            f"pairs               {self.pairs:,} ({self.duplicate_pairs:,} exact duplicates)",
            f"distinct            {self.distinct_sources:,} sources, "
            f"{self.distinct_targets:,} targets",
            f"source {self.unit:<12} {_length(self.source_length)}",
            f"target {self.unit:<12} {_length(self.target_length)}",
            f"target/source       median {median:.2f}, 1 % {low:.2f}, 99 % {high:.2f}; "
            f"{self.ratio_outside:,} outside 1:3 .. 3:1",
        ]
        if self.dropped_empty is not None:
            lines.append(
                f"dropped             {self.dropped_empty:,} with an empty side, "
                f"{self.dropped_long:,} too long"
            )
        if self.validation_pairs is not None:
            lines.append(
                f"validation          {self.validation_pairs:,} pairs, also in training: "
                f"{self.validation_pairs_seen:,} pairs, {self.validation_sources_seen:,} sources"
            )
        return "\n".join(lines)


def report(
    pairs: Iterable[tuple[str, str]],
    encoded: EncodedPairs | None = None,
    validation: Sequence[tuple[str, str]] | None = None,
) -> Report:
    """Describes a corpus in a `Report`, to be printed.

    Args:
        pairs: A list of `(source, target)` strings, or a `Corpus`.
        encoded: Their `EncodedPairs`. The lengths are then in tokens of the pairs that were kept,
            and dropped pairs are counted. Without it lengths are in characters.
        validation: Pairs to look for among `pairs`. Overlap makes validation look too good.

    Raises:
        ValueError: If `pairs` is empty.

    Example:

    ```python
    print(kt.data.report(pairs, encoded=train, validation=valid_pairs))
    ```
    """
    found = survey(pairs, validation)
    if not found.pairs:
        raise ValueError("There is nothing to report on: pairs is empty.")
    if encoded is not None:
        return report_of(found, encoded)
    lengths = ([len(comparable(text)) for text in pair] for pair in pairs)
    columns = np.fromiter(lengths, np.dtype((np.int32, 2))).T
    return _report(found, "characters", *columns)


def report_of(survey: Survey, encoded: EncodedPairs) -> Report:
    """The report on a corpus of which a `Survey` and the ids are known."""
    dropped = {"dropped_empty": encoded.dropped_empty, "dropped_long": encoded.dropped_long}
    lengths = encoded.source_lengths, encoded.target_lengths
    return dataclasses.replace(_report(survey, "tokens", *lengths), **dropped)


def _report(survey, unit, source_lengths, target_lengths):
    both = (source_lengths > 0) & (target_lengths > 0)
    ratios = target_lengths[both] / source_lengths[both]
    percentiles = np.percentile(ratios, [1, 50, 99]) if both.any() else [np.nan] * 3
    low, median, high = map(float, percentiles)
    return Report(
        pairs=survey.pairs,
        duplicate_pairs=survey.duplicate_pairs,
        distinct_sources=survey.distinct_sources,
        distinct_targets=survey.distinct_targets,
        unit=unit,
        source_length=_statistics(source_lengths),
        target_length=_statistics(target_lengths),
        ratio_percentiles=(low, median, high),
        ratio_outside=int(((ratios > 3) | (ratios < 1 / 3)).sum()),
        validation_pairs=survey.validation_pairs,
        validation_pairs_seen=survey.validation_pairs_seen,
        validation_sources_seen=survey.validation_sources_seen,
    )


def _statistics(lengths):
    return float(lengths.mean()), float(np.percentile(lengths, 95)), int(lengths.max())


def _length(statistics):
    mean, p95, longest = statistics
    return f"mean {mean:.1f}, 95 % {p95:.0f}, longest {longest:,}"
