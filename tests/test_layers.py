"""Laws of every layer as a Keras layer: masks, dropout, precision, configs, files, errors."""

import functools
import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer import layers, testing
from keras_transformer.ops.composite import Composite
from keras_transformer.testing.saving import TOLERANCES, model_of

B, T, S, D = 2, 5, 7, 13
RANDOM = np.random.default_rng(1706)
X, MEMORY = (RANDOM.normal(size=(B, n, D)).astype("float32") for n in (T, S))
X2, MEMORY2 = (RANDOM.normal(size=(B, n, D)).astype("float32") for n in (T, S))
IMAGES = RANDOM.normal(size=(B, 6, 9, 2)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
MEMORY_MASK = np.array([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0]], bool)
IDS = np.array([[5, 3, 8, 0, 0], [2, 7, 1, 8, 2]], "int32")

BLOCK = {
    "d_model": D,
    "num_heads": 3,
    "d_ff": 29,
    "dropout": 0.2,
    "attention_dropout": 0.3,
    "activation": "gelu",
    "norm": "pre",
    "epsilon": 1e-5,
    "key_dim": 11,
    "value_dim": 17,
    "use_bias": True,
}
# Layer, arguments (none at its default), inputs, width of the output.
LAYERS = {
    "attention": (
        layers.MultiHeadAttention,
        {
            "num_heads": 3,
            "d_model": D,
            "key_dim": 11,
            "value_dim": 17,
            "use_bias": True,
            "dropout": 0.2,
        },
        (X, MEMORY),
        D,
    ),
    "feed_forward": (
        layers.FeedForward,
        {"d_ff": 29, "d_model": 17, "activation": "gelu", "dropout": 0.2},
        (X,),
        17,
    ),
    "dropout": (layers.Dropout, {"rate": 0.2, "seed": 3}, (X,), D),
    "residual": (
        layers.Residual,
        {"norm": "pre", "dropout": 0.2, "epsilon": 1e-5},
        (X, X[:, ::-1]),
        D,
    ),
    "embedding": (
        layers.PositionalEmbedding,
        {
            "vocabulary_size": 19,
            "d_model": D,
            "positions": "learned",
            "max_length": 11,
            "dropout": 0.2,
            "pad_id": 2,
            "mask_zero": False,
            "logits_bias": True,
            "embedding_norm": True,
            "epsilon": 1e-5,
        },
        (IDS,),
        D,
    ),
    "encoding": (
        layers.PositionalEncoding,
        {"positions": "learned", "max_length": 11, "dropout": 0.2},
        (X,),
        D,
    ),
    "patches": (
        layers.PatchEmbedding,
        {
            "patch_size": 3,
            "d_model": D,
            "positions": "sinusoidal",
            "class_token": False,
            "dropout": 0.2,
        },
        (IMAGES,),
        D,
    ),
    "pooling": (layers.MeanPooling, {}, (X,), D),
    "encoder_layer": (layers.EncoderLayer, BLOCK, (X,), D),
    "decoder_layer": (layers.DecoderLayer, BLOCK, (X, MEMORY), D),
    "encoder": (layers.Encoder, {"num_layers": 2, **BLOCK}, (X,), D),
    "decoder": (layers.Decoder, {"num_layers": 2, **BLOCK}, (X, MEMORY), D),
}
every_layer = pytest.mark.parametrize("name", LAYERS)

PAIRS, CROSS = (RANDOM.random((B, T, n)) < 0.7 for n in (T, S))
OWN = {"attention_mask": PAIRS}
BOTH = (
    {"inputs": X, "memory": MEMORY},
    {
        "inputs": ("inputs_mask", MASK),
        "memory": ("memory_mask", MEMORY_MASK),
    },
)
# Tensors that a layer is called with, their masks, and its further optional tensors.
MASKS = {
    "attention": [
        ({"query": X}, {"query": ("mask", MASK)}, {**OWN, "value": X2}),
        (
            {"query": X, "key": MEMORY},
            {"key": ("key_mask", MEMORY_MASK)},
            {"attention_mask": CROSS, "value": MEMORY2},
        ),
    ],
    "encoder_layer": [({"inputs": X}, {"inputs": ("mask", MASK)}, OWN)],
    "encoder": [({"inputs": X}, {"inputs": ("mask", MASK)}, OWN)],
    "decoder_layer": [(*BOTH, OWN)],
    "decoder": [(*BOTH, {})],
    "pooling": [({"inputs": X}, {"inputs": ("mask", MASK)}, {})],
}
# Arguments of `call` that are not extra tensors. If a layer has several tensors, Keras fills in
# `query_mask` or `inputs_mask` instead of `mask`.
SETTINGS = {"training", "causal", "return_attention_weights", "reverse", "cache", "index"}
SETTINGS |= {"mask", "query_mask", "inputs_mask"}


