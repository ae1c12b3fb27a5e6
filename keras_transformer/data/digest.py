"""The identity of a text, independent of its files."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

_ITEMS_AT_A_TIME = 1_000


class TextDigest:
    """Computes `text_sha256` of several texts while they are read."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256(b"[")
        self._texts = self._items = 0

    def begin(self) -> None:
        """Begins a text, a list of strings or of pairs."""
        self._write(", [" if self._texts else "[")
        self._items = 0

    def add(self, items: list[Any]) -> None:
        """Adds the next items of the text."""
        if items:
            self._write((", " if self._items else "") + _json(items)[1:-1])
            self._items += len(items)

    def end(self) -> None:
        """Ends the text."""
        self._write("]")
        self._texts += 1

    def text(self, text: Iterable[Any]) -> None:
        """Adds a whole text: a string, or an iterable of strings or of pairs."""
        if isinstance(text, str):
            self._write((", " if self._texts else "") + _json(text))
            self._texts += 1
            return
        self.begin()
        for items in in_chunks(text, _ITEMS_AT_A_TIME):
            self.add(items)
        self.end()

    def hexdigest(self) -> str:
        """Returns the SHA-256 of the texts so far."""
        sha = self._sha.copy()
        sha.update(b"]")
        return sha.hexdigest()

    def _write(self, text):
        self._sha.update(text.encode("utf-8", "surrogatepass"))


def text_sha256(*texts: Any) -> str:
    """Returns the SHA-256 of texts, to record in a run's settings instead of their paths.

    A run can then be resumed after its text has moved, but not with another text.

    Args:
        *texts: Lists or other iterables of pairs of strings or of strings, or strings.

    Example:

    ```python
    settings = {"seed": 1, "text_sha256": kt.data.text_sha256(train, valid)}
    ```
    """
    digest = TextDigest()
    for text in texts:
        digest.text(text)
    return digest.hexdigest()


def in_chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yields the items in lists of `size`; the last one may be shorter."""
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, size)):
        yield chunk


def _json(value):
    return json.dumps(value, ensure_ascii=False)
