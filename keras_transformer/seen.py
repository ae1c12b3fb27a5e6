"""What training saw of the source language, so that translating can say what it never saw."""

import unicodedata
from pathlib import Path

import numpy as np

from keras_transformer.checkpoint_files import replacing

# A text of more different words than this is so varied that a new word says little.
MOST_WORDS = 50_000


class Seen:
    """The pieces, and of a text of few different words the words too, that training had.

    A vocabulary can spell almost any word, so a small closed corpus needs more than its pieces: a
    new word made of known pieces is as foreign to the model as one made of new ones.

    Args:
        ids: booleans [V], True = the id occurred in training.
        words: a set of words as `words_of` gives them, or None where there were too many to keep.

    Example:

    ```python
    seen = Seen.of(["a man rides"], tokenizer)
    seen.save("runs/en-de")                               # seen_ids.npy, seen_words.txt
    Seen.load("runs/en-de").unseen("a man swims", tokenizer)  # ["swims"]
    ```
    """

    def __init__(self, ids, words=None):
        self.ids = ids
        self.words = words

    @classmethod
    def of(cls, sources, tokenizer, encoded=None):
        """What `sources`, a list of strings, hold; `encoded` is their ids where they are known."""
        ids = tokenizer.encode(list(sources)) if encoded is None else [encoded]
        words = set()
        for line in sources:
            words.update(words_of(line))
            if len(words) > MOST_WORDS:
                words = None
                break
        return cls(tokenizer.seen_ids(ids), words)

    def union(self, other):
        """What either had; of words only where both know theirs, and few enough."""
        words = None
        if self.words is not None and other.words is not None:
            words = self.words | other.words
        if words is not None and len(words) > MOST_WORDS:
            words = None
        return Seen(self.ids | other.ids, words)

    def save(self, folder):
        """Writes `seen_ids.npy` and, where there are few enough, `seen_words.txt`."""
        with replacing(Path(folder) / "seen_ids.npy") as file:
            np.save(file, self.ids)
        if self.words is not None:
            with replacing(Path(folder) / "seen_words.txt") as file:
                file.write("".join(f"{word}\n" for word in sorted(self.words)).encode())

    @classmethod
    def load(cls, folder):
        """What `save` wrote, None where it wrote nothing."""
        ids, words = Path(folder) / "seen_ids.npy", Path(folder) / "seen_words.txt"
        if not ids.exists():
            return None
        known = set(words.read_text(encoding="utf-8").splitlines()) if words.exists() else None
        return cls(np.load(ids, allow_pickle=False), known)

    def unseen(self, text, tokenizer):
        """What of `text` training never saw: words where they are known, else pieces; each once."""
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


def words_of(text):
    """The words between spaces, without punctuation at their edges and without case."""
    words = (_strip(word) for word in unicodedata.normalize("NFC", text).casefold().split())
    return [word for word in words if word]


def _strip(word):
    first, last = 0, len(word)
    while first < last and unicodedata.category(word[first]).startswith("P"):
        first += 1
    while first < last and unicodedata.category(word[last - 1]).startswith("P"):
        last -= 1
    return word[first:last]
