"""Tests which implementation of attention is chosen, and that its code path is short to read."""

import os
import sys

import keras
import numpy as np
import pytest
from keras import ops

import keras_transformer
from keras_transformer.layers import MultiHeadAttention
from keras_transformer.ops import attention as attention_ops
from keras_transformer.ops import attention_in_blocks

X = np.random.default_rng(3).normal(size=(2, 7, 64)).astype("float32")


def entered(function):
    """Returns the files and names of the package's functions that a call enters."""
    folder, found = os.path.dirname(keras_transformer.__file__), set()

    def note(frame, event, _):
        code = frame.f_code
        # A comprehension has a frame of its own up to Python 3.11.
        if event == "call" and code.co_filename.startswith(folder) and code.co_name[0] != "<":
            found.add((os.path.relpath(code.co_filename, folder), code.co_qualname))

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


# Fails if: a short sequence goes through the blocks again.
def test_a_reader_goes_through_the_formula_and_few_functions():
    layer = MultiHeadAttention(64, 4)
    layer(X)  # builds
    functions = entered(lambda: layer(X))
    assert ("ops/attention.py", "attention") in functions
    assert len(functions) <= 8, sorted(functions)


def spied(name, used):
    way = getattr(attention_ops, name)

    def call(*args, **kwargs):
        used.append(name)
        return way(*args, **kwargs)

    return call


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("given", [{}, {"causal": True}, {"training": True}])
@pytest.mark.parametrize("few", [True, False])
def test_blocks_are_for_training_and_for_many_weights(given, few, monkeypatch):
    used = []
    monkeypatch.setattr(attention_in_blocks, "ONE_PIECE", 2 * 4 * 7 * 7 - (not few))
    for name in ("attention", "attend_in_blocks"):
        monkeypatch.setattr(attention_ops, name, spied(name, used))
    layer = MultiHeadAttention(64, 4)
    found = layer(X, **given)
    expected, _ = layer(X, **given, return_attention_weights=True)
    in_blocks = "training" in given or not few
    assert used == ["attend_in_blocks" if in_blocks else "attention", "attention"]
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-5
    )


# Fails if: a GPU's fused kernels are left out, or are used where weights are dropped or asked for.
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="has its own, in blocks")
def test_fused_kernels_are_used_where_there_are_some(monkeypatch):
    used = []
    monkeypatch.setattr(attention_ops.attention_fused, "serves", lambda *heads: True)
    for name in ("attention", "attend_fused"):
        monkeypatch.setattr(attention_ops, name, spied(name, used))
    layer = MultiHeadAttention(64, 4, dropout=0.3)
    for given in ({}, {"training": True}, {"return_attention_weights": True}):
        layer(X, causal=True, **given)
    assert used == ["attend_fused", "attention", "attention"]


# Fails if: the length of the output is taken from the mixed values. A TensorFlow function that was
# traced for many lengths forgets their shape.
@pytest.mark.tensorflow_only
def test_the_length_of_the_output_is_the_querys(monkeypatch):
    import tensorflow as tf

    def forgetful(*args, **options):
        mixed, weights = attention_ops.attend(*args, **options)
        return tf.raw_ops.PlaceholderWithDefault(input=mixed, shape=[None] * 4), weights

    monkeypatch.setattr("keras_transformer.layers.attention.attend", forgetful)
    layer = MultiHeadAttention(64, 4)
    assert layer(keras.Input((7, 64))).shape == (None, 7, 64)
    assert layer(X).shape == X.shape
