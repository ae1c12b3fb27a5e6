"""What every score checks first: two equally long lists of strings, in Unicode NFC."""

import unicodedata
from collections.abc import Sequence


def checked(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns both sides as equally long lists of NFC strings.

    Raises:
        ValueError: If they differ in length, or hold anything but strings, or no text at all.
    """
    sides = _nfc_lines(hypotheses, "hypotheses"), _nfc_lines(references, "references")
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"Got {len(sides[0])} hypotheses and {len(sides[1])} references: expected one "
            "reference per hypothesis, in the same order."
        )
    if not any(line.strip() for line in sides[1]):
        raise ValueError(
            f"Got {len(sides[1])} references without any text: expected at least one that is not "
            "blank."
        )
    return sides


def checked_with_more(
    hypotheses: Sequence[str], references: Sequence[str], more: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Returns the hypotheses, and a list of all sets of references, each as `checked` does."""
    if more and isinstance(more[0], str):
        raise ValueError(
            "`more_references` is a list of strings: expected a list of lists, each with one "
            "reference per hypothesis. For one more set pass [references]."
        )
    sides = [checked(hypotheses, each) for each in (references, *more)]
    return sides[0][0], [each for _, each in sides]


def _nfc_lines(lines, name):
    if isinstance(lines, str):
        raise ValueError(
            f"`{name}` is one string: expected a list of strings, one per sentence. For a single "
            f"sentence pass [{name}]."
        )
    lines = list(lines)
    for index, line in enumerate(lines):
        if not isinstance(line, str):
            raise ValueError(
                f"`{name}` holds {type(line).__name__} at position {index}: expected a list of "
                "strings, one per sentence."
            )
    return [unicodedata.normalize("NFC", line) for line in lines]
