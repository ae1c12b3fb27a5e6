"""Files of a run and inputs of the command that are damaged or hostile."""

import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from mutations import mutations

from campaign import cases

WORDS = "ba be bo da de do".split()
SIZES = "--preset tiny --num-layers 1 --d-model 8 --num-heads 2 --d-ff 8 --vocabulary-size 280"


def make_run(folder: Path) -> None:
    """Writes pairs.tsv and a run that the command trained on it."""
    rng = np.random.default_rng(3)
    lines = [" ".join(rng.choice(WORDS, 3 + i % 3)) for i in range(40)]
    text = "".join(f"{line}\t{line[::-1]}\n" for line in lines)
    (folder / "pairs.tsv").write_text(text, encoding="utf-8")
    _command(f"{_train(folder, 'run')} --updates 2")


def _train(folder, name):
    options = "--hold-out 4 --validate-every 1 --tokens-per-batch 128 --jit off"
    return f"train --train-tsv {folder}/pairs.tsv --run-dir {folder}/{name} {SIZES} {options}"


def _command(line, stdin=b""):
    from keras_transformer import cli

    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    status = cli.main(line.split())
    if status:
        raise SystemExit(status)


class Damage:
    """Damages one file after another. `files` and `inputs` return what went wrong, or None."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder, self.rng, self.count = folder, rng, 0
        end = cases.run(lambda: make_run(folder), folder, watched=False)
        if end.status:
            raise RuntimeError(f"a training on good files fails:\n{end.output}")
        names = (path for path in (folder / "run").rglob("*") if path.is_file())
        self.names = sorted(path for path in names if "events" not in path.name)

    def files(self) -> str | None:
        """Damages a file of the run in 50 ways, each in another copy, and loads it."""
        original = self.names[self.rng.integers(len(self.names))]
        copies = self.folder / "copies"
        shutil.rmtree(copies, ignore_errors=True)
        name, seed = original.relative_to(self.folder / "run"), int(self.rng.integers(2**31))
        kinds = list(mutations(original.read_bytes(), 49, seed)) + [b""]
        for number, data in enumerate(kinds):
            copy = shutil.copytree(self.folder / "run", copies / str(number))
            (copy / name).write_bytes(data)
        self.count += len(kinds)
        end = cases.run(lambda: self._load(copies, len(kinds)), copies)
        return _wrong(end, f"damage to {name}, seed {seed}")

    def _load(self, copies, count):
        from keras_transformer import cli
        from keras_transformer.cli.ends import program
        from keras_transformer.runs.loading import load_translator

        for number in range(count):
            try:
                with program("load"):
                    load_translator(copies / str(number))
            except SystemExit as end:
                print(end.code, file=sys.stderr)
        # One of them by a verb, which also writes.
        line = _train(self.folder, f"copies/{self.rng.integers(count)}")
        sys.stdin = io.TextIOWrapper(io.BytesIO(b"ba be\n"))
        if cli.main([*line.split(), "--updates", "3"]) not in (0, 1):
            raise AssertionError("a status that is neither 0 nor 1")

    def inputs(self) -> str | None:
        """Garbles what the command reads in 50 ways: text to train on, and a list of pairs."""
        copies = self.folder / "copies"
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir()
        seed = int(self.rng.integers(2**31))
        text = (self.folder / "pairs.tsv").read_bytes()
        kinds = list(mutations(text, 40, seed))
        kinds += [os.urandom(int(self.rng.integers(1, 300))) for _ in range(10)]
        self.count += len(kinds)

        def read():
            for number, data in enumerate(kinds):
                path = copies / f"{number}.tsv"
                path.write_bytes(data)
                from keras_transformer import cli

                verbs = f"score {self.folder}/run --tsv {path}", f"average {path}"
                verbs += (f"evaluate --hypotheses {path} --reference {path}",)
                cli.main(verbs[number % len(verbs)].split())

        return _wrong(cases.run(read, copies), f"inputs, seed {seed}")


def _wrong(end, what):
    for name in ("hung", "forbidden", "traceback"):
        if getattr(end, name):
            return f"{what}: {name}\n{end.output[-3000:]}"
    return None if end.status == 0 else f"{what}: status {end.status}\n{end.output[-3000:]}"
