"""Parity with implementations that share no code with ours: NumPy in float64, and Keras' layer.

The NumPy side follows the paper, head by head. Sizes are distinct primes.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer import layers
from keras_transformer.models import Transformer

B, T, S, D, H, K, V = 2, 5, 7, 13, 3, 11, 17
RANDOM = np.random.default_rng(1706)


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def normal(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def randomize(layer):
    """Changes all weights, because a 0 or a 1 would hide whether a weight is used."""
    for weight in layer.weights:
        weight.assign(ops.convert_to_numpy(weight) + 0.3 * normal(*weight.shape))
    return layer


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(array(actual), expected, rtol=tolerance, atol=tolerance)


# --- the paper in NumPy


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def attend(layer, query, key, value, permitted=True):
    """Computes section 3.2.2: output and weights. `permitted` broadcasts to [B, H, T, S]."""
    q, k, v, o = (
        (array(part.kernel), 0.0 if part.bias is None else array(part.bias))
        for part in (layer.query, layer.key, layer.value, layer.output_projection)
    )
    heads, key_dim, value_dim = layer.num_heads, layer.key_dim, layer.value_dim
    shape = (query.shape[0], heads, query.shape[1], key.shape[1])
    permitted = np.broadcast_to(permitted, shape)
    mixed, weights = [], []
    for head in range(heads):
        keys = slice(head * key_dim, (head + 1) * key_dim)
        values = slice(head * value_dim, (head + 1) * value_dim)
        scores = (query @ q[0] + q[1])[..., keys] @ np.swapaxes(
            (key @ k[0] + k[1])[..., keys], 1, 2
        )
        scores = np.where(permitted[:, head], scores / np.sqrt(key_dim), -np.inf)
        weights.append(softmax(scores))
        mixed.append(weights[-1] @ (value @ v[0] + v[1])[..., values])
    return np.concatenate(mixed, -1) @ o[0] + o[1], np.stack(weights, 1)


def normalize(norm, x, epsilon=1e-6):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * array(norm.gamma) + array(norm.beta)


def feed_forward(layer, x):
    inner = np.maximum(0.0, x @ array(layer.inner.kernel) + array(layer.inner.bias))
    return inner @ array(layer.outer.kernel) + array(layer.outer.bias)


def residual(join, x, sublayer):
    """Computes section 3.1: LayerNorm(x + Sublayer(x)), or x + Sublayer(LayerNorm(x))."""
    if join.norm == "post":
        return normalize(join.layer_norm, x + sublayer(x))
    return x + sublayer(normalize(join.layer_norm, x))


def encoder_layer(layer, x, key_mask):
    keys = key_mask[:, None, None, :]
    x = residual(
        layer.join_self_attention, x, lambda y: attend(layer.self_attention, y, y, y, keys)[0]
    )
    return residual(layer.join_feed_forward, x, lambda y: feed_forward(layer.feed_forward, y))


def decoder_layer(layer, x, memory, key_mask, memory_mask):
    past = np.tril(np.ones((x.shape[1],) * 2, bool)) & key_mask[:, None, None, :]
    x = residual(
        layer.join_self_attention, x, lambda y: attend(layer.self_attention, y, y, y, past)[0]
    )
    keys = memory_mask[:, None, None, :]
    x = residual(
        layer.join_cross_attention,
        x,
        lambda y: attend(layer.cross_attention, y, memory, memory, keys)[0],
    )
    return residual(layer.join_feed_forward, x, lambda y: feed_forward(layer.feed_forward, y))


def positional_encoding(positions, d_model):
    """Computes section 3.5, entry by entry."""
    encoding = np.zeros((len(positions), d_model))
    for row, position in enumerate(positions):
        for column in range(d_model):
            angle = position / 10_000 ** ((column // 2 * 2) / d_model)
            encoding[row, column] = np.cos(angle) if column % 2 else np.sin(angle)
    return encoding


def embed(layer, ids):
    x = array(layer.token.embeddings)[ids] * np.sqrt(layer.d_model)
    if layer.positions == "learned":
        x = x + array(layer.position.embeddings)[: ids.shape[1]]
    else:
        x = x + positional_encoding(range(ids.shape[1]), layer.d_model)
    if layer.embedding_norm:
        x = normalize(layer.layer_norm, x, layer.epsilon)
    return x * (ids != 0)[..., None]


def transformer(model, source_ids, target_ids):
    source_mask, target_mask = source_ids != 0, target_ids != 0
    memory = embed(model.source_embedding, source_ids)
    for layer in model.encoder.layers:
        memory = encoder_layer(layer, memory, source_mask)
    if model.encoder.final_norm is not None:
        memory = normalize(model.encoder.final_norm, memory)
    x = embed(model.target_embedding, target_ids)
    for layer in model.decoder.layers:
        x = decoder_layer(layer, x, memory, target_mask, source_mask)
    if model.decoder.final_norm is not None:
        x = normalize(model.decoder.final_norm, x)
    if model.logits is None:
        layer = model.target_embedding
        x = x @ array(layer.token.embeddings).T
    else:
        layer = model.logits
        x = x @ array(layer.kernel)
    return x if layer.bias is None else x + array(layer.bias)


# --- attention

KEY_MASK = np.array([[1, 1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1, 1]], bool)
PAIRS = RANDOM.random((B, H, T, S)) < 0.6
PAIRS[..., 0] = True  # every query has a key


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(
    "arguments, permitted",
    [
        ({}, True),
        ({"causal": True}, np.tri(T, S, dtype=bool)),
        ({"key_mask": KEY_MASK}, KEY_MASK[:, None, None, :]),
        ({"attention_mask": PAIRS[0, 0]}, PAIRS[0, 0]),
        ({"attention_mask": PAIRS[:, 1]}, PAIRS[:, 1][:, None]),
        ({"attention_mask": PAIRS}, PAIRS),
        ({"attention_mask": PAIRS[:, :1]}, PAIRS[:, :1]),
        (
            {"attention_mask": PAIRS, "key_mask": KEY_MASK, "causal": True},
            PAIRS & KEY_MASK[:, None, None, :] & np.tri(T, S, dtype=bool),
        ),
    ],
    ids=["all", "causal", "keys", "rank2", "rank3", "rank4", "rank4-heads", "together"],
)
def test_attention_to_a_memory_is_the_papers(arguments, permitted, use_bias):
    query, key, value = normal(B, T, D), normal(B, S, 19), normal(B, S, 23)
    layer = layers.MultiHeadAttention(D, H, key_dim=K, value_dim=V, use_bias=use_bias)
    layer.build(query.shape, key.shape, value.shape)
    output, weights = randomize(layer)(
        query, key, value, **arguments, return_attention_weights=True
    )
    expected, expected_weights = attend(layer, query, key, value, permitted)
    assert_close(output, expected, 2e-5)
    assert_close(weights, expected_weights)
    forbidden = ~np.broadcast_to(permitted, weights.shape)
    assert (array(weights)[forbidden] == 0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_the_papers(causal):
    # By default a head has width d_model / num_heads, the key is the query, and the value is the
    # key.
    x = normal(B, S, 15)
    layer = layers.MultiHeadAttention(num_heads=3, d_model=15)
    layer.build(x.shape)
    permitted = KEY_MASK[:, None, None, :] & (np.tri(S, dtype=bool) if causal else True)
    assert_close(
        randomize(layer)(x, key_mask=KEY_MASK, causal=causal),
        attend(layer, x, x, x, permitted)[0],
    )
    assert (layer.key_dim, layer.value_dim, layer.query.bias) == (5, 5, None)


def copy_attention(theirs, ours):
    """Copies the weights of a `keras.layers.MultiHeadAttention` to our layer. Both are built."""
    for name in ("query", "key", "value", "output"):
        dense = getattr(theirs, f"{name}_dense")
        part = getattr(ours, {"output": "output_projection"}.get(name, name))
        part.kernel.assign(ops.reshape(dense.kernel, part.kernel.shape))  # [D, H, K] or [H, K, D]
        if ours.use_bias:
            part.bias.assign(ops.reshape(dense.bias, part.bias.shape))


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_attention_is_keras_own_with_the_same_weights(cross, use_bias):
    theirs = keras.layers.MultiHeadAttention(
        H, key_dim=K, value_dim=V, output_shape=D, use_bias=use_bias
    )
    query = normal(B, T, D)
    key, value = (normal(B, S, D), normal(B, S, 19)) if cross else (query, query)
    pairs = PAIRS[:, 0] if cross else np.broadcast_to(np.tri(T, dtype=bool), (B, T, T))
    theirs.build(query.shape, value.shape, key.shape)
    randomize(theirs)
    ours = layers.MultiHeadAttention(D, H, key_dim=K, value_dim=V, use_bias=use_bias)
    ours.build(query.shape, key.shape, value.shape)
    copy_attention(theirs, ours)
    expected, expected_weights = theirs(
        query, value, key, attention_mask=pairs, return_attention_scores=True
    )
    memory = {"key": key, "value": value} if cross else {}
    output, weights = ours(query, **memory, attention_mask=pairs, return_attention_weights=True)
    assert_close(output, array(expected))
    assert_close(weights, array(expected_weights))


# --- the blocks

BLOCK = {"d_model": D, "num_heads": H, "d_ff": 29, "key_dim": K, "value_dim": V, "dropout": 0.3}


def test_feed_forward_is_two_maps_with_a_relu_between():
    x = normal(B, T, D)
    layer = layers.FeedForward(d_ff=29, d_model=17)
    layer.build(x.shape)
    assert_close(randomize(layer)(x), feed_forward(layer, x))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_residual_normalises_where_it_says(norm):
    # At this scale epsilon matters: torch's 1e-5 or Keras' 1e-3 would give another result.
    x = 1e-3 * normal(B, T, D)
    join = layers.Residual(norm=norm)
    join.build(x.shape)
    randomize(join)
    assert_close(join(x, ops.square(join.prepare(x))), residual(join, x, np.square))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_encoder_layer_is_the_papers(norm):
    x = normal(B, S, D)
    layer = layers.EncoderLayer(**BLOCK, norm=norm)
    layer.build(x.shape)
    assert_close(randomize(layer)(x, mask=KEY_MASK), encoder_layer(layer, x, KEY_MASK), 3e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_decoder_layer_is_the_papers(norm):
    x, memory = normal(B, T, D), normal(B, S, D)
    layer = layers.DecoderLayer(**BLOCK, norm=norm)
    layer.build(x.shape, memory.shape)
    target_mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
    assert_close(
        randomize(layer)(x, memory, inputs_mask=target_mask, memory_mask=KEY_MASK),
        decoder_layer(layer, x, memory, target_mask, KEY_MASK),
        3e-5,
    )


# --- positions and embeddings


@pytest.mark.parametrize("index", [0, 3, 101])
@pytest.mark.parametrize("d_model", [13, 14])
def test_sinusoids_are_interleaved_and_start_at_the_index(d_model, index):
    expected = positional_encoding(range(index, index + T), d_model)
    assert_close(layers.sinusoids(T, d_model, index), expected)
    assert_close(layers.sinusoids(T, d_model, ops.convert_to_tensor(index, "int32")), expected)


# Fails if: the norm comes before the positions, or after the zeros of padding.
@pytest.mark.parametrize(
    ("positions", "options"),
    [("sinusoidal", {}), ("learned", {"embedding_norm": True, "epsilon": 0.3})],
)
def test_embedding_is_scaled_and_zero_at_padding(positions, options):
    ids = np.array([[3, 1, 4, 0, 0], [5, 0, 2, 6, 5]])
    options = {"positions": positions, "max_length": T + 3, "dropout": 0.3, **options}
    layer = layers.PositionalEmbedding(19, D, **options)
    layer.build(ids.shape)
    output = randomize(layer)(ids)
    assert_close(output, embed(layer, ids))
    assert (array(output)[ids == 0] == 0).all()
    late = layer(ids[:, 2:], index=2)
    assert_close(late, array(output)[:, 2:])


def test_embedding_reversed_is_the_product_with_its_transpose():
    x = normal(B, T, D)
    layer = layers.PositionalEmbedding(19, D)
    layer.build((None, None))
    assert_close(layer(x, reverse=True), x @ array(layer.token.embeddings).T)


# --- the whole


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "pre", "positions": "learned", "max_length": 11, "embedding_norm": True},
        {"target_vocabulary_size": 23, "num_decoder_layers": 1, "tie_logits": False},
        {"logits_bias": True},
        {"target_vocabulary_size": 23, "logits_bias": True},
        {"tie_logits": False, "logits_bias": True},
    ],
    ids=["paper", "pre-norm", "separate", "shared-bias", "bias-of-the-target", "untied-bias"],
)
def test_transformer_is_the_papers(options):
    model = Transformer(vocabulary_size=19, num_layers=2, **BLOCK, **options)
    # One bias, and only where it was asked for.
    assert sum(w.name == "bias" and w.shape[0] in (19, 23) for w in model.weights) == (
        options.get("logits_bias", False)
    )
    randomize(model)
    source_ids = np.array([[3, 1, 4, 1, 5, 0, 0], [9, 2, 6, 5, 3, 5, 8]])
    target_ids = np.array([[2, 7, 1, 8, 2], [2, 8, 1, 0, 0]])
    logits = model({"source_ids": source_ids, "target_ids": target_ids})
    expected = transformer(model, source_ids, target_ids)
    scale = np.abs(expected).max()
    assert_close(array(logits) / scale, expected / scale)
