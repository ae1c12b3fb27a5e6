"""Low-rank adaptation, LoRA (Hu et al., 2021): a trained model learns a little more, cheaply."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transformer.files import read_npz, replacing, to_json


def enable(
    model: keras.Model, rank: int, targets: Sequence[str], alpha: float | None = None
) -> None:
    """Does what `Services.enable_lora` says, to any Keras model."""
    if active(model):
        raise ValueError("LoRA is enabled already. Call merge_lora() first, and adapt its result.")
    if getattr(model, "optimizer", None) is not None and model.optimizer.built:
        raise ValueError(
            "The optimizer has variables for weights that LoRA freezes. Call enable_lora() before "
            "training, then compile()."
        )
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank is a whole number of at least 1, got {rank!r}.")
    targets = [targets] if isinstance(targets, str) else list(targets)
    leaves = [each for each in model._flatten_layers() if len(list(each._flatten_layers())) == 1]
    adaptable = [each for each in leaves if hasattr(each, "enable_lora")]
    unknown = sorted(set(targets) - {layer.name for layer in adaptable})
    if unknown or not targets:
        names = ", ".join(sorted({layer.name for layer in adaptable}))
        wrong = f"this model has no {', '.join(unknown)}" if unknown else "none is named"
        raise ValueError(f"targets={targets}: {wrong}. Choose among its layers: {names}.")
    for layer in leaves:
        if layer in adaptable and layer.name in targets:
            layer.enable_lora(rank, lora_alpha=alpha)
            for weight in layer.trainable_variables:
                weight.trainable = weight.name.startswith("lora_")
        else:
            layer.trainable = False
    model.train_function = model.test_function = model.predict_function = None


def active(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model that have an adapter."""
    return [each for each in model._flatten_layers() if getattr(each, "lora_enabled", False)]


def description(model: keras.Model) -> dict[str, Any]:
    """The arguments of `enable_lora` that gave this model its adapters; empty without them."""
    layers = active(model)
    if not layers:
        return {}
    targets = sorted({layer.name for layer in layers})
    return {"rank": layers[0].lora_rank, "targets": targets, "alpha": layers[0].lora_alpha}


def save(model: keras.Model, filepath: str | os.PathLike) -> None:
    """Writes the adapters of a model, and nothing else, as one `.npz` file."""
    if not active(model):
        raise ValueError("The model has no adapter to save. Call enable_lora() first, and train.")
    arrays = {path: keras.ops.convert_to_numpy(weight) for path, weight in _weights(model)}
    with replacing(Path(filepath)) as file:
        np.savez(file, lora=np.array(to_json(description(model))), **arrays)  # type: ignore[arg-type]


def load(model: keras.Model, filepath: str | os.PathLike) -> None:
    """Puts the adapters of a file onto their base model, which gets LoRA if it has none."""
    try:
        arrays = read_npz(filepath)
        found = json.loads(str(arrays.pop("lora")))
        wanted = {name: found[name] for name in ("rank", "targets", "alpha")}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{filepath} is no adapter that save_adapter wrote, or is damaged ({error})."
        ) from error
    layers = active(model) or [
        each
        for each in model._flatten_layers()
        if hasattr(each, "enable_lora") and each.name in wanted["targets"]
    ]
    shapes = {}  # compared before anything changes
    for layer in layers:
        kind = "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"
        rows, columns = getattr(layer, kind).shape
        rank = layer.lora_rank or wanted["rank"]
        shapes[f"{layer.path}/lora_{kind}_a"] = (rows, rank)
        shapes[f"{layer.path}/lora_{kind}_b"] = (rank, columns)
    found = {path: array.shape for path, array in arrays.items()}
    if shapes != found:
        path = sorted(path for path in {*shapes, *found} if shapes.get(path) != found.get(path))[0]
        raise ValueError(
            f"{filepath} does not fit the model: {path} is {found.get(path, 'missing')} in the "
            f"file and {shapes.get(path, 'missing')} in the model. Load it onto a model of the "
            "sizes that it was trained on."
        )
    if not active(model):
        enable(model, **wanted)
    for path, weight in _weights(model):
        weight.assign(arrays[path])


def _weights(model) -> Iterator[tuple[str, Any]]:
    """The adapters' matrices by their layers' places in the model, which need no global names."""
    for layer in active(model):
        for weight in layer.weights:
            if weight.name.startswith("lora_"):
                yield f"{layer.path}/{weight.name}", weight
