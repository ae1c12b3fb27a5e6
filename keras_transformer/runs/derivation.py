"""What `keras-transformer train` derives from the size of the text where an option is left out.

Rules of thumb, each bounded and each replaced by its option:

- vocabulary: 260 special ids and bytes, the characters that make up 99.95 % of the text, and
  2 x sqrt(characters of both sides) longer pieces; 32,000 at most. The number of different words
  grows about as the square root of a text's length (Heaps' law), so a piece is seen often enough in
  a small text too. Small text wants few pieces (Sennrich and Zhang, 2019, arXiv 1905.11901), so
  that nearly all occur 100 times or more (Gowda and May, 2020, arXiv 2004.02334).
- updates: about 100 passes over the text, from 300 to 10,000 updates.
- warm-up: a fifth of the updates, at most the paper's 4,000 (section 5.3).
- highest learning rate, where the warm-up is derived too: that of the paper for 4,000 steps of
  warm-up, since its formula would raise it for fewer.
"""

import collections
import itertools
import math
from pathlib import Path

import numpy as np

from keras_transformer.data import EncodedPairs
from keras_transformer.data.encoded_pairs import counts_of
from keras_transformer.files import read_json
from keras_transformer.runs.reading import Text
from keras_transformer.runs.recorded import holds_training
from keras_transformer.runs.settings import TrainSettings, names_where

PASSES = 100
WARMUP = 4000  # the paper's
SAMPLE = 100_000  # pairs whose different characters are counted
# Characters of a piece; words are counted. A guess: the vocabulary is not there yet.
CHARACTERS: dict[str | None, int] = {"bpe": 3, "unigram": 3, "char": 1, None: 3}


def with_recorded(settings: TrainSettings) -> TrainSettings:
    """The settings; what they leave out is that of the run in `run_dir`, if one was trained."""
    path = Path(settings.run_dir)
    if not (path / "settings.json").exists() or not holds_training(path):
        return settings
    found = read_json(path / "settings.json", dict)
    gaps = [name for name in names_where(derived=True) if getattr(settings, name) is None]
    return settings.changed(**{name: found.get(name) for name in gaps})


def with_derived(settings: TrainSettings, text: Text, d_model: int) -> tuple[TrainSettings, str]:
    """The settings without gaps, and a line that says what was derived, empty if nothing was."""
    derived: dict[str, float] = {}
    if settings.vocabulary_size is None and settings.init_from is None:
        derived["vocabulary_size"] = vocabulary_size(text, settings.vocabulary_type)
    updates = settings.updates
    if updates is None:
        per_update = settings.tokens_per_batch * settings.accumulate
        tokens = tokens_of_longer_side(text, settings.vocabulary_type)
        updates = derived["updates"] = updates_for(tokens / per_update)
    if settings.warmup_steps is None:
        derived["warmup_steps"] = min(max(updates // 5, 1), WARMUP)
        if settings.learning_rate is None:
            derived["learning_rate"] = float(f"{d_model**-0.5 * WARMUP**-0.5:.3g}")
    if not derived:
        return settings, ""
    listed = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in derived.items())
    return settings.changed(**derived), f"derived from {text.survey.pairs:,} pairs: {listed}"


def vocabulary_size(text: Text, vocabulary_type: str | None) -> int:
    """Pieces of one vocabulary for both sides; of characters or words all, up to 10,000."""
    if vocabulary_type not in ("bpe", "unigram"):
        return 10_000
    counts: collections.Counter[str] = collections.Counter()
    for source, target in itertools.islice(text.train, SAMPLE):
        counts.update(source)
        counts.update(target)
    shares = np.cumsum(sorted(counts.values(), reverse=True)) / counts.total()
    alphabet = int(np.searchsorted(shares, 0.9995)) + 1
    pieces = 260 + alphabet + 2 * math.sqrt(sum(text.survey.characters))
    return min(100 * math.ceil(pieces / 100), 32_000)


def updates_for(updates_per_pass: float) -> int:
    """`PASSES` passes in whole hundreds, within the bounds."""
    return min(max(math.ceil(PASSES * updates_per_pass / 100) * 100, 300), 10_000)


def tokens_of_longer_side(text: Text, vocabulary_type: str | None) -> float:
    """About how many tokens the side has that fills a batch first, ends included."""
    if vocabulary_type == "word":
        words = np.zeros(2, np.int64)
        for source, target in text.train:
            words += len(source.split()), len(target.split())
        return int(words.max()) + text.survey.pairs
    return max(text.survey.characters) / CHARACTERS[vocabulary_type] + text.survey.pairs


def loss_worth_translating(encoded: EncodedPairs) -> float:
    """The validation loss from which on translations are looked at, in nats per token.

    Two thirds of the entropy of the target tokens' frequencies, which is what a model reaches that
    has read nothing. Above it translations are noise, and most run to the longest length allowed.
    """
    counts = np.append(counts_of(encoded.target_ids), len(encoded))  # and the ends
    shares = counts[counts > 0] / counts.sum()
    return float(-2 / 3 * (shares * np.log(shares)).sum())