def array(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def eye(layer):
    """Makes all projections of a layer with one head the identity."""
    for kernel in layer.weights:
        kernel.assign(np.eye(*kernel.shape))
    return layer


# --- the Keras contract


def test_the_contract_holds_every_layer_and_every_argument_of_its_call():
    # Fails if: a new layer, or a new tensor of an old layer, is not in the tables above.
    exported = {getattr(layers, name) for name in layers.__all__}
    classes = {each for each in exported if inspect.isclass(each)}
    assert classes == {layer_class for layer_class, *_ in LAYERS.values()}
    for name, (layer_class, _, inputs, _) in LAYERS.items():
        arguments = [each for each in inspect.signature(layer_class.call).parameters][1:]
        known = {*arguments[: len(inputs)], *SETTINGS}
        for given, masks, options in MASKS.get(name, []):
            known |= {*given, *options, *(mask for mask, _ in masks.values())}
        assert set(arguments) <= known, name


@every_layer
def test_config_holds_every_argument_and_makes_an_equal_layer(name):
    layer_class, arguments, inputs, _ = LAYERS[name]
    layer = layer_class(**arguments, name="mine")
    output = layer(*inputs)
    config = layer.get_config()
    for argument, value in arguments.items():
        assert config[argument] == value, argument
    named = inspect.signature(layer_class.__init__).parameters.values()
    missing = {p.name for p in named if p.kind is p.POSITIONAL_OR_KEYWORD} - {"self", *config}
    assert not missing

    saved = json.dumps(keras.saving.serialize_keras_object(layer))
    copy = keras.saving.deserialize_keras_object(json.loads(saved))
    assert type(copy) is layer_class and copy.get_config() == config
    copy(*inputs)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(copy(*inputs)), array(output))


# Fails if: a layer leaves its configuration to Keras, which then refuses the object.
@every_layer
def test_a_layer_with_a_policy_object_has_a_configuration(name):
    layer_class, arguments, *_ = LAYERS[name]
    layer = layer_class(**arguments, dtype=keras.DTypePolicy("mixed_bfloat16"))
    assert layer_class.from_config(layer.get_config()).compute_dtype == "bfloat16"


@every_layer
def test_symbolic_call_knows_its_shape_and_dtype(name):
    layer_class, arguments, inputs, width = LAYERS[name]
    length = inputs[0].shape[1] if name == "patches" else None
    symbols = [keras.Input((length, *x.shape[2:]), dtype=x.dtype.name) for x in inputs]
    output = layer_class(**arguments, dtype="mixed_bfloat16")(*symbols)
    assert output.shape[0] is None and output.shape[-1] == width
    assert len(output.shape) == (2 if name == "pooling" else 3)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"


@every_layer
def test_output_shape_is_known_before_the_call(name):
    layer_class, arguments, inputs, _ = LAYERS[name]
    layer = layer_class(**arguments)
    output = layer(*inputs)
    assert tuple(layer.compute_output_shape(*(x.shape for x in inputs))) == tuple(output.shape)
    unknown = [(None, *x.shape[1:]) for x in inputs]
    expected = (None, *output.shape[1:])
    assert tuple(layer.compute_output_shape(*unknown)) == expected
    symbols = [keras.Input(x.shape[1:], dtype=x.dtype.name) for x in inputs]
    assert layer(*symbols).shape == expected


# Fails if: compute_output_shape is missing; `call` depends on something that `__call__` does.
@pytest.mark.parametrize("name", [name for name in LAYERS if len(LAYERS[name][2]) == 1])
def test_time_distributed_applies_a_layer_to_each_of_many_sequences(name):
    layer_class, arguments, (x,), _ = LAYERS[name]
    layer = layer_class(**arguments)
    many = np.stack([x, x[::-1], x], axis=1)  # [B, 3, ...]
    output = array(keras.layers.TimeDistributed(layer)(many))
    for i in range(many.shape[1]):
        np.testing.assert_allclose(output[:, i], array(layer(many[:, i])), atol=1e-5)
    symbol = keras.Input((None, *x.shape[1:]), dtype=x.dtype.name)
    distributed = keras.layers.TimeDistributed(layer)(symbol)
    assert distributed.shape == (None, None, *output.shape[2:])


@every_layer
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_computes_low_keeps_weights_high_and_agrees_with_float32(name, dtype):
    layer_class, arguments, inputs, _ = LAYERS[name]
    layer, low = (layer_class(**arguments, dtype=d) for d in ("float32", f"mixed_{dtype}"))
    expected = array(layer(*inputs))
    low(*inputs)
    low.set_weights(layer.get_weights())
    output = low(*inputs)
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    assert {keras.backend.standardize_dtype(w.dtype) for w in low.weights} <= {"float32"}
    tolerance = 0.01 if dtype == "float16" else 0.08
    np.testing.assert_allclose(array(output), expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, "int8") for name in LAYERS] + [("feed_forward", "int4"), ("feed_forward", "float8")],
)
def test_quantised_in_a_users_model_a_layer_computes_nearly_the_same(name, mode):
    # Fails if: a layer multiplies the integers of a quantised kernel; a file forgets the mode.
    layer_class, arguments, inputs, _ = LAYERS[name]
    testing.assert_quantizes(
        layer_class(**arguments), list(inputs) if inputs[1:] else inputs[0], mode
    )


COMPOSITES = [name for name in LAYERS if issubclass(LAYERS[name][0], Composite)]


