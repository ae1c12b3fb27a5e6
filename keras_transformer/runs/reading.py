"""The text of a training, read in one pass that keeps no string of it."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_transformer import data, evaluation, files, progress
from keras_transformer.data.corpus import Pair, Part
from keras_transformer.data.digest import TextDigest, in_chunks
from keras_transformer.data.survey import Survey, Surveyor
from keras_transformer.runs.settings import TrainSettings
from keras_transformer.text import comparable
from keras_transformer.text.seen import SeenText

KEPT = "text.json"  # in the folder `ids` of a run: what the pass found
_PAIRS_AT_A_TIME = 10_000


class Text(NamedTuple):
    """Pairs of strings to train on and to validate with, and what is known of them."""

    train: data.Corpus
    valid: list[Pair]
    survey: Survey
    seen: SeenText  # of the sources
    sha256: str  # of both
    files: list | None  # the state of the files, or None if there are others than files

    def keep(self, folder: Path) -> None:
        """Writes what the pass found, so that the next start needs none while the files stay."""
        if self.files is None:
            return
        record = {
            "files": self.files,
            "text_sha256": self.sha256,
            "survey": dataclasses.asdict(self.survey),
            "words": None if self.seen.words is None else sorted(self.seen.words),
            "invisible": sorted(self.seen.invisible),
            "valid": self.valid,
        }
        files.write_json(folder / KEPT, record | {"sha256": files.json_sha256(record)})


def read_text(settings: TrainSettings, folder: Path | None = None) -> Text:
    """Reads and checks the files that the settings name, before anything is written.

    Args:
        settings: The options that name text.
        folder: Where an earlier start may have kept what its pass found. If no file has changed
            since, by name, size and time, then the text is not read again.
    """
    evaluation.bleu(["a"], ["a"], tokenize=settings.tokenize)  # fails now, not in an hour
    opened, validation = _open_side(settings, "train"), _open_side(settings, "valid")
    if opened is None:
        raise ValueError(
            "Nothing to train on: give --train-source and --train-target, or --train-tsv."
        )
    if (validation is None) == (settings.hold_out is None):
        raise ValueError(
            "Nothing to validate with: give --valid-source and --valid-target, --valid-tsv, or "
            "--hold-out N."
            if validation is None
            else "Give either validation files or --hold-out, not both."
        )
    states = [side.fingerprint() for side in (opened, validation) if side is not None]
    state = None if None in states else [*states, settings.hold_out, settings.seed]
    train, valid = opened, validation
    if settings.hold_out:
        split = _Split(opened, settings.hold_out, settings.seed)
        train, valid = data.Corpus([Part(split.train, 1)]), data.Corpus([Part(split.valid, 1)])
    found = _kept(folder, state) or _read(train, list(valid), state)
    return found._replace(train=data.Corpus(train.parts, found.sha256, found.survey.pairs))


def _open_side(settings, name):
    source, target, tsv = (
        getattr(settings, f"{name}_{part}") for part in ("source", "target", "tsv")
    )
    if tsv and (source or target):
        raise ValueError(f"Give either --{name}-tsv, or --{name}-source and --{name}-target.")
    if bool(source) != bool(target):
        raise ValueError(f"--{name}-source and --{name}-target go together.")
    if tsv:
        columns = settings.source_column, settings.target_column
        return data.open_corpus(tsv, source_column=columns[0], target_column=columns[1])
    return data.open_corpus(source, target) if source else None


class _Split:
    """Splits by source, so that no held-out sentence is trained on in another translation."""

    def __init__(self, corpus: data.Corpus, count: int, seed: int) -> None:
        self._corpus, self._count, self._seed = corpus, count, seed

    @functools.cached_property
    def _held_out(self):
        """The hashes of the chosen sources; see `Survey` on hashes."""
        keys = np.fromiter((_key(source) for source, _ in self._corpus.once()), np.int64)
        _, first = np.unique(keys, return_index=True)
        if self._count >= len(first):
            raise ValueError(
                f"--hold-out {self._count} leaves nothing to train on: there are {len(first)} "
                "different sources."
            )
        random = np.random.default_rng(self._seed)
        chosen = random.choice(len(first), self._count, replace=False)
        first.sort()
        return set(keys[first[chosen]].tolist())

    def train(self) -> Iterator[Pair]:
        held_out = self._held_out
        return (pair for pair in self._corpus if _key(pair[0]) not in held_out)

    def valid(self) -> Iterator[Pair]:
        held_out = self._held_out
        return (pair for pair in self._corpus.once() if _key(pair[0]) in held_out)


def _key(source):
    return hash(comparable(source))


def _read(train, valid, state):
    """The one pass: what can be known of a text without its ids."""
    digest, surveyor, seen = TextDigest(), Surveyor(), SeenText()
    digest.begin()
    with progress.work("reading the text", unit="pairs") as done:
        for pairs in in_chunks(train, _PAIRS_AT_A_TIME):
            digest.add(pairs)
            surveyor.add(pairs)
            seen.add(source for source, _ in pairs)
            done(len(pairs))
    digest.end()
    digest.text(valid)
    return Text(train, valid, surveyor.survey(valid), seen, digest.hexdigest(), state)


def _kept(folder, state):
    """What an earlier pass over the same files found, or None."""
    if folder is None or state is None or not (folder / KEPT).exists():
        return None
    files.refuse_links(folder)
    try:
        record = files.read_json(folder / KEPT, dict)
        if record.pop("sha256") != files.json_sha256(record):
            raise ValueError(f"{folder / KEPT} is damaged.")
        if record["files"] != state:
            return None
        seen = SeenText()
        seen.invisible = set(record["invisible"])
        seen.words = None if record["words"] is None else set(record["words"])
        survey = Survey(**record["survey"] | {"characters": tuple(record["survey"]["characters"])})
        valid = [tuple(pair) for pair in record["valid"]]
        return Text(data.Corpus([]), valid, survey, seen, record["text_sha256"], state)
    except (ValueError, KeyError, TypeError) as error:
        progress.say(f"warning: {error} The text is read again.")
        return None
