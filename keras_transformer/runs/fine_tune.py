"""`train --init-from RUN`: a new run starts from the model of an earlier one.

Vocabulary, architecture and weights are copied to `initial/` in the new run, so that resuming never
needs the earlier run. Nothing is ever written to the earlier run.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import keras

from keras_transformer.files import read_json, replacing, to_json
from keras_transformer.models.presets import PRESETS
from keras_transformer.ops import processes
from keras_transformer.runs import architecture
from keras_transformer.runs.loading import SHARED, SIDES, load_tokenizers
from keras_transformer.runs.run_directory import RunDirectory
from keras_transformer.runs.settings import OPTIONS, TrainSettings
from keras_transformer.text import Tokenizer
from keras_transformer.text.seen import Seen

VOCABULARY = ("vocabulary_size", "vocabulary_type", "normalization", "separate_vocabularies")
SIZES = ("num_layers", "d_model", "num_heads", "d_ff", "norm")
LORA_TARGETS = "query,value"
# Defaults of the options that presets and configs leave out.
UNSAID = {"key_dim": None, "value_dim": None, "positions": "sinusoidal", "max_length": None}


def start_from(settings: TrainSettings) -> tuple["Initial | None", TrainSettings]:
    """The model to start from (None for none), and the settings with all that is now known.

    Raises:
        ValueError: If an option of vocabulary or model contradicts the earlier run.
    """
    if settings.init_from is None:
        if (Path(settings.run_dir) / "initial" / "weights.npz").exists():
            raise ValueError(
                f"{settings.run_dir} began from weights of another run: give its --init-from, "
                "or another --run-dir."
            )
        defaults = {name: known.unless_init_from for name, known in OPTIONS.items()}
        gaps = [name for name in defaults if getattr(settings, name) is None]
        return None, settings.changed(**{name: defaults[name] for name in gaps})
    if settings.vocabulary_sample is not None:
        raise ValueError(
            "--vocabulary-sample has no effect with --init-from, which brings its vocabulary: "
            "leave it out."
        )
    initial = _found(settings)
    vocabulary = initial.vocabulary()
    _refuse_others(settings, settings.given(VOCABULARY), vocabulary, "vocabulary")
    asked = {}
    if settings.preset is not None:
        asked = UNSAID | PRESETS[settings.preset]
        del asked["dropout"], asked["max_length"]  # both may differ
    asked |= settings.given(SIZES)
    architecture = initial.architecture()
    _refuse_others(settings, asked, architecture, "architecture")
    learned = architecture["max_length"]
    if learned is not None and settings.max_length > learned:
        raise ValueError(
            f"--max-length {settings.max_length} is more than the {learned} positions that "
            f"{settings.init_from} has learned: give --max-length {learned}."
        )
    return initial, settings.changed(**vocabulary)


def _found(settings):
    """The model to start from: the copy in the new run, if its first start has left one."""
    folder = Path(settings.run_dir)
    copy = Initial(folder / "initial", folder / "initial" / "weights.npz")
    names = ("init_from", "init_weights")
    if copy.weights.exists():
        recorded = read_json(folder / "settings.json", dict)
        asked = {name: json.loads(to_json(getattr(settings, name))) for name in names}
        if all(recorded.get(name) == asked[name] for name in names):
            copy.refuse_others(recorded["init_sha256"], "they had when they were copied")
            return copy
    run = RunDirectory.open(settings.init_from)
    if "quantized_to" in run.settings:
        raise ValueError(
            f"--init-from {settings.init_from} holds integers, which cannot be trained: give the "
            f"run that it was made from, {run.settings['quantized_from']}."
        )
    found = Initial(run.path, run.weights_file(settings.init_weights))
    if not copy.weights.exists():
        return found
    copy.refuse_others(found.digest(), f"those of --init-from {settings.init_from} have")
    return copy


def _refuse_others(settings, asked, kept, what):
    for name, value in asked.items():
        if value != kept[name]:
            option = "preset" if getattr(settings, name, None) is None else name
            raise ValueError(
                f"--{option.replace('_', '-')} {getattr(settings, option)} contradicts the {what} "
                f"kept from --init-from {settings.init_from} ({name} there: {kept[name]}): leave "
                "it out."
            )


class Initial(NamedTuple):
    """The files of a trained model: an earlier run's, or their copies in a new run."""

    folder: Path
    weights: Path

    def vocabulary(self) -> dict:
        """The options of the vocabulary; None if the run does not say."""
        settings = read_json(self.folder / "settings.json", dict)
        separate = not (self.folder / SHARED).exists()
        return {name: settings.get(name) for name in VOCABULARY} | {
            "separate_vocabularies": separate
        }

    def architecture(self) -> dict:
        """The options of the model."""
        config = {"norm": "post", **UNSAID, **architecture.load(self.folder)["config"]}
        decoder_layers = config["num_decoder_layers"] or config["num_layers"]
        if decoder_layers != config["num_layers"]:  # the option is for both
            config["num_layers"] = f"{config['num_layers']} and {decoder_layers}"
        return config

    def digest(self) -> str:
        """The SHA-256 of the weights' file."""
        with open(self.weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def refuse_others(self, digest: str, which: str) -> None:
        """Raises an error unless the weights' file has this SHA-256."""
        if self.digest() != digest:
            raise ValueError(
                f"{self.weights} has another SHA-256 than {which}: give another --run-dir, or the "
                "--init-from and --init-weights that are in its settings.json."
            )

    def keep(self, run: Path) -> "Initial":
        """Copies the files to `initial/` in the folder `run`, once; returns the copies."""
        copy = Initial(run / "initial", run / "initial" / "weights.npz")
        if copy == self or not processes.is_first():
            return copy
        copy.folder.mkdir(exist_ok=True)
        names = ["settings.json", "model.json", SHARED, *SIDES]
        names += ["seen_ids.npy", "seen_words.txt", "seen.json"]
        files = {name: self.folder / name for name in names if (self.folder / name).exists()}
        # The weights come last: if they are there, all files are.
        for name, path in {**files, copy.weights.name: self.weights}.items():
            with open(path, "rb") as original, replacing(copy.folder / name) as file:
                shutil.copyfileobj(original, file)
        return copy

    def tokenizers(self, folder: Path | None = None) -> tuple[Tokenizer, Tokenizer]:
        """The vocabularies of source and target (one object if shared), saved in `folder`."""
        found = load_tokenizers(self.folder)
        if folder is not None:
            names = (SHARED,) if found[0] is found[1] else SIDES
            for name, tokenizer in zip(names, found, strict=False):
                tokenizer.save(folder / name)
        return found

    def seen_with(self, seen: Seen) -> Seen | None:
        """What this model's training or `seen` had; None if the training is not known."""
        earlier = Seen.load(self.folder, len(seen.ids))
        return None if earlier is None else earlier.union(seen)

    def model(self, settings: TrainSettings) -> keras.Model:
        """The model with its weights, and with the dropout and precision of `settings`."""
        record = architecture.load(self.folder)
        names = ("dropout", "attention_dropout")
        record["config"] |= settings.given(names) | {"dtype": keras.config.dtype_policy().name}
        model = architecture.build(record, self.weights)
        if settings.lora_rank is not None:
            model.enable_lora(
                settings.lora_rank, (settings.lora_targets or LORA_TARGETS).split(",")
            )
        return model
