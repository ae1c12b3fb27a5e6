"""Functions of a model, compiled without freezing its weights; what XLA compiles."""

import threading

import keras
from keras import ops


def compile_with_weights(function, *models):
    """`function` of arrays, compiled once per shape, that reads the weights at each call.

    On JAX the weights are arguments of the compiled function: one that closed over the model would
    go on using those of its first call. A model whose variables are replaced, as `quantize` does,
    is compiled anew.

    Args:
        function: a function of arrays that calls `models`, without side effects.
        models: the Keras models whose variables it reads.

    Returns:
        A function of the same arguments; its `shapes` are those that were compiled so far (none on
        torch, where nothing is).
    """
    held, compiled, compiling = None, None, threading.Lock()

    def call(*arrays):
        nonlocal held, compiled
        variables = [variable for model in models for variable in model.variables]
        with compiling:
            if held is None or list(map(id, held)) != list(map(id, variables)):
                held, compiled = variables, _compiled(function, variables)
                call.shapes = compiled.shapes
            current = compiled
        return current(*arrays)

    call.shapes = ()
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
            # One compiled function a shape, kept here: calling `traced` itself would warn.
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
    raise ValueError(f"No compiled search on the {backend} backend: use tensorflow, jax or torch.")


def compiles_each_shape():
    """Whether `compile(jit_compile="auto")` means XLA here, which compiles every shape anew."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return any(device.device_type != "CPU" for device in tf.config.list_physical_devices())
    return backend == "jax"


def runs_on_processor():
    """Whether XLA compiles for a processor here, since no accelerator is visible."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return keras.backend.backend() == "tensorflow" and not compiles_each_shape()


def compiled_by_xla():
    """Whether what TensorFlow traces at this moment will be compiled by XLA."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # no public name for it

    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def values_of(tensor):
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
