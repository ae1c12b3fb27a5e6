"""The settings of a run, and what may become of its folder when it is started with others."""

from collections.abc import Iterable
from pathlib import Path

from keras_transformer import files

# Files that a start makes from its settings before it trains, and makes again if they are missing.
# All other files are written anew at every start, or are compared with the text.
PREPARED = (
    "tokenizer.model",
    "source.model",
    "target.model",
    "seen_ids.npy",
    "seen_words.txt",
    "held_out.tsv",  # an earlier name
    "held_out.source.txt",
    "held_out.target.txt",
)


def recorded(path: Path, settings: dict, changeable: Iterable[str]) -> dict | None:
    """The settings of the run at `path`, or None if there is no run.

    Raises:
        ValueError: If something else is there, or a trained run with other `settings`.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, expected a folder: give another --run-dir.")
    if not (path / "settings.json").exists():
        # A start that was killed leaves only "lock" and the temporary file.
        names = {p.name for p in path.iterdir()} if path.exists() else set()
        if any(name != "lock" and not name.endswith(".tmp") for name in names):
            raise ValueError(
                f"{path} is not empty and not a run (no settings.json), so nothing was written: "
                "give another --run-dir."
            )
        return None
    found = files.read_json(path / "settings.json", dict)
    others = fatal(found, settings, changeable)
    if others and holds_training(path):
        raise ValueError(
            f"{path} holds a run with other settings ({listed(others)}): give another --run-dir, "
            "or the old values to resume it."
        )
    return found


def holds_training(path: Path) -> bool:
    """Whether something was trained at `path` or in a run within it.

    Signs of it are a checkpoint, an average, or a log with more than one validation: someone who
    removed the checkpoints may want the log.
    """
    signs = "checkpoints/update-*", "interrupted/update-*", "averaged.npz"
    if any(any(path.rglob(sign)) for sign in signs):
        return True
    log = path / "log.jsonl"
    return log.exists() and sum(b'"val_' in line for line in log.read_bytes().splitlines()) > 1


def listed(different: dict) -> str:
    """What `differences` found, in words."""
    found = [f"{key}: {there} there, {here} here" for key, (there, here) in different.items()]
    if "text_sha256" in different:
        found.append("text_sha256 is that of the text itself, wherever its files are")
    return "; ".join(found)


def discard_prepared(
    path: Path, different: Iterable[str], vocabulary_from: Iterable[str] | None
) -> None:
    """Removes what an earlier start made from other settings, before anything was trained.

    It does so if `different` settings are among those that the vocabulary is made from, or if
    `vocabulary_from` is None.
    """
    if vocabulary_from is None or set(different) & set(vocabulary_from):
        for name in PREPARED:
            (path / name).unlink(missing_ok=True)


def fatal(old: dict, new: dict, changeable: Iterable[str]) -> dict:
    """The `differences` that make another run.

    A run that was started before the SHA-256 of the text was recorded is resumed without it.
    """
    ignored = set(changeable) | {"text_sha256"} - set(old)
    return {key: pair for key, pair in differences(old, new).items() if key not in ignored}


def differences(old: dict, new: dict) -> dict:
    """{key: [old JSON, new JSON]} of those that differ; "(absent)" if one side has none.

    A missing option equals None, so runs started before an option existed can still be resumed.
    """
    texts = [{k: files.to_json(v) for k, v in side.items() if v is not None} for side in (old, new)]
    pairs = {key: [text.get(key, "(absent)") for text in texts] for key in {**old, **new}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
