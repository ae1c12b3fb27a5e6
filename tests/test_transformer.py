"""Laws of the whole model: causality, padding, batch, source, cache, files, tying."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer.models import Transformer

B, T, S, D, V = 3, 5, 11, 14, 19
SIZES = {"vocabulary_size": V, "num_layers": 1, "num_decoder_layers": 2, "d_model": D}
SIZES.update(num_heads=2, d_ff=17)
SOURCE = np.array(
    [
        [5, 9, 3, 14, 7, 2, 11, 4, 18, 6, 3],
        [8, 1, 17, 5, 12, 9, 3, 0, 0, 0, 0],
        [10, 13, 16, 3, 0, 0, 0, 0, 0, 0, 0],
    ],
    "int32",
)
TARGET = np.array([[2, 9, 4, 15, 7], [2, 6, 18, 1, 0], [2, 12, 0, 0, 0]], "int32")
REAL = TARGET != 0
# Of the logits, whose standard deviation is about 1, under each policy.
TOLERANCE = {"float32": 2e-5, "mixed_float16": 0.02, "mixed_bfloat16": 0.15}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return Transformer(**SIZES)


@pytest.fixture(scope="module", params=TOLERANCE)
def any_precision(request):
    keras.utils.set_random_seed(3)
    return Transformer(**SIZES, dtype=request.param), TOLERANCE[request.param]


def array(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def logits(model, source_ids, target_ids):
    return array(model({"source_ids": source_ids, "target_ids": target_ids}))


def compiled(function):
    """`function` under XLA where the backend has it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def changed(ids, row, position):
    """`ids` with another real token in one place."""
    ids = ids.copy()
    ids[row, position] = ids[row, position] % (V - 1) + 1
    return ids


# --- causality


def test_changing_a_target_token_changes_no_logit_before_it(any_precision):
    model, tolerance = any_precision
    target_ids = np.stack([TARGET[0]] + [changed(TARGET, 0, t)[0] for t in range(T)])
    before, *after = logits(model, np.repeat(SOURCE[:1], T + 1, axis=0), target_ids)
    for t in range(T):
        np.testing.assert_allclose(after[t][:t], before[:t], atol=tolerance)
        assert np.abs(after[t][t] - before[t]).max() > tolerance


def test_causality_holds_in_compiled_training_with_dropout(any_precision):
    model, _ = any_precision

    def call(trainable, non_trainable, target_ids):
        # Stateless: every call draws the same dropout.
        inputs = {"source_ids": SOURCE, "target_ids": target_ids}
        return model.stateless_call(trainable, non_trainable, inputs, training=True)[0]

    call = compiled(call)
    variables = [
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def run(target_ids):
        keras.utils.set_random_seed(17)  # torch draws from one global generator
        return array(call(*variables, ops.convert_to_tensor(target_ids)))

    before = run(TARGET)
    assert np.abs(before - logits(model, SOURCE, TARGET)).max() > 0.1  # there is dropout
    for t in range(T):
        after = run(changed(TARGET, 0, t))
        np.testing.assert_array_equal(after[0, :t], before[0, :t])
        assert (after[0, t] != before[0, t]).any()
        np.testing.assert_array_equal(after[1:], before[1:])


def test_dropout_is_on_in_training_only(model):
    inputs = {"source_ids": SOURCE, "target_ids": TARGET}
    whole = logits(model, SOURCE, TARGET)
    np.testing.assert_array_equal(logits(model, SOURCE, TARGET), whole)
    assert np.abs(array(model(inputs, training=True)) - whole).max() > 0.01


# --- padding, batch, source


def test_more_padding_changes_no_real_token(any_precision):
    model, tolerance = any_precision
    expected = logits(model, SOURCE, TARGET)
    source_ids = np.pad(SOURCE, ((0, 0), (0, 2)))
    target_ids = np.pad(TARGET, ((0, 0), (0, 3)))
    for actual in (
        logits(model, source_ids, TARGET),
        logits(model, SOURCE, target_ids)[:, :T],
    ):
        np.testing.assert_allclose(actual[REAL], expected[REAL], atol=tolerance)


def test_rows_of_padding_are_finite_and_change_no_other(any_precision):
    model, tolerance = any_precision
    more = [np.pad(ids, ((0, 2), (0, 0))) for ids in (SOURCE, TARGET)]
    actual = logits(model, *more)
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual[:B], logits(model, SOURCE, TARGET), atol=tolerance)
    # A source of padding alone with a real target, and the other way round.
    assert np.isfinite(logits(model, 0 * SOURCE, TARGET)).all()
    assert np.isfinite(logits(model, SOURCE, 0 * TARGET)).all()