# Fails if: a layer has no `quantize` of its own, or leaves a matrix in it as it was.
@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, "int8") for name in COMPOSITES if name != "residual"]
    + [("attention", "int4"), ("embedding", "int4")],
)
def test_a_layer_alone_is_quantised_in_place(name, mode):
    layer_class, arguments, inputs, _ = LAYERS[name]
    layer = layer_class(**arguments)
    before = flat(layer(*inputs))
    layer.quantize(mode)
    integers = {w.path for w in layer.weights if "int" in keras.backend.standardize_dtype(w.dtype)}
    assert integers >= {w.path for w in layer.weights if w.name in ("kernel", "embeddings")} != {}
    error = np.sqrt(np.mean((flat(layer(*inputs)) - before) ** 2) / np.mean(before**2))
    assert 0 < error <= TOLERANCES[mode]


def flat(outputs):
    return np.concatenate([array(x).ravel() for x in keras.tree.flatten(outputs)])


# In version 0.1 the weights of these belonged to the layer itself.
OWNERS = (layers.MultiHeadAttention, layers.PositionalEmbedding, layers.PositionalEncoding)
OWNERS += (layers.PatchEmbedding,)


# Fails if: a layer whose weights belong to its parts does not know their old places.
@pytest.mark.parametrize("name", COMPOSITES)
def test_files_of_version_0_1_are_loaded(name, tmp_path):
    layer_class, arguments, inputs, _ = LAYERS[name]
    layer, other = layer_class(**arguments), layer_class(**arguments)
    models = [model_of(each, list(inputs) if inputs[1:] else inputs[0]) for each in (layer, other)]
    with pytest.MonkeyPatch.context() as patch:
        for owner in layer._flatten_layers():
            if isinstance(owner, OWNERS):
                patch.setattr(owner, "save_own_variables", functools.partial(save_all, owner))
                for part in owner._flatten_layers(include_self=False):
                    patch.setattr(part, "save_own_variables", lambda store: None)
        models[0].save_weights(tmp_path / "old.weights.h5")
    models[1].load_weights(tmp_path / "old.weights.h5")
    np.testing.assert_array_equal(flat(other(*inputs)), flat(layer(*inputs)))
    models[1].save_weights(tmp_path / "new.weights.h5")
    models[0].set_weights([0 * array(weight) for weight in models[0].weights])
    models[0].load_weights(tmp_path / "new.weights.h5")
    np.testing.assert_array_equal(flat(other(*inputs)), flat(layer(*inputs)))


def save_all(layer, store):
    for index, weight in enumerate(layer.weights):
        store[str(index)] = weight


def test_model_of_a_user_saves_and_loads_to_the_bit():
    block = {"d_model": D, "num_heads": 1, "d_ff": 29, "dropout": 0.1}
    source_ids = keras.Input((None,), dtype="int32")
    target_ids = keras.Input((None,), dtype="int32")
    embedding = layers.PositionalEmbedding(19, D, positions="learned", max_length=11)
    memory = layers.Encoder(num_layers=1, norm="pre", **block)(embedding(source_ids))
    memory = layers.EncoderLayer(**block)(memory)
    x = layers.DecoderLayer(**block, activation="gelu")(embedding(target_ids), memory)
    x = layers.Decoder(num_layers=1, **block)(x, memory)
    update = layers.MultiHeadAttention(D, 1, use_bias=True)(x, memory, causal=True)
    x = layers.Residual()(x, layers.FeedForward(D, 31)(update))
    model = keras.Model([source_ids, target_ids], embedding(x, reverse=True))
    testing.assert_saves_and_loads(model, [IDS[:, :4], IDS])


# Fails if: parts that are made later than the layer stay trainable.
@every_layer
@pytest.mark.parametrize("when", ["made", "before the call", "after it", "by its configuration"])
def test_a_frozen_layer_has_only_frozen_weights_in_a_users_model(name, when):
    layer_class, arguments, inputs, _ = LAYERS[name]
    layer = layer_class(**arguments, trainable=when != "made")
    if when == "before the call":
        layer.trainable = False
    if when in ("after it", "by its configuration"):
        layer(*inputs)
        layer.trainable = False
    if when == "by its configuration":
        layer = layer_class.from_config(layer.get_config())
    model = model_of(layer, inputs)
    assert not any(weight.trainable for weight in layer.weights)
    assert not model.trainable_weights
    layer.trainable = True
    assert len(model.trainable_weights) == len(layer.trainable_weights)


# Fails if: matrices become integers, which are 0, because the inputs are.
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "embedding"])
def test_integers_are_read_as_numbers(name):
    layer_class, arguments, inputs, _ = LAYERS[name]
    layer = layer_class(**arguments)
    numbers = [np.round(7 * x).astype("int32") for x in inputs]
    expected = layer(*(x.astype("float32") for x in numbers))
    np.testing.assert_allclose(array(layer(*numbers)), array(expected), atol=1e-5)


# --- masks


# Fails if: a second tensor makes Keras look for `inputs_mask`, and the layer has only `mask`.
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_a_tensor_carries_is_the_mask_that_is_passed(name):
    layer_class, arguments, _, _ = LAYERS[name]
    for given, masks, options in MASKS[name]:
        layer = layer_class(**arguments)
        testing.assert_honours_implicit_masks(layer, given, masks, options=options)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("pooling", "patches")])
