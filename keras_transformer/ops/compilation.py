"""Functions of a model, compiled without freezing its weights; what XLA compiles."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transformer.ops import Tensor


def compile_with_weights(function: Callable, *models: keras.Model) -> Any:
    """Returns `function`, compiled once per shape, which reads the weights at each call.

    On JAX the weights are arguments of the compiled function. Otherwise it would continue to use
    the weights of its first call. If a model's variables are replaced, as `quantize` does, the
    function is compiled again.

    Args:
        function: A function of arrays that calls `models`, without side effects.
        *models: The Keras models whose variables it reads.

    Returns:
        A function of the same arguments. Its attribute `shapes` holds the shapes that were compiled
        so far; on PyTorch it is empty, because nothing is compiled.

    Raises:
        ValueError: When it is called on another backend than TensorFlow, JAX and PyTorch.
    """
    held: list | None = None
    compiled: Any = None
    compiling = threading.Lock()

    def call(*arrays: Any) -> Any:
        nonlocal held, compiled
        variables = [variable for model in models for variable in model.variables]
        with compiling:
            if held is None or list(map(id, held)) != list(map(id, variables)):
                held, compiled = variables, _compiled(function, variables)
                call.shapes = compiled.shapes  # type: ignore[attr-defined]
            current = compiled
        return current(*arrays)

    call.shapes = ()  # type: ignore[attr-defined]
    return call


def _compiled(function, variables):
    """`function`, compiled once per shape as long as the model has these variables."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Nothing here needs AutoGraph, which reads the source files anew at each tracing.
        traced = tf.function(function, jit_compile=True, autograph=False)
        compiled, tracing = {}, threading.Lock()

        def call(*arrays):
            # One compiled function per shape, kept here: calling `traced` itself would warn.
            shapes = _shapes(arrays)
            tensors = [tf.constant(array) for array in arrays]
            with tracing:
                if shapes not in compiled:
                    compiled[shapes] = traced.get_concrete_function(*tensors)
            return compiled[shapes](*tensors)

        call.shapes = compiled
        return call
    if backend == "jax":
        import jax

        @jax.jit
        def stateless(values, *arrays):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return function(*arrays)

        def call(*arrays):
            call.shapes.add(_shapes(arrays))
            return stateless([v.value for v in variables], *arrays)

        call.shapes = set()
        return call
    if backend == "torch":
        import torch

        def eager(*arrays):
            with torch.no_grad():
                return function(*(ops.convert_to_tensor(array) for array in arrays))

        eager.shapes = ()
        return eager
    raise ValueError(
        f"Nothing can be compiled on the {backend} backend of Keras. Use tensorflow, jax or torch."
    )


def keep_compiled(folder: Callable[[], Path]) -> Path:
    """Keeps what JAX compiles from now on, and returns the folder.

    Args:
        folder: Returns the folder, which is made; not called if JAX's own setting names one.

    Raises:
        ValueError: On another backend.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Compiled code is kept on JAX only, and the backend is {keras.backend.backend()}: set "
            "KERAS_BACKEND=jax, or take engine='auto', which compiles little."
        )
    import jax

    path = jax.config.jax_compilation_cache_dir
    if path is None:
        path = folder()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(path))
        # JAX keeps only what took a second otherwise.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return Path(path)


def compiles_each_shape() -> bool:
    """Whether `compile(jit_compile="auto")` means XLA here, which compiles every shape anew."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return any(device.device_type != "CPU" for device in tf.config.list_physical_devices())
    return backend == "jax"


def runs_on_processor() -> bool:
    """Whether XLA compiles for a CPU here, because no accelerator is visible."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return keras.backend.backend() == "tensorflow" and not compiles_each_shape()


def compiled_by_xla() -> bool:
    """Whether XLA will compile the function that TensorFlow traces at this moment."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # no public name for it

    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def values_of(tensor: Tensor) -> np.ndarray | None:
    """The numbers of a tensor as a NumPy array, or None while a backend traces a function of it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.get_static_value(tensor)  # knows the constants of a graph too
    if backend == "jax":
        import jax

        return None if isinstance(tensor, jax.core.Tracer) else ops.convert_to_numpy(tensor)
    return None if tensor.device.type == "meta" else ops.convert_to_numpy(tensor)


def _shapes(arrays):
    return tuple(array.shape for array in arrays)
