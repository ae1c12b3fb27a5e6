"""N-best lists as text: `number ||| hypothesis ||| score`, and further fields."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

SEPARATOR = " ||| "


class Entry(NamedTuple):
    """A line of an n-best list. `rest` are the fields after the score."""

    number: int
    text: str
    rest: list[str]


def read(path: str, count: int) -> list[Entry]:
    """Reads n-best lists of `count` sources from a file, or from stdin if `path` is "-".

    Raises:
        ValueError: If a line has no number and hypothesis, or there is no such source.
    """
    from keras_transformer.data.lines import STDIN, given_lines

    place = "standard input" if path == STDIN else path
    lines = enumerate(given_lines(path), start=1)
    return [_entry(line, f"{place}, line {number}", count) for number, line in lines]


def _entry(line, place, count):
    number, *fields = line.split(SEPARATOR)
    if not fields or not number.strip().isdecimal():
        raise ValueError(
            f"{place}: expected number ||| hypothesis ||| score, as `translate --n-best` writes, "
            f"got {line[:80]!r}."
        )
    if int(number) >= count:
        raise ValueError(
            f"{place}: a list of source {int(number)}, and --source has {count} lines, counted "
            "from 0: give the source that was translated."
        )
    return Entry(int(number), fields[0], fields[2:])


def ranked(entries: Iterable[Entry], scores: Sequence[float]) -> Iterator[str]:
    """Yields the lines with these scores: by their numbers, and the best of each first."""
    scored = sorted(zip(entries, scores, strict=True), key=lambda pair: (pair[0].number, -pair[1]))
    for (number, text, rest), score in scored:
        yield SEPARATOR.join([str(number), text, f"{score:.6f}", *rest])