def test_the_mask_of_the_first_tensor_is_handed_on(name):
    layer_class, arguments, inputs, _ = LAYERS[name]
    options = MASKS[name][-1][2] if name in MASKS else {}
    if name == "embedding":
        layer = layer_class(**{**arguments, "mask_zero": True})
        mask, output = inputs[0] != arguments["pad_id"], layer(*inputs)
    else:
        layer = layer_class(**arguments)
        mask, output = MASK, layer(masked(inputs[0], MASK), *inputs[1:], **options)
    pooling = layers.MeanPooling()
    np.testing.assert_array_equal(array(pooling(output)), array(pooling(output, mask=mask)))
    assert np.abs(array(pooling(output)) - array(pooling(1 * output))).max() > 1e-3


# Fails if: TensorFlow repeats the last row of a mask; 0 and -1e9 become False and True.
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_does_not_fit_is_an_error_and_floats_of_0_and_1_are_booleans(name):
    layer_class, arguments, _, _ = LAYERS[name]
    for given, masks, options in MASKS[name]:
        layer = layer_class(**arguments)
        named = {**dict(masks.values()), "attention_mask": options.get("attention_mask")}
        for argument, mask in named.items():
            if mask is None:
                continue
            expected = array(layer(**given, **{argument: mask}))
            for same in (mask.astype("float32"), mask.astype("int64")):
                found = array(layer(**given, **{argument: same}))
                np.testing.assert_array_equal(found, expected)
            with pytest.raises(ValueError, match="pass `mask == 0`"):
                layer(**given, **{argument: np.where(mask, 0.0, -1e9)})
            with pytest.raises(ValueError, match="shape"):
                layer(**given, **{argument: mask[:, :-1]})  # too few keys, or queries


@pytest.mark.parametrize(
    "shape", [(B, T), (T - 1, T), (B, T, T + 1), (B + 1, T, T), (B, 2, T, T), (B, 3, T - 2, T)]
)
def test_an_attention_mask_of_another_size_is_an_error_that_names_the_right_ones(shape):
    layer = layers.EncoderLayer(D, 3, 29, key_dim=11)
    message = r"\[T, S\] = \(5, 5\), \[B, T, S\] = \(2, 5, 5\) or .* is passed as `mask=`"
    with pytest.raises(ValueError, match=message):
        layer(X, attention_mask=np.ones(shape, bool))
    for fits in ((1, T), (T, 1), (1, T, T), (B, 1, 1, T)):  # a size of 1 is broadcast
        np.testing.assert_allclose(
            array(layer(X, attention_mask=np.ones(fits, bool))), array(layer(X)), atol=1e-6
        )


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch compiles nothing")
def test_floats_that_are_not_known_yet_are_no_mask():
    x, mask = keras.Input((T, D)), keras.Input((T,))
    with pytest.raises(ValueError, match="its values not known yet. Cast a mask"):
        layers.EncoderLayer(D, 1, 29)(x, mask=mask)
    mask = keras.ops.cast(mask, "bool")
    model = keras.Model([x, mask], layers.EncoderLayer(D, 1, 29)(x, mask=mask))
    assert model.predict([X, MASK], verbose=0).shape == X.shape


def test_implicit_mask_reaches_attention_and_pooling_in_a_users_model():
    ids = keras.Input((None,), dtype="int32")
    x = layers.PositionalEmbedding(19, D)(ids)
    x = layers.EncoderLayer(D, 1, 29)(x)
    x = layers.Encoder(1, d_model=D, num_heads=1, d_ff=29)(x)
    x = layers.Residual()(x, layers.FeedForward(D, 17)(layers.MultiHeadAttention(D, 1)(x)))
    model = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(x))
    padded = array(model(IDS))
    np.testing.assert_allclose(padded[:1], array(model(IDS[:1, :3])), atol=1e-5)


@pytest.mark.parametrize("stack", [False, True])
def test_implicit_masks_of_target_and_memory_reach_the_decoder(stack):
    source_ids = keras.Input((None,), dtype="int32")
    target_ids = keras.Input((None,), dtype="int32")
    embedding = layers.PositionalEmbedding(19, D)
    block = {"d_model": D, "num_heads": 1, "d_ff": 29}
    decoder = layers.Decoder(2, **block) if stack else layers.DecoderLayer(**block)
    x = decoder(embedding(target_ids), layers.EncoderLayer(**block)(embedding(source_ids)))
    model = keras.Model([source_ids, target_ids], keras.layers.GlobalAveragePooling1D()(x))
    padded = array(model([IDS, IDS[::-1]]))
    np.testing.assert_allclose(padded[:1], array(model([IDS[:1, :3], IDS[1:]])), atol=1e-5)
    np.testing.assert_allclose(padded[1:], array(model([IDS[1:], IDS[:1, :3]])), atol=1e-5)


def masked(x, mask):
    """Returns `x` with an implicit mask, made by a Keras layer (masked rows are 0)."""
    return keras.layers.Masking()(x * mask[..., None])


