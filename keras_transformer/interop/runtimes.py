"""A translator for ONNX Runtime or LiteRT: the encoder and one cached step of the decoder.

A file for these engines is a graph without a search. So the search is a script beside it, which
needs only the engine, NumPy and sentencepiece: see runner.py. It is greedy and gives the
translations of `Translator.translate(texts, beam_size=1)`.
"""

import os

import keras
from keras import ops

from keras_transformer import progress
from keras_transformer.decoding import Translator
from keras_transformer.files import new_folder, write_json
from keras_transformer.interop import runner
from keras_transformer.interop.ctranslate2 import save_tokenizers
from keras_transformer.models import Transformer
from keras_transformer.ops import backend, exporting


def to_onnx(translator: Translator, folder: str | os.PathLike) -> None:
    """Writes a translator for ONNX Runtime: encoder, decoder step, tokenizers and a script.

    `README.txt` in the folder holds the script, which translates greedily, and says what the files
    take and give. They take any number of texts of any length, and compute in float32.

    Args:
        translator: A `Translator` of one model, not of an ensemble.
        folder: The folder to make, which must not exist.

    Raises:
        ValueError: On another backend than TensorFlow, for an ensemble or a model without a cache,
            if the folder exists, a package is not installed, or ONNX lacks an operation of the
            model. Nothing is written.

    Example:

    ```python
    kt.interop.to_onnx(kt.load_translator("runs/en-de"), "exports/en-de")
    # elsewhere: python exports/en-de/translate.py < source.txt
    ```
    """
    _write(translator, folder, "onnx")


def to_litert(translator: Translator, folder: str | os.PathLike) -> None:
    """Writes a translator for LiteRT: encoder, decoder step, tokenizers and a script.

    As `to_onnx`. LiteRT, which was TensorFlow Lite, runs on phones and small devices.

    Args:
        translator: A `Translator` of one model that is neither an ensemble nor quantised.
        folder: The folder to make, which must not exist.

    Raises:
        ValueError: On another backend than TensorFlow, for an ensemble, a quantised model or a
            model without a cache, if the folder exists, or LiteRT lacks an operation of the model.
            Nothing is written.

    Example:

    ```python
    kt.interop.to_litert(kt.load_translator("runs/en-de"), "exports/en-de")
    # elsewhere: python exports/en-de/translate.py < source.txt
    ```
    """
    _write(translator, folder, "litert")


def _write(translator, folder, format):
    model = _the_model(translator, format)
    runtime = runner.RUNTIMES[format]
    with new_folder(folder) as folder, progress.work(f"writing a translator for {runtime['name']}"):
        memory, cache = _specs(model)
        parts = {
            "encoder": (_Encoder(model), {"source_ids": _ids("source_ids", (None, None))}),
            "step": (
                _Step(model),
                {
                    "target_ids": _ids("target_ids", (None, 1)),
                    "index": _ids("index", ()),
                    **memory,
                    **cache,
                },
            ),
        }
        for name, (part, inputs) in parts.items():
            path = folder / f"{name}{runtime['suffix']}"
            exporting.export_to_runtime(part, path, format, False, [inputs])
        sizes = {
            **_tokenizers(translator, folder),
            **_special_ids(translator),
            "cache": {name: _with_names(name, spec.shape) for name, spec in cache.items()},
        }
        write_json(folder / "sizes.json", sizes)
        (folder / "translate.py").write_text(runner.script(format), encoding="utf-8")
        (folder / "README.txt").write_text(runner.readme(format, sizes), encoding="utf-8")