def test_permuting_or_splitting_a_batch_permutes_or_splits_the_logits(any_precision):
    model, tolerance = any_precision
    expected = logits(model, SOURCE, TARGET)
    order = [2, 0, 1]
    permuted = logits(model, SOURCE[order], TARGET[order])
    np.testing.assert_allclose(permuted, expected[order], atol=tolerance)
    split = [logits(model, SOURCE[i : i + 1], TARGET[i : i + 1]) for i in range(B)]
    np.testing.assert_allclose(np.concatenate(split), expected, atol=tolerance)


def test_changing_any_source_token_changes_all_logits(model):
    real = range(7)
    source_ids = np.stack([SOURCE[1]] + [changed(SOURCE, 1, position)[1] for position in real])
    before, *after = logits(model, source_ids, np.repeat(TARGET[1:2], 8, axis=0))
    for position in real:
        assert (np.abs(after[position] - before).max(-1) > 1e-4)[REAL[1]].all(), position


# --- cache


def forget(cache):
    """The cache with what was never written to made loud: whoever reads it will differ."""
    cache["self"] = [tuple(1e3 + 0 * part for part in layer) for layer in cache["self"]]
    return cache


def test_each_layer_step_by_step_is_the_uncached_layer(any_precision):
    model, tolerance = any_precision
    memory, memory_mask = model.encode(SOURCE)
    x = model.target_embedding(TARGET)
    for layer in model.decoder.layers:
        expected = layer(x, memory, memory_mask=memory_mask)
        cache = layer.start_cache(memory, rows=B, length=T + 2)
        for t in range(T):
            step, cache = layer(x[:, t : t + 1], cache=cache, index=t, memory_mask=memory_mask)
            real = REAL[:, t]
            np.testing.assert_allclose(
                array(step)[real, 0], array(expected)[real, t], atol=tolerance
            )
        x = expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "pre", "positions": "learned", "max_length": S},
        {"target_vocabulary_size": 23, "tie_logits": False, "key_dim": 11, "value_dim": 3},
    ],
    ids=["paper", "pre-norm", "separate"],
)
def test_cached_logits_are_the_uncached(options):
    model = Transformer(**SIZES, **options)
    expected = logits(model, SOURCE, TARGET)
    memory, memory_mask = model.encode(SOURCE)
    for chunks in ([1, 1, 1, 1, 1], [3, 2]):
        cache, index = forget(model.start_cache(memory, rows=B, length=T + 2)), 0
        for length in chunks:
            window = slice(index, index + length)
            actual, cache = model.decode(
                TARGET[:, window], None, memory_mask, cache=cache, index=index
            )
            real = REAL[:, window]
            np.testing.assert_allclose(array(actual)[real], expected[:, window][real], atol=2e-5)
            index += length


def test_compiled_step_takes_the_index_as_a_tensor(model):
    expected = logits(model, SOURCE, TARGET)
    memory, memory_mask = model.encode(SOURCE)
    cache = model.start_cache(memory, rows=B, length=T)
    step = compiled(
        lambda ids, cache, index: model.decode(ids, None, memory_mask, cache=cache, index=index)
    )
    for t in range(T):
        ids = ops.convert_to_tensor(TARGET[:, t : t + 1])
        actual, cache = step(ids, cache, ops.convert_to_tensor(t, "int32"))
        real = REAL[:, t]
        np.testing.assert_allclose(array(actual)[real, 0], expected[real, t], atol=2e-5)


def test_beams_share_the_memory_of_their_source(model):
    beams = 2
    target_ids = np.random.default_rng(1).integers(1, V, size=(B * beams, T))
    expected = logits(model, np.repeat(SOURCE, beams, axis=0), target_ids)
    memory, memory_mask = model.encode(SOURCE)
    cache = model.start_cache(memory, rows=B * beams, length=T)
    assert {part.shape[0] for layer in cache["cross"] for part in layer} == {B}
    for t in range(T):
        actual, cache = model.decode(
            target_ids[:, t : t + 1], None, memory_mask, cache=cache, index=t
        )
        np.testing.assert_allclose(array(actual)[:, 0], expected[:, t], atol=2e-5)


