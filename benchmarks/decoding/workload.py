"""Writes what the translating contestants load: one model in every format, and the sentences."""

import json
from pathlib import Path

import keras
import numpy as np
from decoding.digits import Digits
from train import SIZES, VOCABULARY, caption_lengths

from keras_transformer import interop, models, text
from keras_transformer.decoding.translator import Translator
from keras_transformer.runs import run_directory

SPECIAL = {"pad_id": 0, "unknown_id": 1, "start_id": 2, "end_id": 3}
LONGEST = 512  # positions in the table of Hugging Face's model


def random_model(size):
    """Returns an untrained model that never chooses a special id.

    The embeddings of the special ids are zero, so their logits are zero after any prefix. That is
    far below the best logit.
    """
    keras.utils.set_random_seed(1)
    model = models.Transformer(VOCABULARY[size], **SIZES[size])
    embeddings = model.source_embedding.token.embeddings
    weights = embeddings.numpy()
    weights[list(SPECIAL.values())] = 0
    embeddings.assign(weights)
    return model


def run_model(run):
    """Returns the model of a run in float32, also if it was trained in another precision."""
    trained = run_directory.RunDirectory.open(run).load_model()
    model = models.Transformer.from_config({**trained.get_config(), "dtype": "float32"})
    model.set_weights(trained.get_weights())
    return model


def random_sentences(vocabulary_size, count):
    rng = np.random.default_rng(1)
    lengths = np.round(caption_lengths(rng, count)).astype(int)
    return [rng.integers(4, vocabulary_size, length).tolist() for length in lengths]


def real_sentences(file, run, count):
    """Returns the first `count` lines of a file as ids, and the tokenizer's special ids."""
    tokenizer = text.Tokenizer.load(Path(run) / "tokenizer.model")
    lines = Path(file).read_text(encoding="utf-8").splitlines()[:count]
    if len(lines) < count:
        raise ValueError(
            f"{file} has {len(lines)} lines instead of {count}. Pass --sentences {len(lines)}."
        )
    ids = [each for each in tokenizer.encode(lines) if each]
    return ids, {name: getattr(tokenizer, name) for name in SPECIAL}


def write(folder, model, sentences, special, formats):
    """Writes `model` and `sentences` for the contestants.

    Args:
        folder: An empty folder.
        model: A `Transformer`.
        sentences: Lists of ids, without the end.
        special: The special ids.
        formats: What to write besides the Keras model: any of "huggingface",
            "ctranslate2_float32" and "ctranslate2_int8".
    """
    folder = Path(folder)
    workload = {
        "special_ids": special,
        "sentences": sentences,
        "extra_length": Translator.EXTRA_LENGTH,
    }
    (folder / "sentences.json").write_text(json.dumps(workload))
    model.save(folder / "model.keras")
    digits = Digits(model.source_embedding.vocabulary_size, **special)
    for weights in ("float32", "int8"):
        name = f"ctranslate2_{weights}"
        if name in formats:
            interop.to_ctranslate2(Translator(model, digits), folder / name, quantization=weights)
    if "huggingface" in formats:
        import torch
        from decoding.huggingface import to_huggingface

        ids = {name: special[name] for name in ("pad_id", "start_id", "end_id")}
        torch.save(to_huggingface(model, LONGEST, **ids), folder / "huggingface.pt")
