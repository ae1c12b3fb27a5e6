"""Checks of arguments that are easily mistyped. An error says what was given and expected."""

import math
import numbers
import operator
from typing import Any


def whole_number(name: str, value: Any, least: int = 1, advice: str = "") -> int:
    """Returns an integer argument, which may be NumPy's, as an `int`.

    Args:
        name: The name of the argument.
        value: Its value.
        least: The smallest value allowed.
        advice: A sentence for the error that says how to mend it.

    Raises:
        ValueError: If it is not an integer, or is less than `least`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(
            f"{name} is an integer and at least {least}, got {value!r}. {advice}".strip()
        )
    return number


def real_number(
    name: str, value: Any, least: float = 0, advice: str = "", most: float = math.inf
) -> float:
    """Returns a number argument as it is; see `whole_number`."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not (math.isfinite(value) and least <= value <= most):
        limit = "" if most == math.inf else f" and at most {most}"
        raise ValueError(
            f"{name} is a number and at least {least}{limit}, got {value!r}. {advice}".strip()
        )
    return value


def length_penalty(value: Any) -> float | str:
    """Returns the `length_penalty` of a search: `"average"`, or alpha, a number from 0 to 10."""
    if value == "average":
        return value
    advice = 'The paper has 0.6. "average" divides by the length.'
    # Above it the penalty of a long text would leave float32.
    return real_number("length_penalty", value, advice=f'Or it is "average". {advice}', most=10)


def strings(values: Any, caller: str) -> list[str]:
    """Returns a list of strings that can all be written as UTF-8.

    Raises:
        ValueError: If `values` is a single string or cannot be listed, or an entry is no such
            string. The message begins with the `caller`.
    """
    if isinstance(values, str | bytes):
        raise ValueError(f"{caller} takes a list of strings, got one string: pass [text].")
    try:
        values = list(values)
    except TypeError:
        raise ValueError(f"{caller} takes a list of strings, got {values!r}.") from None
    for place, value in enumerate(values):
        string(value, f"{caller} takes a list of strings, got at index {place}")
    return values


def string(value: Any, what: str) -> str:
    """Returns a string that can be written as UTF-8; `what` begins the error."""
    if not isinstance(value, str):
        advice = "Decode it first: value.decode()." if isinstance(value, bytes) else ""
        advice = 'Leave it out, or pass "".' if value is None else advice
        raise ValueError(f"{what} {value!r}, which is no string. {advice}".strip())
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} {value[:80]!r}, with an unpaired surrogate at character {error.start}: no "
            "text. Was a file read in another encoding than its own, with "
            "errors='surrogateescape'? Read it again with the right one."
        ) from None
    return value