def test_attention_honours_the_implicit_mask_of_its_keys_and_an_explicit_one_wins():
    layer = layers.MultiHeadAttention(D, 1)
    plain = MEMORY * MEMORY_MASK[..., None]
    memory = masked(MEMORY, MEMORY_MASK)
    explicit = MEMORY_MASK[:, ::-1]
    implicit = array(layer(X, memory))
    np.testing.assert_allclose(implicit, array(layer(X, plain, key_mask=MEMORY_MASK)), atol=1e-6)
    np.testing.assert_allclose(
        array(layer(X, memory, key_mask=explicit)),
        array(layer(X, plain, key_mask=explicit)),
        atol=1e-6,
    )
    assert np.abs(implicit - array(layer(X, plain, key_mask=explicit))).max() > 1e-3
    # The query's own mask says nothing about keys.
    np.testing.assert_array_equal(
        array(layer(masked(X, MASK), plain))[1], array(layer(X, plain))[1]
    )


def test_self_attention_takes_an_explicit_key_mask_over_the_implicit():
    layer = layers.MultiHeadAttention(D, 1)
    plain, explicit = X * MASK[..., None], np.array([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]], bool)
    for arguments, key_mask in (({}, MASK), ({"key_mask": explicit}, explicit)):
        np.testing.assert_allclose(
            array(layer(masked(X, MASK), **arguments)),
            array(layer(plain, key_mask=key_mask)),
            atol=1e-6,
        )


def test_layers_take_explicit_masks_over_the_implicit():
    everything = np.ones((B, S), bool)
    encoder, decoder = layers.EncoderLayer(D, 1, 29), layers.DecoderLayer(D, 1, 29)
    memory = MEMORY * MEMORY_MASK[..., None]
    np.testing.assert_allclose(
        array(encoder(masked(MEMORY, MEMORY_MASK), mask=everything)),
        array(encoder(memory)),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        array(decoder(X, masked(MEMORY, MEMORY_MASK), memory_mask=everything)),
        array(decoder(X, memory)),
        atol=1e-6,
    )
    assert np.abs(array(encoder(masked(MEMORY, MEMORY_MASK)) - encoder(memory))).max() > 1e-3


def test_attention_mask_is_combined_with_the_key_mask():
    pairs = np.tri(T, dtype=bool)
    layer = layers.EncoderLayer(D, 1, 29)
    np.testing.assert_allclose(
        array(layer(X, attention_mask=pairs, mask=MASK)),
        array(layer(X, attention_mask=pairs[None] & MASK[:, None])),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        array(layer(X, attention_mask=pairs)), array(layer(X, causal=True)), atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_row_without_any_key_is_finite_and_the_others_do_not_notice(dtype):
    layer = layers.MultiHeadAttention(D, 1, dtype=dtype)
    key_mask = np.array([[False] * S, [True] * S])
    output, weights = layer(X, MEMORY, key_mask=key_mask, return_attention_weights=True)
    assert np.isfinite(array(output)).all()
    np.testing.assert_allclose(array(weights).sum(-1), 1.0, atol=0.02)
    np.testing.assert_array_equal(array(output)[1], array(layer(X, MEMORY))[1])


@pytest.mark.parametrize("mask_zero", [True, False])
def test_embedding_masks_padding_only_if_asked(mask_zero):
    layer = layers.PositionalEmbedding(19, D, mask_zero=mask_zero)
    padding = array(layer(IDS))[IDS == 0]
    assert (padding == 0).all() == mask_zero
    mask = layer.compute_mask(ops.convert_to_tensor(IDS))
    if mask_zero:
        np.testing.assert_array_equal(ops.convert_to_numpy(mask), IDS != 0)
    else:
        assert mask is None


def test_embedding_masks_another_pad_id():
    layer = layers.PositionalEmbedding(19, D, pad_id=8, positions=None)
    zeros = (array(layer(IDS)) == 0).all(-1)
    np.testing.assert_array_equal(zeros, IDS == 8)


# --- ids and vectors


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "uint32", "int8", "int64", "float16", "float32", "float64"]
)
def test_embedding_takes_ids_of_every_dtype_and_masks_their_padding(dtype):
    layer, pooling = layers.PositionalEmbedding(19, D), layers.MeanPooling()
    x = layer(IDS.astype(dtype))
    np.testing.assert_array_equal(array(x), array(layer(IDS)))
    np.testing.assert_array_equal(array(pooling(x)), array(pooling(layer(IDS))))
    assert np.abs(array(pooling(x)) - array(x).mean(axis=1)).max() > 1e-3
    # Turning outputs into logits keeps the mask.
    logits = layer(x, reverse=True)
    expected = array(pooling(logits, mask=IDS != 0))
    np.testing.assert_array_equal(array(pooling(logits)), expected)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_embedding_reads_ids_where_nobody_says_a_dtype(policy):
    layer, pooling = layers.PositionalEmbedding(300, D, dtype=policy), layers.MeanPooling()
    ids = np.where(IDS, IDS + 280, 0)  # bfloat16 would round these ids
    expected = array(pooling(layer(ids)))
    symbol = keras.Input((T,))  # floats
    model = keras.Model(symbol, pooling(layer(symbol)))
    for given in (ids, ids.astype("float32")):
        np.testing.assert_allclose(array(model.predict(given, verbose=0)), expected, atol=1e-6)
    if policy == "float32":
        model = keras.Sequential([layer, pooling, keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        model.fit(ids, np.zeros((B, 2)), verbose=0)
        expected = array(model.layers[-1](pooling(layer(ids))))
        np.testing.assert_allclose(model.predict(ids, verbose=0), expected, atol=1e-6)


@keras.saving.register_keras_serializable(package="test_layers")
class _Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = layers.PositionalEmbedding(300, D)
        self.block = layers.EncoderLayer(D, 1, 29)

    def call(self, token_ids):
        return self.block(self.embedding(token_ids))


# Fails if: a layer cannot be called with symbols of floats, with which Keras builds loaded models.
def test_a_subclassed_model_loads_its_own_weights(tmp_path):
    model = _Subclassed()
    expected = array(model(IDS))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded(IDS)), expected)


