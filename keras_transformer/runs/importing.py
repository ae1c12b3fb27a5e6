"""Runs made from models of other toolkits: what `keras-transformer import` does."""

import os

from keras_transformer.interop import marian
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.runs.writing import write_run


def import_model(
    folder: str | os.PathLike, run_dir: str | os.PathLike, positions: str | None = None
) -> RunDirectory:
    """Writes a model of Marian or OPUS-MT as a run, which translates and can be trained on.

    Args:
        folder: The model's folder, from Hugging Face or of an OPUS-MT distribution. Nothing in it
            changes.
        run_dir: The folder of the new run.
        positions: `"sinusoidal"` or `"learned"`; see `kt.interop.marian.load`.

    Returns:
        The run.

    Raises:
        ValueError: If the model cannot be read, or `run_dir` exists.

    Example:

    ```python
    kt.runs.import_model("opus-mt-en-fr", "runs/en-fr")
    kt.load_translator("runs/en-fr").translate(["A man rides a horse."])
    ```
    """
    if os.path.lexists(run_dir):  # before the work
        raise ValueError(f"{run_dir} exists and is not overwritten: give another --run-dir.")
    translator = marian.load(folder, positions)
    settings = {"imported_from": os.path.abspath(folder), "positions": positions}
    tokenizers = (translator.tokenizer, translator.target_tokenizer)
    return write_run(run_dir, settings, translator.models[0], tokenizers)
