"""Several processes, on one machine or many, that train as one, by JAX's distributed runtime.

All of them run the same program, because a device computes only if all processes ask it to. What
one process does alone, such as writing files, is what `is_first` allows. Without `join_processes`
nothing here starts anything.
"""

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_transformer import progress
from keras_transformer.ops import backend

HEARTBEAT = 30  # Seconds of silence after which a process counts as lost.
_DAY = 24 * 3600 * 1000  # Milliseconds that processes wait for the first one.
LOST = (
    "another process of this training ended, or cannot be reached. Its own output says why. "
    "The same command in every process continues at the last checkpoint, if there is one."
)
# What the libraries that connect processes write into their errors.
_LOST_SIGNS = ("Gloo", "NCCL", "UNAVAILABLE", "coordination service", "heartbeat")
_messages = itertools.count()


@contextlib.contextmanager
def join_processes(
    processes: int | str | None = None,
    coordinator: str | None = None,
    process: int | None = None,
) -> Iterator[None]:
    """Within it this process trains together with others. Only on JAX.

    Call it before anything is computed. `keras.distribution.initialize` does the same, but it
    neither notices a lost process soon, nor ends the other processes after an error in one.

    Args:
        processes: How many there are. `"auto"` asks SLURM, Open MPI, Cloud TPU or Kubernetes, as
            `jax.distributed.initialize` does. None or 1 is this process alone: nothing happens.
        coordinator: `"HOST:PORT"` of process 0, where it listens and the others find it.
        process: The number of this process, from 0. By default that of an indexed job of
            Kubernetes, JOB_COMPLETION_INDEX.

    Raises:
        ValueError: On another backend, or if an argument is missing.
        ConnectionError: If another process cannot be reached, or was lost.

    Example:

    ```python
    with kt.runs.join_processes(processes=1):  # 8, "auto", ... on JAX
        devices, scope = kt.runs.share_batches()
    ```
    """
    asked = processes, coordinator, process
    _check(*asked)
    if processes in (None, 1):
        yield
        return
    import jax

    if process is None and processes != "auto":
        process = int(os.environ["JOB_COMPLETION_INDEX"])
    count = None if processes == "auto" else int(processes)
    _on_abort(_say_lost)
    with _lost_processes_named():
        jax.distributed.initialize(coordinator, count, process, heartbeat_timeout_seconds=HEARTBEAT)
    try:
        with _lost_processes_named(), progress.silenced(not is_first()):
            yield
            wait_for_all()
            jax.distributed.shutdown()
    except BaseException as error:
        # At its end Python would wait until all processes end, and they wait for this one.
        atexit.register(_exit_at_once, _status_of(error))
        raise
    _on_abort(None)


def _check(processes, coordinator, process):
    if processes is None and (coordinator is not None or process is not None):
        raise ValueError(
            f"coordinator={coordinator!r} and process={process!r} have an effect only with "
            "processes (--processes): give the number of processes, or 'auto'."
        )
    if processes in (None, 1):
        return
    if backend.name() != "jax":
        raise ValueError(
            f"processes={processes} on the {backend.name()} backend: Keras 3 trains in several "
            "processes on JAX only, and has no multi-worker strategy for TensorFlow or PyTorch. "
            "Set KERAS_BACKEND=jax."
        )
    if processes == "auto":
        return
    if coordinator is None or ":" not in coordinator:
        raise ValueError(
            f"processes={processes} needs the address of process 0 as coordinator=HOST:PORT "
            f"(--coordinator), got {coordinator!r}. Give it, or processes='auto'."
        )
    if process is None and "JOB_COMPLETION_INDEX" not in os.environ:
        raise ValueError(
            f"processes={processes} needs the number of this process, from 0 to "
            f"{int(processes) - 1} (--process): JOB_COMPLETION_INDEX, which Kubernetes sets in an "
            "indexed job, is not set. Give it, or processes='auto'."
        )
    if process is not None and not 0 <= process < int(processes):
        raise ValueError(
            f"process={process} of processes={processes}: expected a number from 0 to "
            f"{int(processes) - 1}. Each process has a number of its own."
        )


# --- what the others do ---


def several() -> bool:
    """Whether this process trains together with others."""
    if backend.name() != "jax":
        return False
    import jax

    # The question for the number of processes alone would start JAX's devices.
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes files and shows the progress."""
    if not several():
        return True
    import jax

    return jax.process_index() == 0


def from_first(value: Any = None) -> Any:
    """Returns the `value`, in JSON, of the first process. The others wait for it."""
    if not several():
        return value
    client, key = _client(), f"keras_transformer/{next(_messages)}"
    if is_first():
        client.key_value_set(key, json.dumps(value))
        return value
    return json.loads(client.blocking_key_value_get(key, _DAY))


def wait_for_all() -> None:
    """Waits until every process is here."""
    if several():
        _client().wait_at_barrier(f"keras_transformer/{next(_messages)}", _DAY)


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """The others enter the block once the first process has left it, and find what it wrote."""
    if not is_first():
        from_first()
    yield
    if is_first():
        from_first()


def asked_to_stop(update: int) -> bool:
    """Whether all processes end before this update, because one of them got SIGTERM.

    All processes ask before every update, and all get the same answer.
    """
    if not several():
        return False
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(update)


# --- arrays ---


def own_rows(batch: Any) -> Any:
    """Returns the rows of a batch that the devices of this process compute, in their order."""
    distribution = keras.distribution.distribution()
    if distribution is None or not several():
        return batch

    def rows_of(array):
        array = np.asarray(array)
        sharding = distribution.get_data_layout(array.shape).backend_layout
        places = sharding.addressable_devices_indices_map(array.shape).values()
        parts = sorted({place[0].indices(len(array))[:2] for place in places})
        return np.concatenate([array[start:stop] for start, stop in parts])

    return tree.map_structure(rows_of, batch)


def whole(variable: Any) -> np.ndarray:
    """Returns all of a variable or tensor. Parts may be on the devices of other processes.

    Every process calls it, for the same variables in the same order.
    """
    if several():
        value = keras.ops.convert_to_tensor(variable)
        if not (value.is_fully_addressable or value.is_fully_replicated):
            from jax.experimental import multihost_utils

            return multihost_utils.process_allgather(value, tiled=True)
    return keras.ops.convert_to_numpy(variable)


# --- the end ---


@contextlib.contextmanager
def _lost_processes_named():
    """Turns the error of an interrupted communication into one that says what to do."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if any(sign in str(error) for sign in _LOST_SIGNS):
            raise ConnectionError(f"{LOST} ({str(error).splitlines()[0][:200]})") from error
        raise


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _say_lost(_):
    os.write(2, f"\nerror: {LOST}\n".encode())
    os._exit(1)


def _on_abort(handler):
    """Sets what the operating system calls when this process aborts; None for the default.

    JAX's runtime aborts a process when another one is lost, behind a trace of C++. Handlers of
    Python's `signal` would come too late: they wait for the main thread, which waits for a device.
    """
    ctypes.CDLL(None).signal(int(signal.SIGABRT), handler)


def _exit_at_once(status):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _status_of(error):
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = error.code if isinstance(error, SystemExit) else 1
    return code if isinstance(code, int) else 1


def _client():
    from jax._src import distributed  # JAX has no public name for waiting without a device

    return distributed.global_state.client
