"""`model.json`: the architecture of a run's model, without code, and the model itself from it."""

from pathlib import Path
from typing import Any

import keras

from keras_transformer import files, models  # noqa: F401  Keras loads these models
from keras_transformer.models import lora
from keras_transformer.ops.quantization import rebuilt
from keras_transformer.runs.checkpoints import load_weights


def save(model: keras.Model, folder: Path) -> None:
    """Writes `model.json`. Under `"lora"` it holds the arguments of `enable_lora`, if any."""
    record = keras.saving.serialize_keras_object(model)
    record.pop("compile_config", None)  # translating needs no loss and no optimizer
    if adapters := lora.description(model):
        record["lora"] = adapters
    files.write_json(folder / "model.json", record)


def load(folder: Path) -> dict[str, Any]:
    """What `save` wrote."""
    if not (folder / "model.json").exists():
        raise ValueError(f"{folder} has no model.json: copy the run as a whole.")
    return files.read_json(folder / "model.json")


def build(record: dict[str, Any], weights: Any) -> keras.Model:
    """The model of `record` with `weights`, a checkpoint or a file; adapters are merged."""
    adapters = record.get("lora")
    plain = {key: value for key, value in record.items() if key != "lora"}
    model = keras.saving.deserialize_keras_object(plain, safe_mode=True)
    if adapters:
        lora.enable(model, **adapters)
    load_weights(model, weights)
    return rebuilt(model) if adapters else model