def test_ids_that_are_rounded_are_warned_of():
    layer = layers.PositionalEmbedding(300, D)
    with pytest.warns(UserWarning, match="ids are bfloat16, which rounds whole numbers above 256"):
        layer(ops.cast(IDS, "bfloat16"))


def test_images_of_bytes_are_read_as_numbers():
    # Fails if: the kernel is cast to the image's type (bytes), which turns it into zeros.
    layer = layers.PatchEmbedding(3, D)
    pixels = RANDOM.integers(0, 255, IMAGES.shape).astype("uint8")
    np.testing.assert_allclose(array(layer(pixels)), array(layer(pixels.astype("float32"))))


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_encoding_adds_the_positions_of_the_embedding_to_vectors(positions):
    length = 11 if positions == "learned" else None
    embedding = layers.PositionalEmbedding(19, D, positions, length, mask_zero=False)
    plain = layers.PositionalEmbedding(19, D, positions=None, mask_zero=False)
    encoding = layers.PositionalEncoding(positions, length)
    embedding(IDS), plain(IDS), encoding(X)
    assert [weight.shape for weight in encoding.weights] == [(11, D)] * (positions == "learned")
    plain.set_weights(embedding.get_weights()[:1])
    encoding.set_weights(embedding.get_weights()[1:])
    for index in (0, 3, ops.convert_to_tensor(3)):
        expected = array(embedding(IDS, index=index))
        np.testing.assert_allclose(array(encoding(plain(IDS), index=index)), expected, atol=1e-5)
    # Steps one at a time equal the whole.
    steps = [array(encoding(X[:, t : t + 1], index=t)) for t in range(T)]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), array(encoding(X)), atol=1e-6)


def test_encoding_drops_entries_of_the_sum_and_reads_integers_as_numbers():
    layer = layers.PositionalEncoding(dropout=0.5)
    whole, output = array(layer(X)), array(layer(X, training=True))
    assert ((output == 0) | np.isclose(output, 2 * whole, atol=1e-5)).all()
    assert 0.2 < (output == 0).mean() < 0.8
    steps = RANDOM.integers(-9, 9, X.shape)
    np.testing.assert_array_equal(array(layer(steps)), array(layer(steps.astype("float32"))))


def test_files_of_embeddings_keep_their_names_and_order():
    # Files of earlier versions are read by these names.
    layer = layers.PositionalEmbedding(19, D, positions="learned", max_length=11)
    layer.build((None, None))
    assert [weight.name for weight in layer.weights] == ["embeddings", "embeddings"]


# Fails if: an embedding begins with Keras' own distribution.
def test_embeddings_begin_with_the_variance_that_makes_tied_logits_of_variance_1():
    d_model = 64
    embedding = layers.PositionalEmbedding(900, d_model, positions="learned", max_length=900)
    patches = layers.PatchEmbedding(1, d_model)
    embedding.build((None, None))
    patches.build((None, 30, 30, 1))
    for part in (embedding.token, embedding.position, patches.position):
        values = array(part.embeddings)
        assert abs(values.mean()) < 0.01 and abs(values.std() * d_model**0.5 - 1) < 0.02


# --- the attention weights of a stack


STACK = {"num_layers": 2, **BLOCK}


# Fails if: the weights are those of other layers; the final norm is left out.
def test_a_stack_returns_the_weights_of_each_of_its_layers():
    encoder, decoder = layers.Encoder(**STACK), layers.Decoder(**STACK)
    x, given = X, {"mask": MASK, "causal": True}
    output, weights = encoder(x, **given, return_attention_weights=True)
    np.testing.assert_allclose(array(output), array(encoder(x, **given)), atol=1e-5)
    for layer, found in zip(encoder.layers, weights, strict=True):
        x, expected = layer(x, **given, return_attention_weights=True)
        np.testing.assert_allclose(array(found), array(expected), atol=1e-6)
        np.testing.assert_allclose(array(found).sum(-1), 1.0, atol=1e-5)
        assert (array(found)[0, :, :, 3:] == 0).all()  # these keys are padding
    np.testing.assert_allclose(array(output), array(encoder.final_norm(x)), atol=1e-5)

    x, given = X, {"inputs_mask": MASK, "memory_mask": MEMORY_MASK}
    output, own, cross = decoder(x, MEMORY, **given, return_attention_weights=True)
    np.testing.assert_allclose(array(output), array(decoder(x, MEMORY, **given)), atol=1e-5)
    for layer, *found in zip(decoder.layers, own, cross, strict=True):
        x, *expected = layer(x, MEMORY, **given, return_attention_weights=True)
        for some, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(array(some), array(other), atol=1e-6)
    assert array(own[0]).shape == (B, 3, T, T) and array(cross[0]).shape == (B, 3, T, S)


