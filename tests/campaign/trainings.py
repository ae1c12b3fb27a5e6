"""Small trainings that write all that a run has: by `fit`, by the command, and from another run."""

import os
import sys
from pathlib import Path

import keras
import numpy as np

import keras_transformer as kt

WORDS = "ba be bo da de do".split()
SIZES = "--num-layers 1 --d-model 8 --num-heads 2 --d-ff 8"
OPTIONS = "--hold-out 4 --validate-every 2 --tokens-per-batch 96 --log-every 1 --average 2"
OPTIONS += " --keep-checkpoints 2 --max-length 16"
UPDATES = 4


@keras.saving.register_keras_serializable(package="campaign")
class Words(kt.models.Transformer):
    """A Transformer without attention: the kinds of variables that a run saves, traced at once."""

    def make_layers(self, dtype, **sizes):
        layers = super().make_layers(dtype, **sizes)
        return {name: layers[name] for name in ("source_embedding", "target_embedding")}

    def encode(self, source_ids):
        return self.source_embedding(source_ids), source_ids != 0

    def decode(self, target_ids, memory, memory_mask, cache=None, index=0):
        x = self.target_embedding(target_ids) + keras.ops.mean(memory, axis=1, keepdims=True)
        return self.target_embedding(x, reverse=True)


def write_pairs(folder: Path) -> Path:
    """Writes pairs.tsv: words, and their reversed spellings."""
    rng = np.random.default_rng(3)
    lines = [" ".join(rng.choice(WORDS, 3 + i % 3)) for i in range(40)]
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{line}\t{line[::-1]}\n" for line in lines), encoding="utf-8")
    return path


def command(line: str, stdin: str = os.devnull) -> None:
    """Runs the command; raises SystemExit with its status unless that is 0."""
    from keras_transformer import cli

    with open(stdin) as sys.stdin:
        if status := cli.main(line.split()):
            raise SystemExit(status)


def by_fit(path: Path) -> None:
    """A script of a user: `run.fit` of a line through points."""
    from noisy_line import Lines, build

    with kt.RunDirectory.start(path, {"seed": 1}) as run:
        if not (path / "tokenizer.model").exists():
            with kt.files.replacing(path / "tokenizer.model") as file:
                file.write(b"pieces")
        run.fit(
            build(),
            Lines(),
            updates=6,
            validate_every=2,
            log_every=1,
            average=2,
            keep_checkpoints=2,
        )


def by_command(path: Path, *more: str) -> None:
    """`keras-transformer train` on pairs.tsv beside the run."""
    _with_words()
    options = f"{OPTIONS} --updates {UPDATES} {' '.join(more)}"
    command(f"train --train-tsv {path.parent}/pairs.tsv --run-dir {path} {options}")


def small(path: Path, *more: str) -> None:
    by_command(path, "--vocabulary-size 280", SIZES, *more)


def from_another(path: Path) -> None:
    """The same with `--init-from`, from the run `source` beside it."""
    by_command(path, f"--init-from {path.parent}/source")


TRAININGS = {"fit": by_fit, "train": small, "init_from": from_another}


def _with_words():
    """From now on the command trains `Words`, eagerly on TensorFlow, and copies to translate.

    A Transformer is most of the time of a start. What is read and written is the same.
    """
    from keras_transformer.callbacks import Probes
    from keras_transformer.runs import prepare, training

    compile_model = prepare.compile_model

    def compile_eagerly(model, settings, devices=1):
        compile_model(model, settings, devices)
        model.run_eagerly = keras.backend.backend() == "tensorflow"

    def build_model(settings, tokenizer, _):
        return Words(tokenizer.vocabulary_size, 1, settings.d_model, 2, 8, dropout=0.2)

    prepare.compile_model, prepare.build_model = compile_eagerly, build_model
    training.training_step_bytes = lambda *_: 2**20  # of layers that Words lacks
    kt.Translator.translate = lambda translator, texts, **_: list(texts)
    Probes.draw = Probes.draw_once = lambda *_: None
