"""Computes a scalar and its gradients in the same way on every backend."""

import keras
from keras import ops


def value_and_gradients(function, inputs, variables=(), jit=False):
    """Returns the scalar `function(*inputs)` and its gradients.

    Args:
        function: A function of tensors. It may read Keras variables.
        inputs: Arrays.
        variables: Keras variables to differentiate by, besides the inputs.
        jit: Whether to compile the function. JAX always does, because eagerly it would compile
            every operation of the gradients by itself; but it compiles no attention in float16 on
            a CPU.

    Returns:
        The value, and the list of gradients by the inputs and the variables, as NumPy float64.
    """
    inputs, variables = [ops.convert_to_tensor(x) for x in inputs], list(variables)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def both(*inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                value = function(*inputs)
            return value, tape.gradient(value, [*inputs, *(v.value for v in variables)])

        value, found = (tf.function(both, jit_compile=True) if jit else both)(*inputs)
    elif backend == "jax":
        import jax

        def stateless(inputs, values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(*inputs)

        both = jax.value_and_grad(stateless, argnums=(0, 1))
        if all(x.dtype != "float16" for x in inputs):
            both = jax.jit(both)
        value, (by_inputs, by_variables) = both(inputs, [v.value for v in variables])
        found = [*by_inputs, *by_variables]
    else:
        import torch

        inputs = [x.detach().requires_grad_(True) for x in inputs]
        value = function(*inputs)
        found = torch.autograd.grad(value, [*inputs, *(v.value for v in variables)])
        value = value.detach()
    value, *found = [
        ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64") for x in (value, *found)
    ]
    return value, found