def _the_model(translator, format):
    """Returns the translator's model, in float32, if it can be exported."""
    here, name = backend.name(), runner.RUNTIMES[format]["name"]
    if here != "tensorflow":
        raise ValueError(
            f"A translator for {name} is written on the tensorflow backend, this is {here}: set "
            "KERAS_BACKEND=tensorflow. It loads runs of every backend."
        )
    if len(translator.models) != 1:
        raise ValueError(
            f"A translator for {name} holds one model, got an ensemble of "
            f"{len(translator.models)}: export one of them, or the ensemble as a SavedModel."
        )
    [model] = translator.models
    if not isinstance(model, Transformer):
        raise ValueError(
            f"A translator for {name} decodes with the cache of a Transformer, and this is a "
            f"{type(model).__name__}. Export it as a SavedModel."
        )
    exporting.check_exportable(model, format)
    return exporting.in_float32(model)


class _Encoder(keras.Model):
    """From source ids to what the step reads of the source: its mask, its keys and values."""

    def __init__(self, model):
        super().__init__(dtype="float32", name="encoder_part")
        self.model, self.built = model, True

    def call(self, inputs):
        memory, mask = self.model.encode(inputs["source_ids"])
        cache = self.model.start_cache(memory, 1)
        return {"memory_mask": mask, **_flat(cache, "cross")}


class _Step(keras.Model):
    """From the newest target ids and the cache to logits and the new cache."""

    def __init__(self, model):
        super().__init__(dtype="float32", name="step_part")
        self.model, self.built = model, True

    def call(self, inputs):
        cache = {part: _nested(inputs, part) for part in ("self", "cross")}
        logits, cache = self.model.decode(
            inputs["target_ids"], None, inputs["memory_mask"], cache, inputs["index"]
        )
        return {"logits": logits, **_flat(cache, "self", "new_")}


def _flat(cache, part, prefix=""):
    """Names the keys and values of the layers: {"cross_keys_0": [B, H, K, S], ...}."""
    return {
        f"{prefix}{part}_{kind}_{layer}": tensor
        for layer, pair in enumerate(cache[part])
        for kind, tensor in zip(("keys", "values"), pair, strict=True)
    }


def _nested(tensors, part):
    """The keys and values of the layers, as a decoder takes them: the reverse of `_flat`."""
    layers = sum(name.startswith(f"{part}_keys_") for name in tensors)
    return [
        (tensors[f"{part}_keys_{layer}"], tensors[f"{part}_values_{layer}"])
        for layer in range(layers)
    ]


def _specs(model):
    """The outputs of the encoder and the parts of a cache, each as {name: keras.InputSpec}."""
    cache = model.start_cache(model.encode(ops.ones((1, 2), "int32"))[0], 1)
    specs = []
    for part in ("cross", "self"):
        specs.append({})
        for name, tensor in _flat(cache, part).items():
            shape = [None, *tensor.shape[1:]]
            shape[_length_axis(name)] = None
            specs[-1][name] = keras.InputSpec(shape=tuple(shape), dtype="float32", name=name)
    mask = keras.InputSpec(shape=(None, None), dtype="bool", name="memory_mask")
    return {"memory_mask": mask, **specs[0]}, specs[1]


def _length_axis(name):
    return 3 if "_keys_" in name else 2  # [B, H, K, T] and [B, H, T, V]


def _ids(name, shape):
    return keras.InputSpec(shape=shape, dtype="int32", name=name)


def _with_names(name, shape):
    """The shape of a cache as sizes.json gives it: ["rows", H, K, "room"]."""
    shape = ["rows", *shape[1:]]
    shape[_length_axis(name)] = "room"
    return shape


def _special_ids(translator):
    target = translator.target_tokenizer
    return {
        "source_end_id": translator.tokenizer.end_id,
        "pad_id": target.pad_id,
        "start_id": target.start_id,
        "end_id": target.end_id,
        "extra_length": translator.EXTRA_LENGTH,
        "longest_source": translator.learned_positions("source_embedding"),
        "longest_target": translator.learned_positions("target_embedding"),
    }


def _tokenizers(translator, folder):
    """Writes the SentencePiece models, and returns their names."""
    names = save_tokenizers(translator.tokenizer, translator.target_tokenizer, folder)
    return {"source_tokenizer": names[0], "target_tokenizer": names[-1]}
