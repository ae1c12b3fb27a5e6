"""Runs that nobody trained here: their model was quantised, or comes from another toolkit."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transformer.files import replacing
from keras_transformer.ops.quantization import rebuilt
from keras_transformer.runs import architecture, identity
from keras_transformer.runs.checkpoints import write_arrays
from keras_transformer.runs.loading import SHARED, SIDES, load_tokenizers
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.text import Seen, Tokenizer


def write_run(
    path: str | os.PathLike,
    settings: dict[str, Any],
    model: keras.Model,
    tokenizers: Sequence[Tokenizer],
    *,
    update: int = 0,
    seen: Seen | None = None,
) -> RunDirectory:
    """Writes a model and its vocabularies as a run that every verb reads.

    Args:
        path: The folder of the new run.
        settings: What `settings.json` will hold.
        model: A built model.
        tokenizers: Those of source and target, one object if they share one.
        update: The number of updates that the weights have had.
        seen: What the model's training has had, for warnings at translation.

    Returns:
        The run.

    Raises:
        ValueError: If the folder holds another run, or this one already.
    """
    averaged = Path(path) / "averaged.npz"
    if averaged.exists():
        raise ValueError(f"{path} holds a model already: give another --run-dir.")
    with RunDirectory.start(path, settings) as run:
        names = (SHARED,) if tokenizers[0] is tokenizers[-1] else SIDES
        for name, tokenizer in zip(names, tokenizers, strict=False):
            tokenizer.save(run.path / name)
        if seen is not None:
            seen.save(run.path)
        model = rebuilt(model)
        architecture.save(model, run.path)
        weights = [(weight.path, keras.ops.convert_to_numpy(weight)) for weight in model.weights]
        with replacing(averaged) as file:  # last: it makes the run complete
            own = list(identity.of(run.path).items())
            write_arrays(file, weights, updates=np.array([update]), run=own)
    return run


def quantize(
    run: str | os.PathLike,
    mode: str,
    run_dir: str | os.PathLike,
    weights: str | int | None = None,
) -> RunDirectory:
    """Writes a quantised copy of a run: what `keras-transformer quantize` does.

    Args:
        run: The folder of a trained run, of which nothing changes.
        mode: `"int8"` or `"int4"`.
        run_dir: The folder of the new run.
        weights: `"average"`, `"best"`, `"last"` or an update, as in `kt.load_translator`.

    Returns:
        The new run, which translates, evaluates and exports. It cannot be trained on.

    Raises:
        ValueError: For another mode, or a run that is quantised already.

    Example:

    ```python
    kt.runs.quantize("runs/en-de", "int8", "runs/en-de-int8")
    ```
    """
    if mode not in ("int8", "int4"):
        raise ValueError(f"--to {mode}: expected int8 or int4. Choose one.")
    source = RunDirectory.open(run)
    if "quantized_to" in source.settings:
        raise ValueError(
            f"{run} holds integers already ({source.settings['quantized_to']}): quantise the run "
            f"that it was made from, {source.settings['quantized_from']}."
        )
    if weights is None:
        weights = source.default_weights()
    model = source.load_model(weights)
    model.quantize(mode)
    settings = source.settings | {
        "quantized_from": os.fspath(run),
        "quantized_to": mode,
        "quantized_weights": str(weights),
    }
    tokenizers = load_tokenizers(source.path)
    seen = Seen.load(source.path, tokenizers[0].vocabulary_size)
    return write_run(run_dir, settings, model, tokenizers, seen=seen)
