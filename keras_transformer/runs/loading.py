"""From run directories on disk to a `Translator`."""

import os
from collections.abc import Sequence
from pathlib import Path

from keras_transformer.decoding import Translator
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.text import Seen, Tokenizer

SHARED, SIDES = "tokenizer.model", ("source.model", "target.model")


def load_translator(
    run: str | os.PathLike | Sequence[str | os.PathLike],
    weights: str | int | Sequence[str | int] | None = None,
) -> Translator:
    """Loads the translator of a run directory, or of several as one ensemble.

    Args:
        run: The path of the run, or a list of paths.
        weights: `"average"`, `"best"`, `"last"` or an update. By default the average, or the last
            if there is no average or the last were better in validation. The attribute `weights`
            of the result says which. A list makes an ensemble of them (of each run).

    Raises:
        FileNotFoundError, ValueError: If `run` is not a complete run, or the runs' vocabularies
            differ.

    Example:

    ```python
    kt.load_translator("runs/en-de").translate(["A man rides a horse ."])
    kt.load_translator(["runs/seed1", "runs/seed2"])  # an ensemble
    ```
    """
    runs, wanted = _listed(run), _listed(weights)
    directories = [RunDirectory.open(each) for each in runs]
    # Before the tokenizers, because it says so if a run was never trained.
    models = [directory.load_model(each) for directory in directories for each in wanted]
    tokenizers = [load_tokenizers(directory.path) for directory in directories]
    for path, found in zip(runs, tokenizers, strict=True):
        if [t.model_proto for t in found] != [t.model_proto for t in tokenizers[0]]:
            raise ValueError(
                f"{path} has another vocabulary than {runs[0]}: an ensemble needs one. Train "
                "its members on the same text and vocabulary options."
            )
    seen = Seen.load(directories[0].path, tokenizers[0][0].vocabulary_size)
    translator = Translator(models, *tokenizers[0], seen=seen)
    names = [each or directory.default_weights() for each in wanted for directory in directories]
    names = list(dict.fromkeys(names))
    translator.weights = names if len(names) > 1 else names[0]
    return translator


def load_tokenizers(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """Loads the vocabularies of source and target; one object if they share one."""
    names = (SHARED,) if (folder / SHARED).exists() else SIDES
    found = [Tokenizer.load(folder / name) for name in names]
    return found[0], found[-1]


def _listed(value):
    return list(value) if isinstance(value, list | tuple) else [value]
