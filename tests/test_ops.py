"""Every fast way in ops/ gives what its plain definition gives: one table, one test.

What a comparison cannot show is in other files: the memory of attention, what is read of a cache.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops, tree

from keras_transformer.layers import Decoder
from keras_transformer.ops import (
    attention_in_blocks,
    crossentropy,
    draw,
    normalize,
    products,
    random_bits,
    top_k,
    updates,
)
from keras_transformer.ops.attention import attend, attention
from keras_transformer.ops.attention_fused import attend_fused
from keras_transformer.ops.attention_to_cache import attend_to_cache, write
from keras_transformer.ops.beams import of_sequences
from keras_transformer.ops.compilation import compile_with_weights
from keras_transformer.ops.masks import Masks, causal_mask, combine_masks
from keras_transformer.ops.search_loop import plain_search_loop, search_loop

RANDOM = np.random.default_rng(11)
BACKEND = keras.backend.backend()
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}  # of the highest number


class Way(NamedTuple):
    """A fast function and its plain definition, both of the same tensors."""

    fast: Callable
    plain: Callable
    inputs: list  # arrays, or shapes of arrays of random numbers
    trained: bool = True  # whether gradients are compared too
    compiled: tuple = ("float32",)  # the dtypes in which it is compared compiled too
    dtypes: tuple = tuple(TOLERANCE)
    backends: tuple = ("tensorflow", "jax", "torch")
    tolerance: float = 0.0  # beside that of the dtype


WAYS = {}

# Products. 514 does not divide into parts; 7 x 11 is small.
for rows, inner, outer in ((1, 512, 300), (3, 512, 300), (1, 514, 300), (1, 7, 11)):
    shapes = [(rows, inner), (inner, outer), (outer,)]
    name = f"dense {rows} x {inner} x {outer}"
    WAYS[name] = Way(products.dense, products.plain_dense, shapes)
    WAYS[f"{name} without bias"] = Way(products.dense, products.plain_dense, shapes[:2])


def each_of(weights):
    """Stand-ins for three linear layers, whose weights are tensors: kernels, then biases."""
    biases = weights[3:] or [None] * 3
    return [
        SimpleNamespace(
            kernel=kernel,
            bias=bias,
            units=kernel.shape[1],
            quantization_mode=None,
            compute_dtype=keras.backend.standardize_dtype(kernel.dtype),
        )
        for kernel, bias in zip(weights[:3], biases, strict=True)
    ]


SHAPES = [(4, 6), *((6, width) for width in (5, 7, 11)), (5,), (7,), (11,)]
for name, shapes in (("", SHAPES), (" without biases", SHAPES[:4])):
    WAYS[f"apply_each{name}"] = Way(
        lambda x, *weights: products.apply_each(each_of(weights), x),
        lambda x, *weights: [
            products.plain_dense(x, layer.kernel, layer.bias) for layer in each_of(weights)
        ],
        shapes,
    )
# Keras' layers: as they are, with LoRA's matrices, and quantised.
for kind in ("", " with LoRA", " in int8"):
    dense, linear = (
        keras.layers.Dense(300, activation=activation, bias_initializer="random_normal")
        for activation in ("tanh", None)
    )
    embedding = keras.layers.ReversibleEmbedding(52, 8)
    for layer in (dense, linear, embedding):
        layer.build((None, 512))
        if "LoRA" in kind:
            layer.enable_lora(2, b_initializer="random_normal")
        if "int8" in kind:
            layer.quantize("int8")
    same = {"dtypes": ("float32",), "trained": "int8" not in kind}
    WAYS[f"apply_dense{kind}"] = Way(
        lambda x, dense=dense: products.apply_dense(dense, x), dense, [(1, 512)], **same
    )
    WAYS[f"apply_each of layers{kind}"] = Way(
        lambda x, linear=linear: products.apply_each([linear, linear], x),
        lambda x, linear=linear: [linear(x), linear(x)],
        [(4, 512)],
        **same,
    )
    WAYS[f"look_up{kind}"] = Way(
        lambda ids, embedding=embedding: products.look_up(embedding, ops.cast(ids, "int32")),
        lambda ids, embedding=embedding: embedding(ops.cast(ids, "int32")),
        [np.array([[3, 51, 0]])],
        **same | {"trained": False},
    )
    WAYS[f"apply_reversed{kind}"] = Way(
        lambda x, embedding=embedding: products.apply_reversed(embedding, x),
        lambda x, embedding=embedding: embedding(x, reverse=True),
        [(3, 1, 8)],
        **same,
    )
# Rows times positions: few enough for a sum of products, and more.
for batch, length in ((1, 1), (1, 4), (2, 3), (3, 5)):
    WAYS[f"batched {batch} x {length}"] = Way(
        products.batched, ops.matmul, [(batch, 2, length, 7), (batch, 2, 7, 11)]
    )
for batch, length, size in ((1, 1, 52), (3, 1, 52), (8, 1, 52), (9, 1, 52), (3, 1, 53), (3, 2, 52)):
    WAYS[f"logits {batch} x {length} x {size}"] = Way(
        products.logits, products.plain_logits, [(batch, length, 6), (size, 6)]
    )

# Cross-entropy, also where a probability underflows.
LABELS = RANDOM.integers(0, 7, (3, 5)).astype("int32")
for scale in (1, 100):
    logits = RANDOM.normal(scale=scale, size=(3, 5, 7))
    for eps in (0.0, 0.1):
        WAYS[f"smoothed_token_nats {scale} {eps}"] = Way(
            lambda logits, eps=eps: crossentropy.smoothed_token_nats(LABELS, logits, eps),
            lambda logits, eps=eps: crossentropy.plain_token_nats(LABELS, logits, eps),
            [logits],
            compiled=("float32", "bfloat16"),
        )
    WAYS[f"token_nats {scale}"] = Way(
        lambda logits: crossentropy.token_nats(LABELS, logits),
        lambda logits: crossentropy.plain_token_nats(LABELS, logits),
        [logits],
        trained=False,
    )

for training in (False, True):
    WAYS[f"normalize {'in training' if training else ''}"] = Way(
        lambda x, gamma, beta, t=training: normalize.normalize(x, gamma, beta, 1e-3, t),
        lambda x, gamma, beta: normalize.plain_normalize(x, gamma, beta, 1e-3),
        [3 + RANDOM.normal(size=(2, 7, 13)), 1 + 0.5 * RANDOM.normal(size=13), (13,)],
        compiled=("float32", "bfloat16"),
    )

# Attention of 7 queries to 13 keys, or to itself if causal.
B, H, T, S, K, V = 2, 3, 7, 13, 5, 4
SCALE = K**-0.5


def mask(*shape):
    permitted = RANDOM.random(shape) < 0.6
    permitted[..., 0] = True
    return permitted


def blocks(q, k, v, key_mask, attention_mask, causal):
    with (
        mock.patch.object(attention_in_blocks, "ROWS", 3),
        mock.patch.object(attention_in_blocks, "ONE_PIECE", 0),
    ):
        masks = ops.convert_to_tensor(key_mask), ops.convert_to_tensor(attention_mask)
        return attention_in_blocks.attend_in_blocks(q * SCALE, k, v, *masks, causal, 0.0, None)


def fused(q, k, v, *masks):
    return attend_fused(q * SCALE, k, v, *masks)


def in_training(q, k, v, *masks):
    return attend(q, k, v, Masks(*masks), training=True)[0]


def formula(q, k, v, key_mask, attention_mask, causal):
    causal = causal_mask(q.shape[2], k.shape[2]) if causal else None
    return attention(q, k, v, combine_masks(key_mask, attention_mask, causal))[0]


def with_more(function, *more):
    return lambda *tensors: function(*tensors, *more)


for causal in (False, True):
    keys, width = (T, K) if causal else (S, V)
    shapes = [(B, H, T, K), (B, H, keys, K), (B, H, keys, width)]
    for given, masks in {
        "no mask": (None, None),
        "keys": (mask(B, keys), None),
        "pairs": (None, mask(B, 1, T, keys)),
        "both": (mask(B, keys), mask(B, H, T, keys)),
    }.items():
        masks = (*masks, causal)
        plain = with_more(formula, *masks)
        name = f"{given}{', causal' if causal else ''}"
        WAYS[f"attend in training, {name}"] = Way(with_more(in_training, *masks), plain, shapes)
        if masks[0] is not None and masks[1] is not None:
            way = with_more(blocks, *masks)
            WAYS[f"in blocks, {name}"] = Way(way, plain, shapes, backends=("tensorflow",))
        if causal:  # fused kernels are for heads of one width
            WAYS[f"fused, {name}"] = Way(with_more(fused, *masks), plain, shapes)


def to_cache(q, k, v, permitted, index):
    return attend_to_cache(q * SCALE, k, v, permitted, index)


def cache_formula(q, k, v, permitted):
    return attention(q, ops.transpose(k, (0, 1, 3, 2)), v, permitted)[0]


# To a cache of 40 positions in which the newest positions begin at 3 or 23.
for new, index in ((1, 3), (1, 23), (3, 23)):
    seen = np.arange(40)[None] <= np.arange(new)[:, None] + index
    WAYS[f"to a cache, {new} from {index}"] = Way(
        with_more(to_cache, seen, index),
        with_more(cache_formula, seen),
        [(B, H, new, K), (B, H, K, 40), (B, H, 40, V)],
        trained=False,
    )


def plain_write(cache, new):
    positions = ops.arange(cache.shape[3])
    new = ops.take(new, ops.clip(positions - 4, 0, new.shape[3] - 1), axis=3)
    return ops.where(ops.logical_and(positions >= 4, positions < 6), new, cache)


WAYS["write"] = Way(
    lambda cache, new: write(cache, new, 4, axis=3),
    plain_write,
    [(B, H, K, 9), (B, H, K, 2)],
    trained=False,
)


# The highest of scores with equal ones: 125 x 11 and 128 x 9 divide into parts, 13 and 2003 do not.
def stable(scores, k):
    scores = ops.convert_to_numpy(ops.cast(scores, "float32"))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype("int32")
    return np.take_along_axis(scores, order, axis=1), order


for size in (125 * 11, 128 * 9, 13, 2003):
    scores = RANDOM.integers(0, min(size // 3, 200), (5, size)).astype("float32")
    scores[1] = 4.0
    scores[2, [3, size // 2, size // 2 + 1]] = 250, 251, 250
    WAYS[f"top_k {size}"] = Way(
        lambda scores: top_k.top_k(scores, 4),
        lambda scores: stable(scores, 4),
        [scores],
        trained=False,
        backends=("tensorflow", "jax"),  # torch gives equal scores in any order
    )
    WAYS[f"top_k {size} of distinct scores"] = Way(
        lambda scores: top_k.top_k(scores, 4),
        lambda scores: top_k.plain_top_k(scores, 4),
        [RANDOM.permuted(np.tile(np.arange(size) / size, (5, 1)), axis=1)],
        trained=False,
        dtypes=("float32",),
    )
    WAYS[f"highest {size}"] = Way(
        top_k.highest,
        lambda scores: [each[:, 0] for each in stable(scores, 1)],
        [scores],
        trained=False,
    )
WAYS["highest as plain"] = Way(top_k.highest, top_k.plain_highest, [scores], trained=False)


# Shares and numbers whose sums and products are exact, so that the same ids are drawn. 1,300 fill
# eleven parts, and 300 not even three.
def drawn(shares, numbers):
    reached = np.cumsum(ops.convert_to_numpy(ops.cast(shares, "float32")), axis=1)
    amounts = ops.convert_to_numpy(ops.cast(numbers, "float32")) * reached[:, -1]
    pairs = zip(reached, amounts, strict=True)
    return np.array([np.searchsorted(*pair, side="right") for pair in pairs], "int32")


def likeliest(shares, p):
    """The shares that are kept are given as 1, and the others as 0."""
    shares = ops.convert_to_numpy(shares).astype("float64")
    found = np.zeros(shares.shape, "float32")
    for row, places in enumerate(np.argsort(-shares, axis=1, kind="stable")):
        count = np.sum(np.cumsum(shares[row, places]) < p) + 1
        found[row] = shares[row] >= shares[row, places[min(count, len(places)) - 1]]
    return found


for size in (1, 300, 1300):
    shares = RANDOM.integers(0, 3, (64, size)).astype("float32")
    shares[:, RANDOM.integers(size)] = 1
    shares[0], shares[1] = 1, np.eye(size, dtype="float32")[size // 2]
    numbers = np.append(np.arange(62) / 64, [0, 127 / 128]).astype("float32")
    for name, way in (("draw", draw.draw), ("plain_draw", draw.plain_draw)):
        WAYS[f"{name} {size}"] = Way(
            way, drawn, [shares, numbers], trained=False, dtypes=("float32",)
        )
    probable = RANDOM.exponential(1.0, (5, size)) ** 4
    probable[1] = 1  # equal ones stay together
    probable = (probable / probable.sum(axis=1, keepdims=True)).astype("float32")
    for p in (1e-6, 0.3, 0.99):
        for name, way in (("nucleus", draw.nucleus), ("plain_nucleus", draw.plain_nucleus)):
            WAYS[f"{name} {size} {p}"] = Way(
                lambda shares, way=way, p=p: ops.cast(way(shares, p), "float32"),
                lambda shares, p=p: likeliest(shares, p),
                [probable],
                trained=False,
                dtypes=("float32",),
            )


# Fails if: rounding leads past the last share, to an id that may not be drawn.
@pytest.mark.parametrize("way", [draw.draw, draw.plain_draw])
def test_an_id_without_a_share_is_never_drawn(way):
    rng = np.random.default_rng(3)
    shares = rng.exponential(1.0, (512, 1300)) * (rng.random((512, 1300)) < 0.1)
    shares[:, 700:] = 0
    shares[:, 0] = 1
    numbers = np.where(rng.random(512) < 0.5, 1 - 2.0**-24, rng.random(512))
    for compiled in (way, compile_with_weights(way, Decoder(1, d_model=2, num_heads=1, d_ff=2))):
        tensors = (ops.convert_to_tensor(each, "float32") for each in (shares, numbers))
        found = ops.convert_to_numpy(compiled(*tensors))
        assert np.all(np.take_along_axis(shares, found[:, None], axis=1) > 0)


# Fails if: no place is found for what equals nothing; PyTorch looks up no id beyond the last.
def test_the_place_of_what_is_not_a_number_is_one_of_the_places():
    scores = ops.convert_to_tensor([[1.0, 2.0, float("nan")], [float("nan")] * 3])
    assert np.all(ops.convert_to_numpy(top_k.highest(scores)[1]) < 3)


def statistics(dropout, rate):
    """How many are dropped: of all, of every second, with their neighbour; and what is kept."""

    def of_ones():
        ones = ops.ones((7, 11, 1301))
        found = ops.convert_to_numpy(dropout(ones, rate, keras.random.SeedGenerator(1)))
        zeros = found.reshape(-1) == 0
        return zeros.mean(), zeros[::2].mean(), (zeros[1:] & zeros[:-1]).mean(), found.max()

    return of_ones


for rate in (0.1, 0.3, 0.75):
    WAYS[f"dropout {rate}"] = Way(
        statistics(random_bits.dropout, rate),
        statistics(random_bits.plain_dropout, rate),
        [],
        trained=False,
        compiled=(),
        dtypes=("float32",),
        tolerance=0.01,  # about 5 deviations of a difference
    )


def beams_step_by_step(shared):
    """The outputs of a decoder whose 3 beams move after every step, by one cache or by copies."""
    random = np.random.default_rng(2)
    decoder = Decoder(2, d_model=6, num_heads=2, d_ff=5)
    memory = random.normal(size=(2, 4, 6)).astype("float32")
    decoder(memory, memory)
    decoder.set_weights([random.normal(size=w.shape) for w in decoder.weights])
    if not shared:
        memory = np.repeat(memory, 3, axis=0)

    def steps(memory):
        cache, outputs = decoder.start_cache(memory, 6, beam_size=3 if shared else 1), []
        for index, new in ((0, 1), (1, 2), (3, 1), (4, 2)):
            x = random.normal(size=(6, new, 6)).astype("float32")
            given = {"cache": cache, "index": index, "return_attention_weights": True}
            y, own, cross, cache = decoder(x, **given)
            # Keys that a hypothesis has not written yet have weight 0.
            outputs += [y, *cross, *(layer[..., : index + new] for layer in own)]
            moves = random.integers(0, 3, (2, 3)) + np.array([[0], [3]])
            cache = of_sequences(cache, ops.convert_to_tensor(moves.reshape(-1), "int32"))
        return outputs

    if BACKEND == "jax":  # eagerly it would compile every operation by itself
        steps = compile_with_weights(steps, decoder)
    return steps(memory)


WAYS["beams that share a cache"] = Way(
    lambda: beams_step_by_step(True),
    lambda: beams_step_by_step(False),
    [],
    trained=False,
    compiled=(),
    dtypes=("float32",),
)


class State(NamedTuple):
    index: object
    sums: object
    done: object
    cache: object


def counted(loop):
    """Row r adds up its own cache until step r: the sums, and who was done within 5 steps."""

    def run(start):
        def advance(*values):
            state = State(*values)
            sums = ops.where(state.done, state.sums, state.sums + state.cache)
            # The cache says which row it is of: a row's number is its length.
            done = ops.logical_or(state.done, state.index + 1 >= ops.cast(state.cache, "int32"))
            return State(state.index + 1, sums, done, state.cache)

        length = ops.convert_to_tensor([3.0, 9.0, 1.0, 4.0, 2.0])
        state = State(ops.convert_to_tensor(0), start, ops.zeros(5, "bool"), length)
        state = loop(advance, state, 5)
        return state.index, state.sums, ops.cast(state.done, "int32")

    return run


for shrink_to in (1, 3):
    WAYS[f"search_loop to {shrink_to}"] = Way(
        counted(lambda *args, to=shrink_to: search_loop(*args, shrink_to=to)),
        counted(plain_search_loop),
        [(5,)],
        trained=False,
        dtypes=("float32",),
    )

WAYS["sum_of_squares"] = Way(
    updates.sum_of_squares, lambda x: ops.sum(ops.square(ops.cast(x, "float32"))), [(7, 5)]
)
for keep in (False, True):
    WAYS[f"scaled_or_zeros {keep}"] = Way(
        lambda x, y, keep=keep: updates.scaled_or_zeros([x, y], 0.25, ops.convert_to_tensor(keep)),
        lambda x, y, keep=keep: [0.25 * keep * x, 0.25 * keep * y],
        [(7, 5), (3,)],
        trained=False,
    )


def adam(update):
    """The variable and its moments after one update."""

    def run(*tensors):
        *state, gradient = tensors
        state = [keras.Variable(tensor) for tensor in state]
        scalars = {"lr": 0.1, "beta1": 0.9, "beta2": 0.98, "beta1_power": 0.81}
        update(*state, gradient, 1e-9, **scalars, beta2_power=0.9604)
        return [ops.convert_to_tensor(variable) for variable in state]

    return run


def plain_adam(variable, m, v, gradient, epsilon, lr, beta1, beta2, beta1_power, beta2_power):
    m.assign(beta1 * m + (1 - beta1) * gradient)
    v.assign(beta2 * v + (1 - beta2) * ops.square(gradient))
    step = (m / (1 - beta1_power)) / (ops.sqrt(v / (1 - beta2_power)) + epsilon)
    variable.assign(variable - lr * step)


WAYS["fused_adam"] = Way(
    adam(updates.fused_adam),
    adam(plain_adam),
    [(7, 5), (7, 5), RANDOM.random((7, 5)), (7, 5)],
    trained=False,
    compiled=(),
    dtypes=("float32",),
    backends=("tensorflow",),
)


def cases():
    for name, way in WAYS.items():
        marks = [] if BACKEND in way.backends else [pytest.mark.skip("is not on this backend")]
        for dtype in way.dtypes:
            yield pytest.param(way, dtype, False, id=f"{name}-{dtype}", marks=marks)
            if dtype in way.compiled:
                yield pytest.param(way, dtype, True, id=f"{name}-{dtype}-compiled", marks=marks)


def found(function, inputs, slopes, trained, jit):
    """What a function gives: its outputs, and the gradients of their sum, weighted by slopes."""
    run = compile_with_weights(function) if jit else function
    outputs = tree.flatten(run(*inputs))
    if trained:

        def weighted(*tensors):
            each = zip(tree.flatten(function(*tensors)), slopes, strict=True)
            return sum(ops.sum(ops.cast(x, "float32") * slope) for x, slope in each)

        outputs += value_and_gradients(weighted, inputs, jit=jit)[1]
    return outputs


# Fails if: a product takes another part, row or bias; a gradient lacks a term or ignores upstream;
# the highest score is not subtracted, or sums are not scaled to it; epsilon is left out; blocks use
# the masks of the first block; fused attention scales twice or forgets a mask; the newest block of
# a cache is not read, or a slot is read twice; equal scores change their order; the threshold or
# the scale of dropout is off; beams do not note or move their slots; a search keeps other rows, or
# does not put them back; the moments of Adam are swapped.
@pytest.mark.parametrize(("way", "dtype", "jit"), list(cases()))
def test_a_fast_way_gives_what_its_plain_definition_gives(way, dtype, jit):
    random = np.random.default_rng(5)
    arrays = [random.normal(size=x) if isinstance(x, tuple) else x for x in way.inputs]
    inputs = [ops.cast(ops.convert_to_tensor(x), dtype) for x in arrays]
    expected = tree.flatten(way.plain(*inputs))
    slopes = [ops.convert_to_tensor(random.normal(size=x.shape), "float32") for x in expected]
    expected = found(way.plain, inputs, slopes, way.trained, False)
    outputs = found(way.fast, inputs, slopes, way.trained, jit)
    for ours, plain in zip(outputs, expected, strict=True):
        if isinstance(plain, (np.ndarray, np.generic, float)):  # a definition in NumPy
            ours, plain = (np.asarray(ops.convert_to_numpy(each)) for each in (ours, plain))
        else:
            assert ours.dtype == plain.dtype and ours.shape == plain.shape
            ours, plain = (ops.convert_to_numpy(ops.cast(x, "float32")) for x in (ours, plain))
        tolerance = way.tolerance + TOLERANCE[dtype] * max(np.abs(plain).max(), 1)
        np.testing.assert_allclose(ours, plain, rtol=0, atol=tolerance)