# Fails if: beams and sources, or beams and positions, are swapped.
@pytest.mark.parametrize("chunk", [1, 2])
def test_weights_come_with_a_cache_too(chunk):
    encoder, decoder = layers.Encoder(**STACK), layers.Decoder(**STACK)
    beams = 3  # per source; all beams of a source are equal here
    x = np.repeat(X, beams, axis=0)
    _, expected = encoder(X, causal=True, return_attention_weights=True)
    _, own, cross = decoder(X, MEMORY, memory_mask=MEMORY_MASK, return_attention_weights=True)
    caches = [encoder.start_cache(B, T), decoder.start_cache(MEMORY, T, beams)]
    given = {"memory_mask": MEMORY_MASK, "return_attention_weights": True}
    for t in range(0, T, chunk):
        newest = slice(t, t + chunk)
        _, found, caches[0] = encoder(
            X[:, newest], cache=caches[0], index=t, return_attention_weights=True
        )
        _, *both, caches[1] = decoder(x[:, newest], cache=caches[1], index=t, **given)
        for i in range(2):
            new = array(expected[i])[:, :, newest]
            np.testing.assert_allclose(array(found[i]), new, atol=1e-5)
            for some, whole in zip(both, (own, cross), strict=True):
                new = np.repeat(array(whole[i])[:, :, newest], beams, axis=0)
                np.testing.assert_allclose(array(some[i]), new, atol=1e-5)


# --- dropout


def test_residual_drops_the_update_and_never_the_input():
    output = array(layers.Residual(norm="pre", dropout=0.5)(X, X[:, ::-1], training=True))
    dropped, kept = np.isclose(output, X), np.isclose(output, X + 2 * X[:, ::-1], atol=1e-5)
    assert (dropped | kept).all()
    assert 0.2 < dropped.mean() < 0.8


def test_embedding_drops_entries_of_the_sum():
    layer = layers.PositionalEmbedding(19, D, dropout=0.5)
    whole, output = array(layer(IDS)), array(layer(IDS, training=True))
    dropped, kept = output == 0, np.isclose(output, 2 * whole, atol=1e-5)
    assert (dropped | kept).all()
    assert 0.2 < dropped[IDS != 0].mean() < 0.8


def test_attention_dropout_drops_weights_of_the_mixture_not_those_returned():
    layer = layers.MultiHeadAttention(D, 1, dropout=0.5)
    whole, weights = layer(X, return_attention_weights=True)
    output, returned = layer(X, return_attention_weights=True, training=True)
    np.testing.assert_allclose(array(returned), array(weights), atol=1e-6)
    assert np.abs(array(output) - array(whole)).max() > 1e-3
    silent = layers.EncoderLayer(D, 1, 29, dropout=0.0, attention_dropout=0.5)
    assert np.abs(array(silent(X, training=True)) - array(silent(X))).max() > 1e-3


@pytest.mark.parametrize("layer_class", [layers.EncoderLayer, layers.DecoderLayer])
def test_blocks_drop_nothing_else(layer_class):
    # The paper drops the sub-layers' outputs (section 5.4), but no attention weights and nothing
    # inside the feed-forward network.
    layer = layer_class(D, 1, 29, dropout=0.0)
    inputs = (X,) if layer_class is layers.EncoderLayer else (X, MEMORY)
    np.testing.assert_array_equal(array(layer(*inputs, training=True)), array(layer(*inputs)))


# --- precision


def test_float16_attention_survives_large_scores():
    # q.k is 25 * 64^2 = 102,400, beyond float16's 65,504; divided by sqrt(25) it fits.
    query = np.full((1, 2, 25), 64.0)
    key = np.stack([np.full((1, 25), 64.0), np.full((1, 25), 63.0), np.full((1, 25), -64.0)], 1)
    outputs = []
    for dtype in ("float32", "mixed_float16"):
        layer = layers.MultiHeadAttention(25, 1, dtype=dtype)
        layer.build(query.shape, key.shape)
        outputs.append(array(eye(layer)(query, key, key_mask=np.array([[True, True, False]]))))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-3)
    np.testing.assert_allclose(outputs[0], query, rtol=1e-3)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_float16_normalisation_survives_large_values(norm):
    # The squares, about 10^6, are beyond float16.
    x = 1000 * X
    outputs = []
    for dtype in ("float32", "mixed_float16"):
        join = layers.Residual(norm=norm, dtype=dtype)
        join.build(x.shape)
        x_low = ops.cast(x, join.compute_dtype)
        outputs.append(array(join.prepare(x_low) if norm == "pre" else join(x_low, x_low)))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=5e-3)


