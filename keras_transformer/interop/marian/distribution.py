"""Reads a model of Marian as OPUS-MT distributes it: decoder.yml, .npz, .yml and two .spm."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_transformer.files import read_npz
from keras_transformer.interop.marian.files import (
    Parts,
    by_id,
    file_in,
    read_yaml,
    refuse_others,
)

EPSILON = 1e-9  # of Marian's layer normalisation
ACTIVATIONS = {"swish": "silu", "relu": "relu"}
OPTIONS = "special:model.yml"
# Options of the model, all as strings: see `refuse_others`.
WANTED: dict[str, tuple[Any, ...]] = {
    "type": ("transformer", "another model"),
    "transformer-decoder-autoreg": (
        "self-attention",
        "a decoder with average attention or a recurrent network, as many student models have",
    ),
    "transformer-no-projection": ("false", "attention without a last projection"),
    "transformer-ffn-depth": ("2", "feed-forward networks of another depth"),
    "transformer-ffn-activation": ("swish", "relu", "another activation"),
    "transformer-postprocess-emb": ("d", "", "a LayerNorm on the embeddings"),
    "transformer-train-positions": ("false", "learned positions on unscaled embeddings"),
    "transformer-train-position-embeddings": ("false", "learned positions on unscaled embeddings"),
    "transformer-tied-layers": ([], "layers that share their weights"),
    "transformer-decoder-dim-ffn": ("0", "another feed-forward width in the decoder"),
    "right-left": ("false", "targets that are read from right to left"),
    "ulr": ("false", "a universal language representation"),
    "lemma-dim-emb": ("0", "factored vocabularies"),
}
# Preprocess, postprocess and postprocess-top -> ours.
NORMS = {("", "dan", ""): "post", ("n", "da", "n"): "pre"}


def read(folder: Path) -> Parts:
    """Reads the folder; see `load`."""
    decoder = file_in(folder, "decoder.yml")
    settings = read_yaml(decoder.read_bytes(), decoder)
    [model] = _names(settings, "models", decoder, (1,), ".npz", "one model, no ensemble")
    vocabularies = _names(settings, "vocabs", decoder, (2,), ".yml", "source and target")
    spm = [_sentencepiece(folder, side) for side in ("source", "target")]
    path = file_in(folder, model)
    arrays = read_npz(path)
    options = _options(arrays.pop(OPTIONS, None), path)
    sizes = _sizes(options, path)
    half = sizes["d_model"] // 2
    frequencies = 10_000.0 ** (-np.arange(half) / max(half - 1, 1))
    pieces = {name: _pieces(file_in(folder, name)) for name in vocabularies}
    return Parts(
        arrays,
        sizes,
        frequencies,
        (spm[0], spm[1]),
        (pieces[vocabularies[0]], pieces[vocabularies[1]]),
        None,
    )


def _names(settings, option, decoder, counts, ending, expected):
    """The names of files that an option of decoder.yml lists."""
    names = settings.get(option)
    plain = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not plain or len(names) not in counts:
        raise ValueError(f"{decoder} has {option}: {names!r}, expected {expected}.")
    for name in names:
        if ending not in name:  # model.npz.best-perplexity.npz, vocab.yml
            raise ValueError(
                f"{decoder} has {option}: {name!r}, expected a file with {ending} in its name. "
                "Other formats of Marian are not read."
            )
    return names


def _sentencepiece(folder, side):
    if not (folder / f"{side}.spm").exists() and (folder / f"{side}.bpe").exists():
        raise ValueError(
            f"{folder} has {side}.bpe: its text was cut by subword-nmt after Moses' tokenizer, "
            "which this package does not have. Choose a model with source.spm and target.spm."
        )
    return file_in(folder, f"{side}.spm").read_bytes()


def _options(array, path) -> dict[str, Any]:
    """The options that Marian writes beside the weights: YAML text that ends with a zero byte."""
    if array is None or array.dtype.itemsize != 1 or array.dtype.kind not in "iuS":
        raise ValueError(f"{path} has no {OPTIONS}, so its architecture is not known.")
    return read_yaml(array.tobytes().rstrip(b"\0"), f"{OPTIONS} of {path}")


def _sizes(options: dict[str, Any], path: Path) -> dict[str, Any]:
    def size(name):
        try:
            number = int(options[name])
        except (KeyError, TypeError, ValueError):
            number = 0
        if number < 1:
            raise ValueError(f"{path} has {name}: {options.get(name)!r}, expected a whole number.")
        return number

    wanted = dict(WANTED)
    width = str(options.get("transformer-dim-ffn"))
    wanted["transformer-decoder-dim-ffn"] = ("0", width, *WANTED["transformer-decoder-dim-ffn"][1:])
    refuse_others(path, options, wanted)
    names = ("transformer-preprocess", "transformer-postprocess", "transformer-postprocess-top")
    order = tuple(options.get(name, "") for name in names)
    if order not in NORMS:
        raise ValueError(
            f"{path} has {', '.join(names)}: {', '.join(map(repr, order))}. A Transformer has "
            "'', 'dan', '' (post-norm) or 'n', 'da', 'n' (pre-norm)."
        )
    try:
        dropout = float(options.get("transformer-dropout", 0.1))
    except (TypeError, ValueError):
        dropout = 0.1
    return {
        "num_layers": size("enc-depth"),
        "num_decoder_layers": size("dec-depth"),
        "d_model": size("dim-emb"),
        "num_heads": size("transformer-heads"),
        "d_ff": size("transformer-dim-ffn"),
        "dropout": dropout,
        "activation": ACTIVATIONS[options.get("transformer-ffn-activation", "swish")],
        "epsilon": EPSILON,
        "norm": NORMS[order],
    }


def _pieces(path: Path) -> list[str]:
    """The pieces of a vocabulary by id, from a YAML mapping of pieces to ids."""
    found = read_yaml(path.read_bytes(), path)
    try:
        return by_id({piece: int(number) for piece, number in found.items()}, path)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no vocabulary ({error}): copy it again.") from error
