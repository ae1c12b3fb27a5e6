"""`model.json`: the architecture of a run's model, without code, and the model itself from it."""

from pathlib import Path
from typing import Any

import keras

from keras_transformer import files, models  # noqa: F401  Keras loads these models
from keras_transformer.models import lora
from keras_transformer.ops.quantization import rebuilt
from keras_transformer.runs.checkpoints import load_weights, weights_path

# The arguments of the models of this package that its weights grow with.
SIZES = "num_layers", "num_decoder_layers", "d_model", "d_ff", "vocabulary_size"


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
    record = files.read_json(folder / "model.json", dict)
    if not isinstance(record.get("config"), dict):
        raise ValueError(f"{folder / 'model.json'} describes no model: restore a copy of it.")
    return record


def _refuse_huge(config, weights):
    """Refuses sizes that the file of the weights cannot have, before a model is built of them.

    A stranger's number of layers could otherwise take hours, and its widths all memory.
    """
    path = weights_path(weights)
    sizes = {name: size for name in SIZES if isinstance(size := config.get(name), int)}
    layers = max(sizes.get("num_layers", 0), sizes.get("num_decoder_layers", 0))
    width = sizes.get("d_model", 0)
    largest = width * max(sizes.values(), default=0)
    # int4 packs two numbers in a byte.
    if layers > len(files.npz_keys(path)) or largest > 2 * path.stat().st_size:
        raise ValueError(
            f"{path} is too small for the model that model.json describes ({sizes}): one of them "
            "is of another run."
        )


def build(record: dict[str, Any], weights: Any) -> keras.Model:
    """The model of `record` with `weights`, a checkpoint or a file; adapters are merged."""
    adapters = record.get("lora")
    plain = {key: value for key, value in record.items() if key != "lora"}
    _refuse_huge(plain["config"], weights)
    try:
        model = keras.saving.deserialize_keras_object(plain, safe_mode=True)
        if adapters:
            lora.enable(model, **adapters)
    except Exception as error:  # constructors of layers raise many kinds for wrong arguments
        raise ValueError(
            f"model.json describes no model that can be built ({error}): restore a copy of it."
        ) from error
    load_weights(model, weights)
    return rebuilt(model) if adapters else model
