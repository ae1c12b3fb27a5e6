"""What an option of a training is, for the command line, its help and the record of a run."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that an option takes, and its range: `Number(float, above=0, most=1)("0.1")`.

    Args:
        kind: `int` or `float`.
        least, most: The smallest and the largest number allowed.
        above, below: Limits that are not allowed themselves.
    """

    kind: type
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __call__(self, value: Any) -> Any:
        """Returns the number in a text, or a number as it is.

        Raises:
            ValueError: If it is no number, or out of range.
        """
        try:
            number = None if isinstance(value, bool) else self.kind(str(value))
        except ValueError:
            number = None
        if number is None or not self._allows(number):
            raise ValueError(f"expected {self}, got {value!r}")
        return number

    def _allows(self, number):
        return (
            abs(number) < math.inf  # not so of NaN
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        limits = [
            f"{word} {limit}"
            for word, limit in (
                ("from", self.least),
                ("above", self.above),
                ("at most", self.most),
                ("below", self.below),
            )
            if limit is not None
        ]
        kind = "a whole number" if self.kind is int else "a number"
        return " ".join([kind, ", ".join(limits)]).strip()


def device_count(value: Any) -> str:
    """ "all", or a whole number above 0."""
    return value if value == "all" else str(positive(value))


def process_count(value: Any) -> int | str:
    """ "auto", or a whole number above 0."""
    return value if value == "auto" else positive(value)


LARGEST = 2**31 - 1  # that every backend counts to
positive = Number(int, above=0, most=LARGEST)
count = Number(int, least=0, most=LARGEST)
share = Number(float, above=0, most=1)
rate = Number(float, least=0, below=1)  # of dropout or smoothing
size = Number(float, above=0)
random_seed = Number(int, least=0, most=2**32 - 1)  # as NumPy takes them


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known about one field of `TrainSettings` beside its name and its default."""

    group: str  # the heading that it has in the help
    help: str
    parse: Callable[[str], Any] | None = str  # of the text on the command line; None for a flag
    choices: tuple[str, ...] = ()  # all possible values, if they can be listed
    metavar: str | None = None  # how the help names the value
    unless_init_from: Any = None  # the default without --init-from, whose run brings its own
    changeable: bool = False  # may differ on resuming: it changes no update that was already made
    derived: bool = False  # follows from the size of the text unless given (runs/derivation.py)
    hparam: bool = False  # is a column of TensorBoard's HParams table
    needs: tuple[str, ...] = ()  # has an effect only beside one of these
    many: bool = False  # takes one value or several, in a list
    recorded: bool = True  # is in the run's settings.json


def group(title: str) -> Callable[..., Any]:
    """Returns a function that makes fields of `TrainSettings`, the options under one heading.

    Its arguments are `help`, `default` (None), `parse` and further arguments of `Option`.
    """

    def option(help, default=None, parse=str, **known):
        known = {"option": Option(title, help, parse, **known)}
        return dataclasses.field(default=default, metadata=known)

    return option
