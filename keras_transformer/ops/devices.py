"""Several devices that share each batch, every one with all weights."""

import contextlib
import functools
from typing import Any

import keras

from keras_transformer.ops import backend, processes


def share_batches(
    wanted: int | None = None, accumulate: int = 1
) -> tuple[int, contextlib.AbstractContextManager]:
    """Lets devices share each batch from now on; make and compile the model in the context.

    | backend | how |
    |---|---|
    | JAX | `keras.distribution.DataParallel`, unless a distribution is set already |
    | TensorFlow | `tf.distribute.MirroredStrategy`, unless the caller is in a strategy's scope |
    | PyTorch | one device: Keras has no way there |

    In several processes (`join_processes`) these are the devices of all of them.

    Args:
        wanted: How many; by default all that the backend sees.
        accumulate: Batches per update. Keras accumulates none under a strategy of TensorFlow, so
            with more than one the default there is one device.

    Returns:
        The number of devices, which must divide the rows of a batch (`BatchPlan(devices=...)`),
        and a context.

    Raises:
        ValueError: If there are fewer, or on TensorFlow for several with `accumulate`.

    Example:

    ```python
    count, scope = kt.runs.share_batches()
    plan = kt.data.BatchPlan(encoded, 4096, devices=count)
    with scope:
        model = kt.models.Transformer.from_preset("tiny", 8_000)
        model.compile(kt.optimizers.PaperAdam(128), kt.losses.SmoothedCrossentropy(0.1))
    ```
    """
    devices = _visible()
    if wanted is not None and wanted > len(devices):
        raise ValueError(
            f"{wanted} devices were asked for, {backend.name()} sees {len(devices)}: "
            f"{', '.join(map(str, devices))}. Ask for fewer."
        )
    only_one = accumulate > 1 and backend.name() == "tensorflow"
    if only_one and wanted is not None and wanted > 1:
        raise ValueError(
            f"On tensorflow {accumulate} batches per update are accumulated on one device, got "
            f"{wanted} devices. Leave one of them out, or set KERAS_BACKEND=jax."
        )
    count = (1 if only_one else len(devices)) if wanted is None else wanted
    if processes.several() and count < len(devices):
        raise ValueError(
            f"{count} devices were asked for, and the processes of this training have "
            f"{len(devices)}: every process needs one of its own. Take all, or start fewer."
        )
    if count == 1:
        return 1, contextlib.nullcontext()
    if backend.name() == "jax":
        if keras.distribution.distribution() is None:
            # Each process makes its own rows (`processes.own_rows`), so Keras has none to choose.
            parallel = keras.distribution.DataParallel(
                devices=devices[:count], auto_shard_dataset=False
            )
            keras.distribution.set_distribution(parallel)
        return count, contextlib.nullcontext()
    return count, _strategy(tuple(devices[:count])).scope()


@functools.cache
def _strategy(devices: tuple[str, ...]) -> Any:
    """One strategy for the process: the collective operations of a second one fail."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def _visible() -> list[Any]:
    if backend.name() == "jax":
        import jax

        return jax.devices()
    if backend.name() == "tensorflow":
        import tensorflow as tf

        # On a machine without accelerators: its CPU, or several virtual ones.
        kinds = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
        return [device.name for device in next(filter(None, kinds))]
    return ["its device"]