# --- errors


def decode_beyond_the_cache():
    layer = layers.EncoderLayer(D, 1, 29)
    layer(X)
    layer(X[:, :2], cache=layer.start_cache(B, 3), index=2)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.MultiHeadAttention(D, 5), "d_model=13 does not divide into num_heads=5"),
        (lambda: layers.MultiHeadAttention(D, 0), "at least 1, got num_heads=0"),
        (lambda: layers.EncoderLayer(D, 1, 29, norm="mid"), "'post' .* or 'pre', got 'mid'"),
        (lambda: layers.EncoderLayer(D, 1, 29)(X[..., :11]), "d_model=13, got shape .2, 5, 11."),
        (lambda: layers.DecoderLayer(D, 1, 29)(X[..., :11], MEMORY), "d_model=13, got shape"),
        (lambda: layers.DecoderLayer(D, 1, 29)(X), "memory .B, S, D. is missing.* causal=True"),
        (lambda: layers.Decoder(1, d_model=D, num_heads=1, d_ff=29)(X), "memory .* is missing"),
        (lambda: layers.DecoderLayer(D, 1, 29).start_cache(MEMORY, 3), "no weights yet"),
        (lambda: decode_beyond_the_cache(), "cache of 3 positions has no room for 2 from .* 2 on"),
        (lambda: layers.Encoder(0, d_model=D, num_heads=1, d_ff=29), "got num_layers=0"),
        (lambda: layers.PositionalEmbedding(19, D, positions="rotary"), "got 'rotary'"),
        (lambda: layers.PositionalEmbedding(19, D, positions="learned"), "need max_length"),
        (lambda: layers.PositionalEmbedding(19, D)(X), "shape .2, 5, 13.* PositionalEncoding"),
        (lambda: layers.PositionalEmbedding(19, D)(keras.Input((T, D))), "PositionalEncoding"),
        (lambda: layers.PositionalEmbedding(19, D)(X[0], reverse=True), "takes vectors"),
        (lambda: layers.PositionalEncoding("rotary"), "got 'rotary'"),
        (lambda: layers.PositionalEncoding("learned"), "need max_length"),
        (lambda: layers.PositionalEncoding()(IDS), "shape .2, 5.* PositionalEmbedding"),
        (
            lambda: layers.PositionalEncoding("learned", 4)(keras.Input((T, D))),
            "longer than the max_length=4",
        ),
        (
            lambda: layers.PositionalEmbedding(19, D, positions="learned", max_length=4)(IDS),
            "5 tokens is longer than the max_length=4",
        ),
        (
            lambda: layers.PositionalEmbedding(19, D, positions="learned", max_length=7)(
                IDS, index=3
            ),
            "8 tokens is longer than the max_length=7",
        ),
        (
            lambda: layers.MultiHeadAttention(D, 1)(X, attention_mask=np.ones((1, 1, 1, T, T))),
            "got rank 5",
        ),
        (lambda: layers.MultiHeadAttention(D, 1)(X, key_mask=np.ones((B, T, T))), "got rank 3"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_was_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", [int, np.int32, np.int64])
def test_an_index_is_an_integer_of_any_kind(dtype):
    layer = layers.EncoderLayer(D, 1, 29)
    expected, cache = array(layer(X, causal=True)), layer.start_cache(B, T)
    embedding = layers.PositionalEmbedding(19, D, positions="learned", max_length=T)
    for t in range(T):
        x, cache = layer(X[:, t : t + 1], cache=cache, index=dtype(t))
        np.testing.assert_allclose(array(x)[:, 0], expected[:, t], atol=1e-5)
        vectors = embedding(IDS[:, t : t + 1], index=dtype(t))
        np.testing.assert_allclose(array(vectors)[:, 0], array(embedding(IDS))[:, t], atol=1e-5)


# Fails if: a cache whose length is known only at run time is written out of order.
@pytest.mark.tensorflow_only
def test_a_cache_of_a_length_known_later_is_that_of_a_length_known_now():
    import tensorflow as tf

    attention = layers.MultiHeadAttention(num_heads=3, d_model=D, key_dim=11, value_dim=17)
    attention(X)
    cache = [RANDOM.normal(size=(B, 3, *size)).astype("float32") for size in ((11, S), (S, 17))]

    def attend(x, keys, values, index):
        y, cache = attention(x, cache=(keys, values), index=index)
        return y, *cache

    dynamic = [tf.TensorSpec([None, 3, *size]) for size in ((11, None), (None, 17))]
    signature = [tf.TensorSpec([None, None, D]), *dynamic, tf.TensorSpec([], tf.int32)]
    exported = tf.function(attend, input_signature=signature, autograph=False)
    for length, index in ((1, 0), (1, 4), (T, 0), (T, S - T)):
        expected = attend(X[:, :length], *cache, index)
        for value, other in zip(exported(X[:, :length], *cache, index), expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5)
    graph = exported.get_concrete_function().graph.as_graph_def()
    assert not [node.op for node in graph.node if node.op.startswith("Xla")]
