"""What training saw of the source language, so that translating can say what it never saw."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transformer import arguments, progress
from keras_transformer.files import read_json, replacing, write_json, write_lines

# With more different words than this, a text is so varied that a new word says little.
MOST_WORDS = 50_000
# A source is called far longer if it exceeds the longest one of training by this factor.
FAR_LONGER = 1.5
# Stands for two spaces in a row, or one at an end of the text, among the invisible characters.
EXTRA = "  "


class Seen:
    """The pieces that occurred in training, and the words if there were few different ones.

    A vocabulary can spell almost any word, so for a small corpus the pieces are not enough: a new
    word made of known pieces is as foreign to the model as one made of new pieces.

    Args:
        ids: Booleans [V], True = the id occurred in training.
        words: A set of words as `words_of` gives them, or None if there were too many to keep.
        invisible: A set of the spaces other than " ", the format and control characters (such as
            U+200E) and `EXTRA`, as far as they occurred; None if that is not known.
        longest: How many tokens the longest source had; None if that is not known.

    Example:

    ```python
    seen = Seen.of(["a man rides"], tokenizer)
    seen.save("runs/en-de")                       # seen_ids.npy, seen_words.txt, seen.json
    seen = Seen.load("runs/en-de", tokenizer.vocabulary_size)
    seen.unseen("a man swims", tokenizer)         # ["swims"]
    seen.plain("a\\u3000man")                     # "a man"
    ```
    """

    # The kinds of remarks on a source.
    REMARKS = ("unseen", "long", "invisible")

    def __init__(
        self,
        ids: np.ndarray,
        words: set[str] | None = None,
        invisible: set[str] | None = None,
        longest: int | None = None,
    ) -> None:
        self.ids = ids
        self.words = words
        self.invisible: Any = invisible
        self.longest = longest

    @classmethod
    def of(cls, sources: Sequence[str], tokenizer: Any, encoded: Any = None) -> "Seen":
        """What sources hold, a list of strings. `encoded` may be their `EncodedPairs`."""
        if encoded is None:
            ids = tokenizer.encode(sources)
            longest = max(map(len, ids), default=0)
        else:
            ids, longest = [encoded.source_ids], int(encoded.source_lengths.max())
        found = SeenText()
        found.add(sources)
        return cls(tokenizer.seen_ids(ids), found.words, found.invisible, longest)

    def union(self, other: "Seen") -> "Seen":
        """What at least one of the two had. Words only if both know theirs, and they are few."""
        words, invisible, longest = None, None, None
        if self.words is not None and other.words is not None:
            words = self.words | other.words
        if words is not None and len(words) > MOST_WORDS:
            words = None
        if self.longest is not None and other.longest is not None:
            invisible = self.invisible | other.invisible
            longest = max(self.longest, other.longest)
        return Seen(self.ids | other.ids, words, invisible, longest)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `seen_ids.npy`, `seen.json` and, if the words are known, `seen_words.txt`."""
        with replacing(Path(folder) / "seen_ids.npy") as file:
            np.save(file, self.ids)
        if self.longest is not None:
            invisible = sorted(name_of(each) for each in self.invisible)
            record = {"longest": self.longest, "invisible": invisible}
            write_json(Path(folder) / "seen.json", record)
        if self.words is not None:
            write_lines(Path(folder) / "seen_words.txt", sorted(self.words))

    @classmethod
    def load(cls, folder: str | os.PathLike, vocabulary_size: int | None = None) -> "Seen | None":
        """Reads what `save` wrote; None if it wrote nothing, or with a warning if it is damaged.

        Older runs have no `seen.json`. With a `vocabulary_size`, ids of another size are damage.
        """
        folder = Path(folder)
        ids, words, record = (folder / f"seen{end}" for end in ("_ids.npy", "_words.txt", ".json"))
        if not ids.exists():
            return None
        invisible, longest = None, None
        try:
            known = set(words.read_text(encoding="utf-8").splitlines()) if words.exists() else None
            if record.exists():
                found = read_json(record, dict)
                invisible = set(map(_of_name, found["invisible"]))
                longest = arguments.whole_number("longest", found["longest"], least=0)
            return cls(_booleans(ids, vocabulary_size), known, invisible, longest)
        except Exception as error:  # NumPy raises many kinds for a damaged file
            progress.say(
                f"warning: {folder}/seen* is damaged ({error}), so nothing is said about words "
                "that training never saw. Training writes these files anew."
            )
            return None

    def plain(self, text: str) -> str:
        """Returns `text` as the model reads it: without invisible characters that are new to it.

        Spaces of a kind that training never saw become " ": one for several in a row, and none at
        the ends. New format and control characters are left out. What training saw stays.
        """
        new = set() if self.invisible is None else invisible_in(text) - self.invisible
        if not new:
            return text
        characters = new - {EXTRA}
        left_out = {ord(each): None for each in characters if not each.isspace()}
        text = unicodedata.normalize("NFC", text).translate(left_out)
        if spaces := "".join(each for each in characters if each.isspace()):
            text = re.sub(f" *[{spaces}][ {spaces}]*", " ", text).strip(" ")
        if EXTRA in self.invisible:
            return text
        return " ".join(part for part in text.split(" ") if part)

    def remarks(
        self, text: str, ids: list[int], tokenizer: Any, but: Collection[str] = ()
    ) -> dict[str, str]:
        """What a user should know about a source, {kind: sentence}; empty if nothing is new.

        Args:
            text: The source as it was given.
            ids: The ids of `plain(text)`, without the end.
            tokenizer: Its `Tokenizer`.
            but: Kinds of `REMARKS` to leave out.
        """
        if not ids:  # blank: nothing is translated
            return {}
        found, plain, where = {}, self.plain(text), f"(in {text[:80]!r})"
        if "unseen" not in but and (unseen := self.unseen(plain, tokenizer)):
            found["unseen"] = (
                f"never seen in training: {', '.join(unseen)} {where}; expect poor translations of "
                "such text."
            )
        if "long" not in but and self.longest and len(ids) > FAR_LONGER * self.longest:
            found["long"] = (
                f"far longer than any sentence of training: {len(ids)} tokens, the longest there "
                f"had {self.longest} {where}; the translation may be cut short. Translate sentence "
                "by sentence, as `translate --split sentences` does."
            )
        if "invisible" not in but and plain != text and ids != tokenizer.encode(text):
            new = sorted(invisible_in(text) - self.invisible)
            found["invisible"] = f"never seen in training: {', '.join(map(_as_read, new))} {where}."
        return found

    def unseen(self, text: str, tokenizer: Any) -> list[str]:
        """The words of `text` that training never saw, or pieces if words are not known."""
        if self.words is None:
            return tokenizer.unseen_pieces(text, self.ids)
        found = []
        for part in text.split():
            word = words_of(part)
            if word:
                found += [each for each in word if each not in self.words]
            else:  # punctuation
                found += [
                    piece for piece in tokenizer.unseen_pieces(part, self.ids) if piece != "▁"
                ]
        return list(dict.fromkeys(found))


