"""Tests that attention in blocks equals attention in one piece, with memory linear in length."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_transformer.layers import MultiHeadAttention
from keras_transformer.ops import masks

pytestmark = pytest.mark.tensorflow_only

tf = pytest.importorskip("tensorflow")

from keras_transformer.ops import attention_in_blocks as in_blocks  # noqa: E402
from keras_transformer.ops.attention_in_blocks import attend_in_blocks  # noqa: E402
from keras_transformer.ops.random_bits import kept_share  # noqa: E402

B, H, T, S, K, V = 2, 3, 17, 13, 5, 7
SEED = [11, 29]


@pytest.fixture(params=["blocks", "one piece"])
def path(request, monkeypatch):
    monkeypatch.setattr(in_blocks, "ROWS", 5)  # 17 rows, so the last block has two
    monkeypatch.setattr(in_blocks, "ONE_PIECE", 0 if request.param == "blocks" else 10**6)
    in_blocks._one_function.cache_clear()  # traced functions contain these constants
    yield
    in_blocks._one_function.cache_clear()


def tensors(length=T, key_length=S):
    random = np.random.default_rng(3)
    shapes = (B, H, length, K), (B, H, key_length, K), (B, H, key_length, V), (B, H, length, V)
    return [tf.constant(random.normal(size=shape), "float32") for shape in shapes]


def mask_of(shape):
    mask = np.random.default_rng(5).random(shape) < 0.6
    mask[..., 0] = True
    return tf.constant(mask)


def by_hand(queries, keys, values, key_mask, attention_mask, causal, rate, seed):
    """Computes attention in one piece, with TensorFlow's own gradients."""
    length, key_length = queries.shape[2], keys.shape[2]
    permitted = tf.ones((1, 1, length, key_length), "bool")
    if key_mask is not None:
        permitted &= key_mask[:, None, None]
    if attention_mask is not None:
        permitted &= attention_mask[:, None] if attention_mask.ndim == 3 else attention_mask
    if causal:
        permitted &= np.tril(np.ones((length, key_length), bool))
    scores = tf.einsum("bhtk,bhsk->bhts", queries, keys)
    weights = tf.nn.softmax(tf.where(permitted, scores, masks.FORBIDDEN))
    if rate:
        rows = min(length, in_blocks.ROWS)
        kept = [
            kept_share([B, H, rows, key_length], rate, [seed[0], seed[1] + i], "float32")
            for i in range(-(-length // rows))
        ]
        weights *= tf.concat(kept, axis=2)[:, :, :length]
    return tf.einsum("bhts,bhsv->bhtv", weights, values)


def value_and_gradients(function, queries, keys, values, upstream):
    with tf.GradientTape() as tape:
        tape.watch([queries, keys, values])
        value = function(queries, keys, values)
    return [value, *tape.gradient(value, [queries, keys, values], output_gradients=upstream)]


MASKS = {
    "none": {},
    "keys": {"key_mask": (B, S)},
    "pairs": {"attention_mask": (T, S)},
    "pairs of rows": {"attention_mask": (B, T, S), "key_mask": (B, S)},
    "pairs of heads": {"attention_mask": (B, H, T, S)},
    "one row for all": {"attention_mask": (B, 1, 1, S)},
}


# Fails if: every block uses the attention mask's rows, or the seed, of the first block; the
# gradient leaves out dropout; keys get the gradient of the last block only.
@pytest.mark.parametrize("known", ["known size", "unknown size"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("given", MASKS)
def test_value_and_gradients_are_those_of_the_formula(path, given, rate, known):
    mask = {"key_mask": None, "attention_mask": None, "causal": False}
    mask |= {name: mask_of(shape) for name, shape in MASKS[given].items()}
    check(tensors(), mask, rate, known)


# Fails if: every block uses the causal mask of the first block.
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_causal(path, rate):
    mask = {"key_mask": mask_of((B, T)), "attention_mask": None, "causal": True}
    check(tensors(T, T), mask, rate, "known size")


@pytest.mark.parametrize("length", [1, 5, 10])
def test_lengths_at_the_edges_of_a_block(path, length):
    mask = {"key_mask": None, "attention_mask": None, "causal": False}
    check(tensors(length, S), mask, 0.3, "known size")


# Fails if: TensorFlow infers the shape of the sums, which it cannot do for one head.
def test_one_head(path):
    mask = {"key_mask": None, "attention_mask": None, "causal": False}
    check([each[:, :1] for each in tensors()], mask, 0.0, "unknown size")


def in_a_graph(found, given, **options):
    """Traces `found` as a graph without static lengths."""
    signature = [tf.TensorSpec((None, each.shape[1], None, each.shape[-1])) for each in given]
    compiled = tf.function(found, input_signature=signature, autograph=False, **options)
    return compiled.get_concrete_function()


def check(given, mask, rate, known):
    attend = functools.partial(attend_in_blocks, **mask, rate=rate, seed=tf.constant(SEED))
    found = functools.partial(value_and_gradients, attend)
    if known == "unknown size":
        found = in_a_graph(found, given)
    expected = value_and_gradients(functools.partial(by_hand, **mask, rate=rate, seed=SEED), *given)
    for ours, theirs in zip(found(*given), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("accelerator", [False, True])
def test_compiled_by_xla_where_sizes_are_known_only_then(path, accelerator, monkeypatch):
    monkeypatch.setattr(in_blocks, "compiles_each_shape", lambda: accelerator)
    arguments = {"key_mask": mask_of((B, S)), "attention_mask": None, "causal": False}
    arguments |= {"rate": 0.3, "seed": tf.constant(SEED)}
    found = functools.partial(value_and_gradients, functools.partial(attend_in_blocks, **arguments))
    given = tensors()
    compiled = in_a_graph(found, given, jit_compile=True)
    for ours, theirs in zip(compiled(*given), found(*given), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_query_without_a_key_is_finite(path):
    mask = {"key_mask": tf.zeros((B, S), "bool"), "attention_mask": None, "causal": False}
    for each in value_and_gradients(
        functools.partial(attend_in_blocks, **mask, rate=0.0, seed=None), *tensors()
    ):
        assert np.isfinite(each).all()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_the_layer_gives_the_same_whether_its_weights_are_asked_for(path, dtype):
    keras.utils.set_random_seed(1)
    layer = MultiHeadAttention(num_heads=3, d_model=15, dropout=0.4, dtype=dtype)
    x = keras.random.normal((B, T, 15))
    mask = mask_of((B, T))
    found = layer(x, causal=True, key_mask=mask)
    expected, _ = layer(x, causal=True, key_mask=mask, return_attention_weights=True)
    tolerance = {"float32": 1e-6, "mixed_bfloat16": 2e-2, "mixed_float16": 2e-3}[dtype]
    np.testing.assert_allclose(
        keras.ops.cast(found, "float32"), keras.ops.cast(expected, "float32"), atol=tolerance
    )
    assert found.dtype == expected.dtype == layer.compute_dtype


PEAK = """
import tensorflow as tf
from keras_transformer.layers import MultiHeadAttention

layer = MultiHeadAttention(num_heads=2, d_model=32, dropout=0.1)
layer.build((None, None, 32))

@tf.function(input_signature=[tf.TensorSpec((None, None, 32))])
def step(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, causal=True, training=True) ** 2)
    return tape.gradient(loss, layer.trainable_variables)

def highest():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

step(tf.random.normal((1, 64, 32)))
for length in (1024, 8192):
    before = highest()
    step(tf.random.normal((1, length, 32)))
    print("peak", highest() - before)
"""


# Fails if: all queries are computed in one piece.
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_grows_with_length_and_not_with_its_square():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    short, long = (int(line.split()[1]) for line in done.stdout.splitlines() if "peak" in line)
    assert short > 0
    assert long < 1.2 * 8 * short  # in one piece, the weights would take 64 times as much
