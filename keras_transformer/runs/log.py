"""The log of a run, `log.jsonl`: one JSON object per line, by update. Methods of `RunDirectory`."""

import json
from typing import TYPE_CHECKING

from keras_transformer import files

if TYPE_CHECKING:
    from keras_transformer.runs.run_directory import RunDirectory


def append_log(run: "RunDirectory", record: dict) -> None:
    """Appends one line to log.jsonl. `truncate_log` goes by its `"update"`."""
    if not run.writes:
        return
    with open(run.path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(files.to_json(record) + "\n")


def read_log(run: "RunDirectory") -> list[dict]:
    """The records of log.jsonl, oldest first. A half-written last line is left out.

    A validation was once called an epoch: old records get the names of today.
    """
    path = run.path / "log.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError(f"expected an object, got {record!r}")
            records.append(_renamed(record))
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, is not JSON: {error}.") from error
    return records


def truncate_log(run: "RunDirectory", update: int) -> None:
    """Drops the records past `update`; called on resuming, so that each is there once."""
    if not run.writes:
        return
    records = [record for record in read_log(run) if record.get("update", 0) <= update]
    files.write_lines(run.path / "log.jsonl", map(files.to_json, records))


def _renamed(record):
    if record.get("event") != "epoch":
        return record
    names = {"epoch": "validation"}
    return {names.get(k, k): "validation" if k == "event" else v for k, v in record.items()}
