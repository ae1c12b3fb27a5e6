"""The run directory: everything needed to translate, resume and reproduce a training run.

```
RUN/
  settings.json    every option of the command, resolved; written once
  versions.json    a list, one entry a start: versions, backend, platform, CPUs, changed settings
  model.json       the architecture as Keras JSON (no code, no pickle)
  tokenizer.model  (written by the tokenizer)
  log.jsonl        one JSON object a line
  lock             held by the process that trains here
  averaged.npz     weights only, the mean of several checkpoints
  checkpoints/update-00001000/{weights.npz, state.npz, state.json}
```

A checkpoint holds all that makes a resumed run equal to one that never stopped, to the bit:
`weights.npz` has `model.weights`; `state.npz` has the states of the seed generators (Keras'
`save_weights` leaves them out, so that a resumed run draws other dropout masks) and every variable
of the optimizer; `state.json` has the caller's state and the size and SHA-256 of the other two.
On the torch backend Keras' Dropout without a seed draws from torch's global generator, which `fit`
itself advances: give it a seed (`Dropout(0.1, seed=1)`), and the law holds there too.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras

from keras_transformer import files, models, progress  # noqa: F401  Keras loads these models
from keras_transformer.ops.compilation import runs_on_processor
from keras_transformer.runs import averages, checkpoints
from keras_transformer.runs import recorded as run_settings
from keras_transformer.runs.checkpoints import (
    Checkpoint,
    average,
    load_weights,
    read_arrays,
    write_arrays,
)
from keras_transformer.runs.fit import fit

__all__ = ["Checkpoint", "RunDirectory", "average", "load_weights"]

PACKAGES = ("keras-transformer-kit", "keras", "tensorflow", "jax", "torch", "numpy")


class RunDirectory:
    """A training run on disk: `start` one to train in it, `open` one to read it.

    Example:

    ```python
    with RunDirectory.start("runs/de-en", {"preset": "tiny", "seed": 1}) as run:
        tokenizer.save(run.path / "tokenizer.model")
        run.fit(model, plan, updates=5000, validate_every=500)  # the same again resumes

    model = RunDirectory.open("runs/de-en").load_model()
    ```
    """

    def __init__(self, path: str | os.PathLike, settings: dict):
        self.path = Path(path)
        self.settings = settings
        self._lock = None

    @classmethod
    def start(
        cls,
        path: str | os.PathLike,
        settings: dict,
        changeable: Iterable[str] = (),
        vocabulary_from: Iterable[str] | None = None,
    ) -> "RunDirectory":
        """Creates a run, or opens it for resuming where its settings are the same.

        A folder in which nothing has been trained yet, since an earlier start failed, takes other
        settings too. The vocabulary that such a start made is then removed, to be made anew.

        Args:
            path: the folder; it and its parents are made where missing.
            settings: every option, resolved; JSON values, paths or NumPy scalars.
            changeable: keys that may differ on resuming, such as the number of updates, or paths
                of a text whose SHA-256 is another key; `settings.json` keeps the first values,
                `versions.json` records the new ones.
            vocabulary_from: keys that the vocabulary is made from. It is kept where only others
                differ. By default all.

        Returns:
            The run, locked against other trainers until `close()` or the end of the process.

        Raises:
            ValueError: the folder holds something else or a trained run with other settings (then
                nothing is touched), or another process is training in it.
        """
        path, settings = Path(path), json.loads(files.to_json(settings))
        changeable = frozenset(changeable)
        run_settings.recorded(path, settings, changeable)  # refuse before touching anything
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, settings)
        run._lock = _take_lock(path / "lock")
        # Again under the lock: another process may have started a run here in between.
        recorded = run_settings.recorded(path, settings, changeable)
        changed = {} if recorded is None else run_settings.differences(recorded, settings)
        others = run_settings.fatal(recorded or {}, settings, changeable) if changed else {}
        if others:
            named = run_settings.listed(others)
            progress.say(f"{path}: nothing was trained by an earlier start, so it is new ({named})")
            run_settings.discard_prepared(path, others, vocabulary_from)
        if others or recorded is None:
            files.write_json(path / "settings.json", settings)
        versions = path / "versions.json"
        starts = files.read_json(versions) if versions.exists() else []
        files.write_json(versions, [*starts, _environment() | {"changed_settings": changed}])
        return run

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunDirectory":
        """Opens a run for reading: takes no lock, writes nothing.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: the folder is not a run, or its settings.json is broken.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"No run at {path}: there is no such folder. Check the path.")
        if not (path / "settings.json").exists():
            raise ValueError(f"{path} is not a run: it has no settings.json. Check the path.")
        return cls(path, files.read_json(path / "settings.json"))

    def close(self):
        """Gives the lock back; the operating system does so too when the process dies."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    fit = fit

    # --- checkpoints ---

    def save_checkpoint(self, model: keras.Model, update: int, state: dict) -> Checkpoint:
        """Saves all that resuming needs (and `model.json`, the first time).

        Args:
            model: a built, compiled model. Within `fit` any callback may call this, at the end of
                an epoch or of a batch.
            update: the number of optimizer updates done.
            state: the caller's own JSON state: position in the data, early stopping... Its key
                `"best_update"` names the checkpoint that `prune` keeps and `load_model("best")`
                loads.
        """
        if hasattr(model, "jax_state_sync"):  # on JAX `fit` keeps the newest values to itself
            model.jax_state_sync()
        if not (self.path / "model.json").exists() or not self._folders():
            config = keras.saving.serialize_keras_object(model)
            config.pop("compile_config", None)  # translating needs no loss and no optimizer
            files.write_json(self.path / "model.json", config)
        return checkpoints.save_checkpoint(self.path / "checkpoints", model, update, state)

    def checkpoints(self) -> list[Checkpoint]:
        """The complete checkpoints by update; damaged ones are named on stderr and left out."""
        folders, found = self._folders(), list[Checkpoint]()
        with progress.work("checking", len(folders), "checkpoints") as done:
            for folder in folders:
                found += checkpoints.complete([folder])
                done()
        return found

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest complete checkpoint; None where there is none yet."""
        return next(checkpoints.complete(reversed(self._folders())), None)

    def prune(self, keep_last: int, keep: Iterable[int] = ()):
        """Removes all checkpoints but the last `keep_last`, the best and the updates in `keep`."""
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, got {keep_last}.")
        complete = list(checkpoints.complete(self._folders(), contents=False))
        kept = {*keep, *(last.state.get("best_update") for last in complete[-1:])}
        for checkpoint in complete[:-keep_last]:
            if checkpoint.update not in kept:
                checkpoints.discard(checkpoint.path)

    def restore(self, model: keras.Model, checkpoint: Checkpoint) -> dict:
        """Puts weights, seed states and optimizer back into a built, compiled model.

        Returns:
            The state that was given to `save_checkpoint`.

        Raises:
            ValueError: the model, the optimizer or the backend is not the one that was saved; the
                model is unchanged.
        """
        return checkpoints.restore_checkpoint(model, checkpoint)

    # --- weights for translation ---

    def save_average(
        self,
        checkpoints: Sequence[Checkpoint],
        model: keras.Model | None = None,
        validation=None,
    ):
        """Writes the mean of the checkpoints' weights to `averaged.npz`, replacing an older one.

        While a model still learns fast, its last weights are better than the average. With `model`
        and `validation` both are evaluated and their nats per token kept in the file, so that
        `default_weights` can choose the better ones. Without them the average is the default.

        Args:
            checkpoints: The checkpoints to average, as `checkpoints()` returns them.
            model: A compiled model of this run with a `NatsPerToken` metric. Its weights are the
                same afterwards.
            validation: What `model.evaluate` takes, such as `plan.evaluation(encoded)`.
        """
        arrays = average(checkpoints)
        names = [name for name, _ in read_arrays(checkpoints[-1].path / "weights.npz")]
        notes: dict[str, list] = {"updates": [checkpoint.update for checkpoint in checkpoints]}
        if model is not None:
            last = read_arrays((self.latest_checkpoint() or checkpoints[-1]).path / "weights.npz")
            nats = averages.nats_per_token(
                model, validation, [arrays, [array for _, array in last]]
            )
            notes["nats_per_token"] = nats
        with files.replacing(self.path / "averaged.npz") as file:
            write_arrays(file, zip(names, arrays, strict=True), **notes)
        if model is not None:
            progress.say(averages.comparison(notes["updates"], nats))

    def load_model(self, weights: str | int | None = None, dtype: str | None = None) -> keras.Model:
        """The model, not compiled, for translating and evaluating.

        Args:
            weights: `"average"` (averaged.npz), `"best"` (the `best_update` of the latest
                checkpoint's state), `"last"`, or an update. By default `default_weights()`.
            dtype: name of a dtype policy. By default that of training; but what was trained in
                mixed precision computes in float32 on a processor, where XLA is quicker with it.
        """
        source = self.weights_file(weights)
        if not (self.path / "model.json").exists():
            raise ValueError(f"{self.path} has no model.json: copy the run as a whole.")
        config = files.read_json(self.path / "model.json")
        mixed = str(config["config"].get("dtype")).startswith("mixed_")
        if dtype is None and mixed and runs_on_processor():
            dtype = "float32"
        if dtype is not None:
            if "dtype" not in config["config"]:
                raise ValueError(
                    f"The model of {self.path} has no dtype of its own to replace by {dtype!r}: "
                    "leave dtype out."
                )
            config["config"]["dtype"] = dtype
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        load_weights(model, source)
        return model

    def default_weights(self) -> str:
        """`"average"`, or `"last"` where there is no average or it was worse in validation."""
        averaged = self.path / "averaged.npz"
        if not averaged.exists():
            return "last"
        nats = checkpoints.read_note(averaged, "nats_per_token")
        return "last" if averages.worse(nats) and self._folders() else "average"

    def weights_file(self, weights: str | int | None = None) -> Path:
        """The file of the weights that `load_model` would load; an update may be a string too."""
        if isinstance(weights, str) and weights.isdigit():
            weights = int(weights)
        averaged = self.path / "averaged.npz"
        if weights is None:
            weights = self.default_weights()
            if weights == "average":
                self._warn_if_outdated(averaged)
        if weights == "average" and not averaged.exists():
            raise ValueError(f"{self.path} has no averaged.npz: make one with `average`.")
        return averaged if weights == "average" else self._find(weights).path / "weights.npz"

    def _find(self, weights: str | int) -> Checkpoint:
        latest = self.latest_checkpoint()
        if latest is None:
            raise ValueError(f"{self.path} has no complete checkpoint: train it first.")
        if weights == "last":
            return latest
        update = latest.state.get("best_update") if weights == "best" else weights
        folders = {_update(folder): folder for folder in self._folders()}
        found = [folders[update]] if update in folders else []
        for checkpoint in checkpoints.complete(found):
            return checkpoint
        named = f" (update {update})" if weights == "best" else ""
        raise ValueError(
            f"{self.path} has no weights {weights!r}{named}: expected 'average', 'best', 'last' or "
            f"one of the updates {list(folders)}."
        )

    def _warn_if_outdated(self, averaged: Path):
        newest = max(map(_update, self._folders()), default=0)
        updates = checkpoints.read_note(averaged, "updates")
        if max(updates) < newest:
            progress.say(
                f"warning: {averaged} averages updates {updates}, the run is at {newest}: "
                "`average` again, or ask for the last weights."
            )

    def _folders(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("update-*"), key=_update)

    # --- log ---

    def append_log(self, record: dict):
        """Appends one line to log.jsonl; its `"update"` is what `truncate_log` goes by."""
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(files.to_json(record) + "\n")

    def read_log(self) -> list[dict]:
        """The records of log.jsonl, oldest first; a half-written last line is left out.

        A validation was once called an epoch: old records come with the names of today.
        """
        path = self.path / "log.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(run_settings.renamed(json.loads(line)))
            except ValueError as error:
                if number < len(lines):
                    raise ValueError(f"{path}, line {number}, is not JSON: {error}.") from error
        return records

    def truncate_log(self, update: int):
        """Drops the records past `update`: call it on resuming, so that each is there once."""
        records = [record for record in self.read_log() if record.get("update", 0) <= update]
        with files.replacing(self.path / "log.jsonl") as file:
            file.write("".join(files.to_json(record) + "\n" for record in records).encode())


def _update(folder: Path) -> int:
    return int(folder.name.removeprefix("update-"))


def _take_lock(path: Path):
    import fcntl  # not on Windows, where runs can still be read

    file = open(path, "a+")  # not "w": that would erase the pid of the holder
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise ValueError(
            f"{path.parent} is being trained by process {holder}: wait for it, stop it, or give "
            "another --run-dir."
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()} on {platform.node()}\n")
    file.flush()
    return file


def _environment() -> dict:
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        **versions,
        "backend": keras.backend.backend(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
    }
