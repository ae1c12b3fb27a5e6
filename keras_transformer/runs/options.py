"""What an option of a training is, for the command line, its help and the record of a run."""

import dataclasses
from collections.abc import Callable
from typing import Any


def positive(value: str | int) -> int:
    """A whole number from 1."""
    if not str(value).isdigit() or int(value) < 1:
        raise ValueError(f"expected a whole number above 0, got {value!r}")
    return int(value)


def share(value: str | float) -> float:
    """A number above 0, at most 1."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise ValueError(f"expected a number above 0, at most 1, got {value!r}")
    return number


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
    recorded: bool = True  # is in the run's settings.json


def group(title: str) -> Callable[..., Any]:
    """Returns a function that makes fields of `TrainSettings`, the options under one heading.

    Its arguments are `help`, `default` (None), `parse` and further arguments of `Option`.
    """

    def option(help, default=None, parse=str, **known):
        known = {"option": Option(title, help, parse, **known)}
        return dataclasses.field(default=default, metadata=known)

    return option
