"""Parity with one block of KerasHub's `TransformerEncoder` and `TransformerDecoder`.

KerasHub has biases in every projection, and one dropout rate for everything. Neither matters here.
"""

import numpy as np
import pytest
from keras import ops
from test_parity import array, assert_close, copy_attention, normal, randomize

from keras_transformer import layers

pytestmark = pytest.mark.tensorflow_only  # their layers and ours use the same `keras.ops`

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

B, T, S, D, H, F = 2, 5, 7, 12, 3, 17
SOURCE_MASK = np.array([[1, 1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1, 1]], bool)
TARGET_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)


def their_options(norm, activation):
    return {
        "intermediate_dim": F,
        "num_heads": H,
        "dropout": 0.3,
        "activation": activation,
        "layer_norm_epsilon": 1e-4,
        "normalize_first": norm == "pre",
    }


def our_options(norm, activation):
    sizes = {"d_model": D, "num_heads": H, "d_ff": F, "dropout": 0.3, "use_bias": True}
    return {**sizes, "norm": norm, "activation": activation, "epsilon": 1e-4}


def copy_block(theirs, ours):
    """Copies all weights of their block to ours. Both are built."""
    attentions = ["self_attention"]
    norms = [("_self_attention_layer_norm", "join_self_attention")]
    if isinstance(ours, layers.DecoderLayer):
        attentions.append("cross_attention")
        norms.append(("_cross_attention_layer_norm", "join_cross_attention"))
    norms.append(("_feedforward_layer_norm", "join_feed_forward"))
    copied = []
    for name in attentions:
        copy_attention(getattr(theirs, f"_{name}_layer"), getattr(ours, name))
        copied += getattr(ours, name).weights
    pairs = [(getattr(theirs, a), getattr(ours, b).layer_norm) for a, b in norms]
    pairs.append((theirs._feedforward_intermediate_dense, ours.feed_forward.inner))
    pairs.append((theirs._feedforward_output_dense, ours.feed_forward.outer))
    for a, b in pairs:
        b.set_weights(a.get_weights())
        copied += b.weights
    assert {id(weight) for weight in copied} == {id(w) for w in ours.trainable_variables}
    assert ours.count_params() == theirs.count_params()


# Fails if: pre-norm has no norm.
@pytest.mark.parametrize(("norm", "activation"), [("post", "relu"), ("pre", "gelu")])
def test_encoder_layer_is_keras_hubs(norm, activation):
    theirs = keras_hub.layers.TransformerEncoder(**their_options(norm, activation))
    ours = layers.EncoderLayer(**our_options(norm, activation))
    for layer in (theirs, ours):
        layer.build((B, S, D))
    copy_block(randomize(theirs), ours)
    x = normal(B, S, D)
    expected, expected_weights = theirs(x, padding_mask=SOURCE_MASK, return_attention_scores=True)
    output, weights = ours(x, mask=SOURCE_MASK, return_attention_weights=True)
    assert_close(output, array(expected))
    assert_close(weights, array(expected_weights))
    pairs = np.tri(S, dtype=bool)[None].repeat(B, 0)
    expected = theirs(x, padding_mask=SOURCE_MASK, attention_mask=pairs)
    assert_close(ours(x, mask=SOURCE_MASK, causal=True), array(expected))
    assert_close(ours(x, mask=SOURCE_MASK, attention_mask=pairs), array(expected))


# Fails if: the cache is always written at position 0.
@pytest.mark.parametrize(("norm", "activation"), [("post", "relu"), ("pre", "gelu")])
def test_decoder_layer_is_keras_hubs_with_their_cache_and_ours(norm, activation):
    theirs = keras_hub.layers.TransformerDecoder(**their_options(norm, activation))
    ours = layers.DecoderLayer(**our_options(norm, activation))
    for layer in (theirs, ours):
        layer.build((B, T, D), (B, S, D))
    copy_block(randomize(theirs), ours)
    x, memory = normal(B, T, D), normal(B, S, D)
    expected = theirs(x, memory, decoder_padding_mask=TARGET_MASK, encoder_padding_mask=SOURCE_MASK)
    output = ours(x, memory, inputs_mask=TARGET_MASK, memory_mask=SOURCE_MASK)
    assert_close(output, array(expected))

    their_self = ops.zeros((B, 2, T, H, D // H))
    their_cross = ops.zeros((B, 2, S, H, D // H))
    cache = ours.start_cache(memory, length=T)
    for t in range(T):
        expected, their_self, their_cross = theirs(
            x[:, t : t + 1],
            memory,
            encoder_padding_mask=SOURCE_MASK,
            self_attention_cache=their_self,
            self_attention_cache_update_index=t,
            cross_attention_cache=their_cross,
            cross_attention_cache_update_index=None if t else 0,
        )
        output, cache = ours(x[:, t : t + 1], cache=cache, index=t, memory_mask=SOURCE_MASK)
        assert_close(output, array(expected))
