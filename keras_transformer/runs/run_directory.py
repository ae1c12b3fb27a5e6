"""The run directory: everything needed to translate, resume and reproduce a training run.

```
RUN/
  settings.json    every option of the command, resolved; written once
  versions.json    a list with one entry per start: versions, backend, platform, changed settings
  model.json       the architecture as Keras JSON (no code, no pickle)
  tokenizer.model  the vocabulary, or source.model and target.model
  log.jsonl        one JSON object per line
  lock             held by the process that trains here
  averaged.npz     weights only, the mean of several checkpoints
  checkpoints/update-00001000/{weights.npz, state.npz, state.json}
  interrupted/     such a checkpoint between two validations, after a signal
```

A checkpoint makes a resumed run equal, to the bit, to one that never stopped. `weights.npz` has
`model.weights`. `state.npz` has the variables of the optimizer and of the seed generators, which
Keras' `save_weights` leaves out, so that dropout would differ. `state.json` has the caller's state,
and the SHA-256 of the other two, of itself, and of the run's own files: a checkpoint of another
run is refused. On the torch backend, Keras' Dropout without a seed draws
from torch's global generator, which `fit` advances too: give it a seed there.
"""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import keras

from keras_transformer import files, progress
from keras_transformer.ops import processes
from keras_transformer.ops.compilation import runs_on_processor
from keras_transformer.runs import architecture, averages, checkpoints, identity, recorded
from keras_transformer.runs.checkpoints import Checkpoint, average, load_weights
from keras_transformer.runs.fit import fit
from keras_transformer.runs.log import append_log, read_log, truncate_log
from keras_transformer.runs.start import environment, follow, take_lock

