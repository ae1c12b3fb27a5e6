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
    """What is known about one field of `TrainSettings` beside its name and its default.

    Args:
        group: The heading it has in the help.
        help: One line for the help.
        parse: A function of the text on the command line; None for a flag.
        choices: The values that are possible; empty if there are more than can be listed.
        metavar: How the help names the value.
        unless_init_from: The default of a run that does not start from an earlier one, which
            brings its own.
        changeable: Whether it may differ when the run is resumed. It then changes no update that
            was already made.
        derived: Whether it follows from the size of the text unless given (runs/derivation.py).
        hparam: Whether TensorBoard's HParams table has a column for it.
        recorded: Whether the run records it.
    """

    group: str
    help: str
    parse: Callable[[str], Any] | None = str
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    unless_init_from: Any = None
    changeable: bool = False
    derived: bool = False
    hparam: bool = False
    recorded: bool = True


def group(title: str) -> Callable[..., Any]:
    """Returns a function that makes fields of `TrainSettings`, the options under one heading.

    Its arguments are `help`, `default` (None), `parse` and further arguments of `Option`.
    """

    def option(help, default=None, parse=str, **known):
        known = {"option": Option(title, help, parse, **known)}
        return dataclasses.field(default=default, metadata=known)

    return option