# --- the Keras contract

VARIANTS = {
    "shared": {},
    "separate": {
        "target_vocabulary_size": 23,
        "positions": "learned",
        "max_length": 13,
        "norm": "pre",
    },
    "mixed": {
        "tie_logits": False,
        "activation": "gelu",
        "use_bias": True,
        "dtype": "mixed_float16",
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_model_is_the_same_to_the_bit(variant, tmp_path):
    model = Transformer(**SIZES, **VARIANTS[variant], name="mine")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, Transformer) and loaded.get_config() == model.get_config()
    assert loaded.count_params() == model.count_params()
    np.testing.assert_array_equal(logits(loaded, SOURCE, TARGET), logits(model, SOURCE, TARGET))
    # What the search uses is the same model, not a second one built beside it.
    memory, _ = loaded.encode(SOURCE)
    np.testing.assert_array_equal(array(memory), array(model.encode(SOURCE)[0]))


def test_precision_policy_keeps_weights_in_float32(any_precision):
    model, _ = any_precision
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.weights} == {"float32"}
    policy = model.get_config()["dtype"]
    expected = keras.dtype_policies.get(policy).compute_dtype
    output = model({"source_ids": SOURCE, "target_ids": TARGET})
    assert keras.backend.standardize_dtype(output.dtype) == expected


def test_precisions_agree(model, any_precision):
    other, tolerance = any_precision
    expected, weights = logits(model, SOURCE, TARGET), other.get_weights()
    other.set_weights(model.get_weights())
    actual = logits(other, SOURCE, TARGET)
    other.set_weights(weights)
    np.testing.assert_allclose(actual, expected, atol=2 * tolerance)


# --- tying


def vocabulary_matrices(model):
    return sorted(tuple(w.shape) for w in model.weights if {V, 23} & set(w.shape))


def test_source_target_and_logits_share_one_matrix_unless_told_otherwise(model):
    assert vocabulary_matrices(model) == [(V, D)]
    assert model.output_shape == (None, None, V)
    separate = Transformer(**SIZES, target_vocabulary_size=23, tie_logits=False)
    assert vocabulary_matrices(separate) == [(D, 23), (V, D), (23, D)]
    assert separate.output_shape == (None, None, 23)


def test_gradient_reaches_the_matrix_from_all_three_uses():
    # The loss reads one column of the logits, so an update moves the rows of the source's tokens,
    # those of the target's, that column's own row, and no other: not the pad's.
    model = Transformer(**SIZES, dropout=0.0)
    column = 18
    model.compile(
        keras.optimizers.SGD(1.0), lambda _, y: ops.mean(y[..., column] ** 2), run_eagerly=True
    )
    matrix = model.source_embedding.token_embeddings
    before = ops.convert_to_numpy(matrix).copy()
    inputs = {"source_ids": np.array([[4, 9, 0]]), "target_ids": np.array([[2, 7, 5, 0]])}
    model.train_on_batch(inputs, np.zeros((1, 4, V)))
    moved = np.flatnonzero((ops.convert_to_numpy(matrix) != before).any(-1))
    np.testing.assert_array_equal(moved, [2, 4, 5, 7, 9, column])


# --- the encoder alone


def classifier(model, frozen):
    features = model.feature_extractor()
    features.trainable = not frozen
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.GlobalAveragePooling1D()(features(ids))
    head = keras.Model(ids, keras.layers.Dense(1)(x))
    head.compile("sgd", "mse", run_eagerly=True)
    return head


@pytest.mark.parametrize("frozen", [True, False])
def test_feature_extractor_shares_its_weights_and_can_be_frozen(frozen):
    model = Transformer(**SIZES, dropout=0.0)
    head = classifier(model, frozen)
    before = [w.copy() for w in model.encoder.get_weights()]
    dense = head.layers[-1].get_weights()[0].copy()
    head.train_on_batch(SOURCE, np.ones((B, 1)))
    after = model.encoder.get_weights()
    same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert same == frozen
    assert (head.layers[-1].get_weights()[0] != dense).any()
    features = model.feature_extractor()
    np.testing.assert_array_equal(array(features(SOURCE)), array(model.encode(SOURCE)[0]))


def test_feature_extractor_carries_the_mask(model):
    head = classifier(model, frozen=True)
    padded = array(head(SOURCE))
    np.testing.assert_allclose(padded[1:2], array(head(SOURCE[1:2, :7])), atol=1e-5)
