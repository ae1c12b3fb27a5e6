"""From run directories on disk to a `Translator`."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from keras_transformer import progress
from keras_transformer.decoding import Translator
from keras_transformer.ops.compilation import runs_on_processor
from keras_transformer.runs import engines
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.text import Seen, Tokenizer

ENGINES = "keras", "ctranslate2", "auto"
SHARED, SIDES = "tokenizer.model", ("source.model", "target.model")


def load_translator(
    run: str | os.PathLike | Sequence[str | os.PathLike],
    weights: str | int | Sequence[str | int] | None = None,
    *,
    engine: str = "keras",
    quantization: str = "float32",
) -> Translator:
    """Loads the translator of a run directory, or of several as one ensemble.

    Args:
        run: The path of the run, or a list of paths.
        weights: `"average"`, `"best"`, `"last"` or an update. By default the average, or the last
            if there is no average or the last were better in validation. The attribute `weights`
            of the result says which. A list makes an ensemble of them (of each run).
        engine: `"keras"`, or `"ctranslate2"` for the searches of CTranslate2 on CPUs, for a single
            `Transformer`. It is converted once and kept in the cache of the user (see
            `engines.py`). It has no sampling and takes no functions of your own. `"auto"` takes
            CTranslate2 for what it can do, where it is installed and no GPU is visible, and our own
            engine for the rest.
        quantization: Of CTranslate2's weights, such as `"int8"`.

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
    if engine not in ENGINES:
        raise ValueError(f"engine is one of {', '.join(ENGINES)}; got {engine!r}. Choose one.")
    single = len(runs) == len(wanted) == 1
    if engine == "ctranslate2":
        if not single:
            raise ValueError("The engine ctranslate2 has no ensembles: give one run and weights.")
        return _with_ctranslate2(runs[0], wanted[0], quantization)
    if quantization != "float32":
        raise ValueError(
            f"quantization={quantization!r} has an effect only with engine='ctranslate2'. A run "
            "with integers is made by kt.runs.quantize."
        )
    if engine == "auto" and single and engines.installed() and runs_on_processor():
        try:
            return _with_ctranslate2(runs[0], wanted[0], quantization, alone=False)
        except ValueError as error:
            progress.say(f"translating with Keras, because: {error}")
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


def _with_ctranslate2(run, weights, quantization, alone=True):
    """With `alone` what CTranslate2 lacks is refused; otherwise our own engine does it."""
    from keras_transformer.interop.ctranslate2_engine import CTranslate2Translator

    directory = RunDirectory.open(run)
    load = functools.cache(functools.partial(load_translator, run, weights))
    folder = engines.converted(directory, weights, quantization, load)
    tokenizers = load_tokenizers(directory.path)
    found = CTranslate2Translator(
        folder,
        *tokenizers,
        seen=Seen.load(directory.path, tokenizers[0].vocabulary_size),
        learned_positions=engines.learned_positions(directory),
        other=None if alone else load,
    )
    found.weights = weights or directory.default_weights()
    return found


def load_tokenizers(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """Loads the vocabularies of source and target; one object if they share one."""
    names = (SHARED,) if (folder / SHARED).exists() else SIDES
    found = [Tokenizer.load(folder / name) for name in names]
    return found[0], found[-1]


def _listed(value):
    return list(value) if isinstance(value, list | tuple) else [value]
