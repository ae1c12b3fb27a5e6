"""Which run weights belong to, by the SHA-256 of the files of a run that never change."""

import hashlib
from pathlib import Path

# Written before the first checkpoint, and not changed afterwards.
FIXED = "settings.json", "model.json", "tokenizer.model", "source.model", "target.model"


def of(run: Path) -> dict[str, str]:
    """The SHA-256 of the run's own files, by name, of those that it has."""
    paths = (run / name for name in FIXED)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.exists()
    }


def check(run: Path, recorded: dict[str, str], holder: Path) -> None:
    """Compares the run's files with those that `holder`, a file of weights, was saved beside.

    Weights of another run, or a changed vocabulary, would otherwise translate without a word.

    Args:
        run: The folder of the run.
        recorded: What `of` returned then; empty if an older version saved it.
        holder: What the error names.

    Raises:
        ValueError: If a file differs.
    """
    found = of(run)
    others = [name for name in recorded if found.get(name) != recorded[name]]
    if others:
        raise ValueError(
            f"{holder} was saved beside another {', '.join(others)} than {run} holds: it belongs "
            "to another run, or these files were changed. Restore them, or move it away."
        )
