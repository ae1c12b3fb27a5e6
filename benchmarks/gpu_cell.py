"""One process of gpu.py: training or decoding of one preset, and the device's best rate."""

import statistics
import sys
import time
from pathlib import Path

import jax
import keras
import numpy as np
from train import operations

# Runs from a bare checkout, because installing the package would also install TensorFlow.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from keras_transformer import losses, metrics, models, optimizers  # noqa: E402
from keras_transformer.decoding.translator import Translator  # noqa: E402
from keras_transformer.ops.compilation import compile_with_weights  # noqa: E402

START_ID, FIRST_WORD = 2, 4


class Vocabulary:
    """Ids without text. No id of the model ends a sentence, so every row takes all steps."""

    pad_id, start_id = 0, START_ID

    def __init__(self, size):
        self.size = self.end_id = size

    @property
    def vocabulary_size(self):
        return self.size


def prepare(config):
    if keras.backend.backend() != "jax":
        raise RuntimeError("This measures JAX: set KERAS_BACKEND=jax.")
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy("mixed_bfloat16")
    allowed = config["flash"] == "on"
    (keras.config.enable_flash_attention if allowed else keras.config.disable_flash_attention)()
    traced = watch_attention()
    model = models.Transformer.from_preset(config["size"], config["vocabulary_size"])

    def answer(request):
        traced.clear()
        measure = measure_training if config["kind"] == "train" else measure_decoding
        result = measure(model, request["rows"], request["length"], config)
        return {"attention": "+".join(sorted(traced)) or "own", **result}

    device = jax.local_devices()[0].device_kind
    return answer, {"device": device, "parameters": model.count_params()}


def watch_attention():
    """Returns a set that later collects the implementations of JAX's attention that are traced.

    Keras falls back silently if the shape, the dtype or the installed cuDNN is not supported.
    """
    traced, function = set(), jax.nn.dot_product_attention

    def watched(*args, implementation=None, **kwargs):
        outputs = function(*args, implementation=implementation, **kwargs)
        traced.add(implementation or "xla")
        return outputs

    jax.nn.dot_product_attention = watched
    return traced


def measure_training(model, rows, length, config):
    size, vocabulary_size = models.PRESETS[config["size"]], config["vocabulary_size"]
    model.compile(
        optimizer=optimizers.PaperAdam(size["d_model"], warmup_steps=4000),
        loss=losses.SmoothedCrossentropy(label_smoothing=0.1),
        weighted_metrics=[metrics.NatsPerToken(), metrics.TokenAccuracy()],
    )
    feed = batches(rows, length, vocabulary_size)

    def fit(steps):
        begin = time.perf_counter()
        history = model.fit(feed, steps_per_epoch=steps, epochs=1, verbose=0)
        jax.block_until_ready([variable.value for variable in model.variables])
        if not np.isfinite(history.history["loss"][-1]):
            raise ValueError("The loss is not finite.")
        return time.perf_counter() - begin

    first = fit(1)
    fit(2)
    seconds = [fit(config["steps"]) / config["steps"] for _ in range(config["rounds"])]
    peak = peak_bytes()  # read before `matmul_rate` allocates its matrices
    work, rate = operations([(rows, length, length)], size, vocabulary_size), matmul_rate()
    return {
        "first_seconds": first,
        "seconds_a_step": statistics.median(seconds),
        "seconds": seconds,
        "tokens_per_second": rows * length / statistics.median(seconds),
        "operations": work,
        "matmul_rate": rate,
        "share_of_matmul_rate": work / statistics.median(seconds) / rate,
        "peak_bytes": peak,
    }


def batches(rows, length, vocabulary_size):
    """Yields random ids for `fit`, without padding: four batches, repeated without end."""
    random, made = np.random.default_rng(1), []
    for _ in range(4):
        ids = random.integers(FIRST_WORD, vocabulary_size, (2, rows, length), dtype="int32")
        target = np.insert(ids[1], 0, START_ID, axis=1)[:, :-1]
        weights = np.full((rows, length), 1 / (rows * length), "float32")
        made.append(({"source_ids": ids[0], "target_ids": target}, ids[1], weights))
    while True:
        yield from made


def measure_decoding(model, rows, length, config):
    vocabulary_size = config["vocabulary_size"]
    translator = Translator(model, Vocabulary(vocabulary_size))

    def search(source_ids, max_lengths):
        return translator.search_ids(source_ids, max_lengths, length, 1, 1, 0.6)

    search = compile_with_weights(search, model)
    random = np.random.default_rng(1)
    sources = random.integers(FIRST_WORD, vocabulary_size, (rows, length), dtype="int32")
    seconds = []
    for _ in range(1 + config["rounds"]):
        begin = time.perf_counter()
        jax.block_until_ready(search(sources, np.full((rows,), length, "int32")))
        seconds.append(time.perf_counter() - begin)
    first, *seconds = seconds
    return {
        "first_seconds": first,
        "seconds_a_step": statistics.median(seconds) / length,  # includes the encoder's time
        "seconds": seconds,
        "tokens_per_second": rows * length / statistics.median(seconds),
        "peak_bytes": peak_bytes(),
    }


def peak_bytes():
    """Returns this process' peak of device memory, or None if the device does not report it."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def matmul_rate(products=20, repeats=10):
    """Returns the best rate of large square bfloat16 matrices, in operations per second."""
    n = 512 if jax.default_backend() == "cpu" else 8192
    # All products have random numbers of variance 1. With zeros a GPU draws less power, and is
    # then faster than with any model.
    left, right = jax.random.normal(jax.random.key(1), (2, n, n), "bfloat16")
    right = right * n**-0.5
    chain = jax.jit(lambda x, y: jax.lax.fori_loop(0, products, lambda _, x: x @ y, x))
    jax.block_until_ready(chain(left, right))
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(chain(left, right))
        seconds.append(time.perf_counter() - begin)
    return products * 2 * n**3 / min(seconds)