class SeenText:
    """Collects the words and the invisible characters of sources.

    Attributes:
        words, invisible: See `Seen`.
    """

    def __init__(self) -> None:
        self.words: set[str] | None = set()
        self.invisible: set[str] = set()

    def add(self, sources: Iterable[str]) -> None:
        for line in sources:
            self.invisible.update(invisible_in(line))
            if self.words is not None:
                self.words.update(words_of(line))
                if len(self.words) > MOST_WORDS:
                    self.words = None


def _booleans(path, size):
    found = np.load(path, allow_pickle=False)
    if not isinstance(found, np.ndarray) or found.dtype != bool or found.ndim != 1:
        raise ValueError(f"{path.name} is no array of booleans")
    if size not in (None, len(found)):
        raise ValueError(f"{path.name} has {len(found)} booleans, the vocabulary {size} ids")
    return found


def invisible_in(text: str) -> set[str]:
    """The spaces other than " ", format and control characters of a text, and `EXTRA`."""
    found = set()
    if not text.isprintable():
        composed = unicodedata.normalize("NFC", text)
        found = {
            each
            for each in composed
            if each != " " and (each.isspace() or unicodedata.category(each) in ("Cc", "Cf"))
        }
    if EXTRA in text or text != text.strip(" "):
        found.add(EXTRA)
    return found


def name_of(characters: str) -> str:
    """Returns code points as in "U+3000"."""
    return " ".join(f"U+{ord(each):04X}" for each in characters)


def _of_name(name):
    return "".join(chr(int(each[2:], 16)) for each in name.split())


def _as_read(characters):
    """Names characters, and says how they are read."""
    if characters == EXTRA:
        return "spaces in a row or at an end (read as one, or none)"
    name = f"{name_of(characters)} {unicodedata.name(characters, '')}".rstrip()
    return f"{name} ({'read as a space' if characters.isspace() else 'left out'})"


def words_of(text: str) -> list[str]:
    """The words between spaces, in lower case and without punctuation at their edges."""
    words = (_strip(word) for word in unicodedata.normalize("NFC", text).casefold().split())
    return [word for word in words if word]


def _strip(word):
    first, last = 0, len(word)
    while first < last and unicodedata.category(word[first]).startswith("P"):
        first += 1
    while first < last and unicodedata.category(word[last - 1]).startswith("P"):
        last -= 1
    return word[first:last]
