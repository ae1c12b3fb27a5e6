"""What every score checks first: two equally long lists of strings, in Unicode NFC."""

import unicodedata


def checked(hypotheses, references):
    """Both sides as equally long lists of NFC strings; a `ValueError` where that cannot be."""
    hypotheses = _nfc_lines(hypotheses, "hypotheses")
    references = _nfc_lines(references, "references")
    if len(hypotheses) != len(references):
        raise ValueError(
            f"Got {len(hypotheses)} hypotheses and {len(references)} references: expected one "
            "reference per hypothesis, in the same order."
        )
    if not any(line.strip() for line in references):
        raise ValueError(
            f"Got {len(references)} references without any text: expected at least one that is not "
            "blank."
        )
    return hypotheses, references


def _nfc_lines(lines, name):
    if isinstance(lines, str):
        raise ValueError(
            f"`{name}` is one string: expected a list of strings, one per sentence; "
            f"for a single sentence, [{name}]."
        )
    lines = list(lines)
    for index, line in enumerate(lines):
        if not isinstance(line, str):
            raise ValueError(
                f"`{name}` holds {type(line).__name__} at position {index}: expected a list of "
                "strings, one per sentence."
            )
    return [unicodedata.normalize("NFC", line) for line in lines]
