"""Whether the average of a run's checkpoints is better than its last weights, in validation.

The paper averages the last checkpoints (section 6.1). That helps where the weights move around an
optimum; the average of a model that still learns fast lies behind its last weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_transformer import files, progress
from keras_transformer.ops import processes
from keras_transformer.runs import identity
from keras_transformer.runs.checkpoints import Checkpoint, average, read_arrays, write_arrays


def save(
    run: Path,
    saved: Sequence[Checkpoint],
    latest: Checkpoint | None,
    model: keras.Model | None,
    validation: Any,
) -> None:
    """Does what `RunDirectory.save_average` says; `latest` has the last weights."""
    arrays = average(saved)
    names = [name for name, _ in read_arrays(saved[-1].path / "weights.npz")]
    notes: dict[str, Any] = {"updates": [checkpoint.update for checkpoint in saved]}
    if model is not None:
        last = [array for _, array in read_arrays((latest or saved[-1]).path / "weights.npz")]
        notes["nats_per_token"] = nats_per_token(model, validation, [arrays, last])
    if processes.is_first():
        with files.replacing(run / "averaged.npz") as file:
            own = list(identity.of(run).items())
            write_arrays(file, zip(names, arrays, strict=True), **notes, run=own)
    processes.wait_for_all()
    if model is not None:
        progress.say(comparison(**notes))


def nats_per_token(model: keras.Model, validation: Any, choices: Sequence[list]) -> list[float]:
    """The validation loss in nats per target token of each choice of weights, lists of arrays.

    The model keeps its own weights. Raises a ValueError if it has no `NatsPerToken` metric.
    """
    own, found = [processes.whole(variable) for variable in model.weights], []
    try:
        for weights in choices:
            model.set_weights(weights)
            found.append(model.evaluate(validation, verbose=0, return_dict=True))
    finally:
        model.set_weights(own)
    if "nats_per_token" not in found[0]:
        raise ValueError(
            "The average is compared with the last weights by their nats per token, and the model "
            f"measures only {', '.join(found[0])}. Compile it with "
            "weighted_metrics=[keras_transformer.metrics.NatsPerToken()]."
        )
    return [scores["nats_per_token"] for scores in found]


def worse(nats: list[float]) -> bool:
    """Whether the average is known to be worse: `[average, last]`, or empty if not compared."""
    return bool(nats) and not nats[0] <= nats[1]  # also where the average is not a number


def comparison(updates: list[int], nats_per_token: list[float]) -> str:
    """What the comparison says, and which weights are used from now on."""
    averaged, last = nats_per_token
    of = f"the average of the checkpoints at updates {', '.join(map(str, updates))}"
    figures = f"{averaged:.4f} against {last:.4f} nats per token in validation"
    if worse(nats_per_token):
        return f"{of} is worse than the last weights, {figures}: the last weights are the default"
    return f"{of} is at least as good as the last weights, {figures}: it is the default"
