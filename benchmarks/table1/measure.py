"""A contestant of contest.py: measures operations, time and memory of one row of Table 1."""

import ctypes
import functools
import math
import time
from pathlib import Path

import keras
import numpy as np
from table1 import layers

from keras_transformer.ops.memory import keep_freed_memory


def prepare(config):
    """Needs `neighbourhood`, `kernel` and `keep`: whether to keep freed memory, which is faster."""
    sizes = {name: config[name] for name in ("neighbourhood", "kernel")}
    if config["keep"]:
        keep_freed_memory()

    @functools.cache
    def layer(row, d):  # cached, because the orthogonal matrices of a wide LSTM take seconds
        return layers.make(row, d, **sizes)

    @functools.cache
    def step(row, d, backward):
        return compiled(layer(row, d), backward)

    @functools.cache
    def inputs(row, n, d):
        random = np.random.default_rng(2017)
        return [
            keras.ops.convert_to_tensor(random.standard_normal(shape, "float32"))
            for shape in layers.input_shapes(row, n, d)
        ]

    def answer(request):
        row, n, d = request["row"], request["n"], request["d"]
        match request["what"]:
            case "count":
                return counted(layer(row, d), layers.input_shapes(row, n, d))
            case "path":
                from table1.paths import path_length

                return {"path": path_length(row, n, d, **sizes)}
            case "time":
                run, given = step(row, d, request["backward"]), inputs(row, n, d)
                return {"seconds": seconds(lambda: run(given))}
            case "memory":
                given = inputs(row, n, d)
                runs = {way: step(row, d, way == "both") for way in ("forward", "both")}
                return {way: mebibytes(lambda run=run: run(given)) for way, run in runs.items()}

    return answer, {"backend": keras.backend.backend()}


def program(layer, backward):
    """Returns `f(weights, inputs)` for JAX: the layer, or gradients of the sum of its squares."""
    import jax

    others = [variable.value for variable in layer.non_trainable_variables]

    def forward(weights, inputs):
        return layer.stateless_call(weights, others, *inputs)[0]

    def loss(weights, inputs):
        return keras.ops.sum(forward(weights, inputs) ** 2)

    return jax.grad(loss, argnums=(0, 1)) if backward else forward


def counted(layer, shapes):
    """Returns multiplications and the longest chain, for forward and for forward + backward."""
    import jax
    from table1 import counts

    found = {}
    for way in ("forward", "both"):
        inputs = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
        weights = [variable.value for variable in layer.trainable_variables]
        jaxpr = jax.make_jaxpr(program(layer, way == "both"))(weights, inputs).jaxpr
        found[way] = {
            "operations": counts.operations(jaxpr),
            "sequential": counts.sequential(jaxpr),
        }
    return found


def compiled(layer, backward):
    """Returns `run(inputs)`, which waits for its result."""
    if keras.backend.backend() == "jax":
        import jax

        weights = [variable.value for variable in layer.trainable_variables]
        step = jax.jit(program(layer, backward))
        return lambda inputs: jax.block_until_ready(step(weights, inputs))
    import tensorflow as tf

    @tf.function(autograph=False)
    def step(inputs):
        if not backward:
            return layer(*inputs)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(*inputs) ** 2)
        return tape.gradient(loss, [*inputs, *layer.trainable_variables])

    return lambda inputs: tf.nest.flatten(step(inputs))[0].numpy()


def seconds(run, least=0.1):
    """Returns the seconds of some runs, after one run that compiles and is not counted."""
    run()
    found = []
    while math.fsum(found) < least:
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return found


def mebibytes(run):
    """Returns how far this process' memory rises during a run (the highest of three, on Linux).

    A run must not reuse memory that an earlier run has freed. So large blocks are returned at once
    (MALLOC_MMAP_THRESHOLD_ in the environment), and small ones are returned here.
    """
    run()  # compiles
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    rises = []
    for _ in range(3):
        if trim is not None:
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
        before = _kibibytes("VmRSS")
        run()
        rises.append((_kibibytes("VmHWM") - before) / 1024)
    return max(rises)


def _kibibytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