__all__ = ["Checkpoint", "RunDirectory", "average", "load_weights"]


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
        self._lock: IO[str] | None = None
        # Of several processes that train together, the first one writes and the others read.
        self.writes = processes.is_first()

    @classmethod
    def start(
        cls,
        path: str | os.PathLike,
        settings: dict,
        changeable: Iterable[str] = (),
        vocabulary_from: Iterable[str] | None = None,
    ) -> "RunDirectory":
        """Creates a run, or opens it for resuming if its settings are the same.

        If an earlier start failed before anything was trained, other settings are taken too. The
        vocabulary of that start is then removed, so that it is made anew.

        Args:
            path: The folder. It and its parents are made if they are missing.
            settings: Every option, resolved: JSON values, paths or NumPy scalars.
            changeable: Keys that may differ on resuming, such as the number of updates.
                `settings.json` keeps the first values, `versions.json` records the new ones.
            vocabulary_from: Keys that the vocabulary is made from, by default all. It is kept if
                only others differ.

        Returns:
            The run, locked against other trainers until `close()` or the end of the process. In
            the other processes of a training (`join_processes`) it is only read from.

        Raises:
            ValueError: If the folder holds something else, or a trained run with other settings
                (then nothing is touched), if another training runs in it, or if the processes of
                this one have other settings or see other files.
        """
        path, settings = Path(path), json.loads(files.to_json(settings))
        changeable = frozenset(changeable)
        if not processes.is_first():
            follow(path, settings, changeable)
            return cls(path, settings)
        recorded.recorded(path, settings, changeable)  # refuse before touching anything
        if path.exists():
            files.refuse_links(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, settings)
        run._lock = take_lock(path / "lock")
        # Again under the lock: another process may have started a run here in between.
        earlier = recorded.recorded(path, settings, changeable)
        changed = {} if earlier is None else recorded.differences(earlier, settings)
        others = recorded.fatal(earlier or {}, settings, changeable) if changed else {}
        if others:
            named = recorded.listed(others)
            progress.say(f"{path}: nothing was trained by an earlier start, so it is new ({named})")
            recorded.discard_prepared(path, others, vocabulary_from)
        if others or earlier is None:
            files.write_json(path / "settings.json", settings)
        checkpoints.remove_left_overs(path / "checkpoints")
        files.remove_left_overs(path)
        versions = path / "versions.json"
        starts = files.read_json(versions, list) if versions.exists() else []
        files.write_json(versions, [*starts, environment() | {"changed_settings": changed}])
        processes.from_first(settings)  # see `follow`
        return run

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunDirectory":
        """Opens a run for reading: takes no lock, writes nothing.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If the folder is not a run, its settings.json is broken, or it holds a link.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"No run at {path}: there is no such folder. Check the path.")
        if not (path / "settings.json").exists():
            raise ValueError(f"{path} is not a run: it has no settings.json. Check the path.")
        files.refuse_links(path)
        return cls(path, files.read_json(path / "settings.json", dict))

    def close(self) -> None:
        """Gives the lock back; the operating system does so too when the process dies."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    fit = fit
    append_log, read_log, truncate_log = append_log, read_log, truncate_log

    # --- checkpoints ---

    def save_checkpoint(self, model: keras.Model, update: int, state: dict) -> Checkpoint:
        """Saves all that resuming needs (and `model.json`, the first time).

        Args:
            model: A built, compiled model. Within `fit`, a callback may call this at the end of an
                epoch or of a batch. All processes of a training call it, and the first one saves.
            update: The number of optimizer updates done.
            state: The caller's own JSON state: position in the data, early stopping, and so on.
                Its key `"best_update"` names the checkpoint that `prune` keeps and
                `load_model("best")` loads.
        """
        saved = self._save("checkpoints", model, update, state)
        if self.writes:
            shutil.rmtree(self.path / "interrupted", ignore_errors=True)
        return saved

    def _save(self, folder, model, update, state):
        if hasattr(model, "jax_state_sync"):  # on JAX `fit` keeps the newest values to itself
            model.jax_state_sync()
        saved = self._folders() or _folders(self.path / "interrupted")
        if self.writes and (not (self.path / "model.json").exists() or not saved):
            architecture.save(model, self.path)
        return checkpoints.save_checkpoint(self.path / folder, model, update, state)

    def checkpoints(self) -> list[Checkpoint]:
        """The complete checkpoints by update. Damaged ones are named on stderr and left out."""
        folders, found = self._folders(), list[Checkpoint]()
        with progress.work("checking", len(folders), "checkpoints") as done:
            for folder in folders:
                found += checkpoints.complete([folder])
                done()
        return found

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest complete checkpoint, or None if there is none yet."""
        return next(checkpoints.complete(reversed(self._folders())), None)

    def prune(self, keep_last: int, keep: Iterable[int] = ()) -> None:
        """Removes all checkpoints except the last `keep_last`, the best and the updates `keep`."""
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, got {keep_last}. Keep one or more.")
        if not self.writes:
            return
        complete = list(checkpoints.complete(self._folders(), contents=False))
        kept = {*keep, *(last.state.get("best_update") for last in complete[-1:])}
        for checkpoint in complete[:-keep_last]:
            if checkpoint.update not in kept:
                checkpoints.discard(checkpoint.path)

    def restore(self, model: keras.Model, checkpoint: Checkpoint) -> dict:
        """Puts weights, seed states and optimizer back into a built, compiled model.

        Returns the state that was given to `save_checkpoint`. Raises a ValueError, and leaves the
        model as it is, if model, optimizer or backend are not those that were saved.
        """
        return checkpoints.restore_checkpoint(model, checkpoint)

    def save_between(self, model: keras.Model, update: int, state: dict) -> Checkpoint:
        """Like `save_checkpoint`, between two validations.

        It is kept apart in `RUN/interrupted`, and only resumed from: it is no weights to translate
        with, to average or to count. The next `save_checkpoint` removes it.
        """
        return self._save("interrupted", model, update, state)

    def newest(self) -> Checkpoint | None:
        """Where a training continues: the latest checkpoint, or one of `save_between` after it."""
        between = checkpoints.complete(_folders(self.path / "interrupted"))
        found = [each for each in (self.latest_checkpoint(), *between) if each is not None]
        return max(found, key=lambda each: each.update, default=None)

    # --- weights for translation ---

    def save_average(
        self,
        saved: Sequence[Checkpoint],
        model: keras.Model | None = None,
        validation: Any = None,
    ) -> None:
        """Writes the mean of the checkpoints' weights to `averaged.npz`, replacing an older one.

        While a model still learns fast, its last weights are better than the average. With `model`
        and `validation`, both are evaluated and their nats per token are kept in the file, so that
        `default_weights` can choose. Without them the average is the default.

        Args:
            saved: The checkpoints to average, as `checkpoints()` returns them.
            model: A compiled model of this run with a `NatsPerToken` metric. Its weights are the
                same afterwards.
            validation: What `model.evaluate` takes, such as `plan.evaluation(encoded)`.
        """
        averages.save(self.path, saved, self.latest_checkpoint(), model, validation)

    def load_model(self, weights: str | int | None = None, dtype: str | None = None) -> keras.Model:
        """The model, not compiled, for translating and evaluating.

        Args:
            weights: `"average"` (averaged.npz), `"best"` (the `best_update` of the latest
                checkpoint's state), `"last"`, or an update. `default_weights()` by default.
            dtype: The name of a dtype policy. By default that of training, except that a model
                trained in mixed precision computes in float32 on a CPU, where XLA is then faster.
        """
        source = self.weights_file(weights)
        config = architecture.load(self.path)
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
        return architecture.build(config, source)

    def default_weights(self) -> str:
        """`"average"`, or `"last"` if there is no average or it was worse in validation."""
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
        if weights == "average":
            recorded_run = checkpoints.read_note(averaged, "run")
            identity.check(self.path, dict(recorded_run), averaged)
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
        return _folders(self.path / "checkpoints")


def _folders(path: Path) -> list[Path]:
    folders = path.glob("update-*")
    named = (folder for folder in folders if folder.name.removeprefix("update-").isdecimal())
    return sorted(named, key=_update)


def _update(folder: Path) -> int:
    return int(folder.name.removeprefix("update-"))
