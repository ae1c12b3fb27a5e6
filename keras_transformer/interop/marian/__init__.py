"""Trained models of Marian and OPUS-MT: https://marian-nmt.github.io, https://opus.nlpl.eu.

```
a Hugging Face folder      config.json, model.safetensors, source.spm, target.spm, vocab.json
an OPUS-MT distribution    decoder.yml, a model .npz, a vocabulary .yml, source.spm, target.spm
```

No file is executed or unpickled, and only files directly in the folder are read.
"""

import os
from pathlib import Path

from keras_transformer.decoding import Translator
from keras_transformer.interop.marian import distribution, huggingface
from keras_transformer.interop.marian.vocabulary import language_tags
from keras_transformer.interop.marian.weights import translator_of

__all__ = ["language_tags", "load"]

POSITIONS = ("sinusoidal", "learned")


def load(folder: str | os.PathLike, positions: str | None = None) -> Translator:
    """Reads a model of Marian, from Hugging Face or as OPUS-MT distributes it.

    Logits, searches and scores are those of the original. If source and target share one embedding
    matrix there, they share it here too. The ids are others: 0 is padding, 1 unknown, 2 the start
    and 3 the end. A multilingual model wants a tag before each source, such as `>>fra<<`: see
    `language_tags`.

    Args:
        folder: The folder with the model's files.
        positions: `"sinusoidal"` or `"learned"`. Hugging Face computes the sinusoids of the paper
            in another order, and `"sinusoidal"`, its default, gives the same numbers. Marian's own
            sinusoids have slightly other frequencies. So an OPUS-MT distribution gets a table of
            them by default, `"learned"`, for 1,024 tokens. `"sinusoidal"` has no such limit, and is
            what Hugging Face and CTranslate2 compute with these models.

    Returns:
        The `Translator`, with the `Transformer` as `models[0]`.

    Raises:
        ValueError: If a file is missing, damaged or contradicts another, or the model needs what a
            `Transformer` does not have. The message says what.

    Example:

    ```python
    translator = kt.interop.marian.load("opus-mt-en-fr")
    translator.translate(["A man rides a horse."], length_penalty="average")
    ```
    """
    if positions not in (None, *POSITIONS):
        raise ValueError(
            f"positions is one of {', '.join(POSITIONS)}; got {positions!r}. Leave it out, or "
            "choose one."
        )
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder {folder} with a model of Marian: check the path.")
    if (folder / "config.json").exists():
        return translator_of(huggingface.read(folder), positions or "sinusoidal")
    if (folder / "decoder.yml").exists():
        return translator_of(distribution.read(folder), positions or "learned")
    raise ValueError(
        f"{folder} is no model of Marian: it has neither config.json, as from Hugging Face, nor "
        "decoder.yml, as from OPUS-MT. Give the folder that has one of them."
    )
