"""Runs the command in this process, and reads what it leaves behind: for its tests."""

import io
import random
import re
import sys

import keras
import numpy as np
import pytest
from uncompiled import search_uncompiled, train_uncompiled

from keras_transformer import cli
from keras_transformer.runs.checkpoints import read_arrays
from keras_transformer.runs.run_directory import RunDirectory

TINY = (
    "--d-model 16 --num-layers 1 --num-heads 2 --d-ff 32 --vocabulary-type char --warmup-steps 10 "
    "--tokens-per-batch 256 --validate-every 3 --keep-checkpoints 5 --bleu-every 1"
).split()
# The fields of a log record that depend on a clock.
CLOCKS = re.compile("second|time|left|waiting")


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def write_parallel(folder):
    """Writes a parallel text: two to four words, and their reversals."""
    rng = random.Random(7)
    folder.mkdir()
    sources = [" ".join(rng.choices("ba be bo da de do".split(), k=2 + i % 3)) for i in range(48)]
    targets = [" ".join(word[::-1] for word in source.split()) for source in sources]
    for part, chosen in (("train", slice(44)), ("valid", slice(44, None))):
        for side, lines in (("source", sources), ("target", targets)):
            write(folder / f"{part}.{side}", lines[chosen])


def path_of(parallel, option):
    return next(o.split("=")[1] for o in parallel if o.startswith(f"--{option}="))


def train(*options):
    """Trains as in a new process, where the numbers in names of variables start at 0."""
    keras.backend.clear_session()
    return cli.main(["train", *TINY, *options])


def train_run(path, parallel):
    """Trains a run of 6 updates."""
    with pytest.MonkeyPatch.context() as patch:
        search_uncompiled(patch)
        train_uncompiled(patch)
        assert train(*parallel, "--updates=6", f"--run-dir={path}") == 0


def main(capsys, *arguments):
    """Runs a command and returns its status, stdout and stderr."""
    capsys.readouterr()
    status = cli.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def pipe(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def arrays_of(run, update):
    folder = run / "checkpoints" / f"update-{update:08}"
    return {
        name: array
        for file in ("weights", "state")
        for name, array in read_arrays(folder / f"{file}.npz")
    }


def log_of(run):
    """Returns a run's records without the fields of clocks, and with only its last end."""
    *records, end = RunDirectory.open(run).read_log()
    assert end["event"] == "end"
    records = [record for record in records if record["event"] != "end"] + [end]
    return [{k: v for k, v in record.items() if not CLOCKS.search(k)} for record in records]


def assert_same_run(run, other, updates):
    for update in updates:
        expected, found = arrays_of(run, update), arrays_of(other, update)
        assert expected.keys() == found.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert log_of(other) == log_of(run)


def status_and_err(capsys, *arguments):
    status, out, err = main(capsys, *arguments)
    assert out == ""
    return status, err


def assert_one_line(status, err, part):
    assert status == 1
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert re.match("keras-transformer [a-z]+: error: ", err) and part in err, err
