"""Laws of the whole model: causality, padding, batch, source, cache, files, tying."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer import testing
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.models import Transformer
from keras_transformer.optimizers import PaperAdam

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
IDS = {"source_ids": SOURCE, "target_ids": TARGET}
REAL = TARGET != 0
# Tolerances of the logits per policy. Their standard deviation is about 1.
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


def without_zeros(model):
    """Adds a little to all weights, because a bias of 0 would hide whether it is used."""
    rng = np.random.default_rng(5)
    model.set_weights([w + 0.1 * rng.normal(size=w.shape) for w in model.get_weights()])


def logits(model, source_ids, target_ids):
    return array(model({"source_ids": source_ids, "target_ids": target_ids}))


# --- causality, padding, batch, source: the certificates say how


# Fails if: the causal mask is one position too wide.
def test_causality(any_precision):
    testing.assert_causal(any_precision[0], IDS)


def test_causality_holds_in_compiled_training_with_dropout(any_precision):
    testing.assert_causal(any_precision[0], IDS, training=True, jit=True)


def test_dropout_is_on_in_training_only(model):
    whole = logits(model, SOURCE, TARGET)
    np.testing.assert_array_equal(logits(model, SOURCE, TARGET), whole)
    assert np.abs(array(model(IDS, training=True)) - whole).max() > 0.01


# Fails if: the combined mask leaves out the mask of the keys.
def test_more_padding_changes_no_real_token(any_precision):
    testing.assert_padding_invariant(any_precision[0], IDS)


def test_rows_of_padding_are_finite(any_precision):
    testing.assert_finite_when_masked(any_precision[0], IDS)


@pytest.mark.parametrize("training", [False, True])
def test_a_row_does_not_depend_on_the_rows_beside_it(any_precision, training):
    testing.assert_batch_invariant(any_precision[0], IDS, training=training)


def test_changing_any_source_token_changes_all_logits(any_precision):
    testing.assert_source_sensitive(any_precision[0], IDS)


# --- cache


# Fails if: the newest keys are always written at position 0.
def test_each_layer_step_by_step_is_the_uncached_layer(any_precision):
    model, tolerance = any_precision
    memory, memory_mask = model.encode(SOURCE)
    x = model.target_embedding(TARGET)
    for layer in model.decoder.layers:
        expected = layer(x, memory, memory_mask=memory_mask)
        cache = layer.start_cache(memory, length=T + 2)
        for t in range(T):
            step, cache = layer(x[:, t : t + 1], cache=cache, index=t, memory_mask=memory_mask)
            real = REAL[:, t]
            np.testing.assert_allclose(
                array(step)[real, 0], array(expected)[real, t], atol=tolerance
            )
        x = expected


# Fails if: the causal mask is one position too wide.
@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "norm": "pre",
            "positions": "learned",
            "max_length": S,
            "logits_bias": True,
            "embedding_norm": True,
        },
        {"target_vocabulary_size": 23, "tie_logits": False, "key_dim": 11, "value_dim": 3},
    ],
    ids=["paper", "pre-norm", "separate"],
)
@pytest.mark.parametrize("chunk", [1, 3])
def test_cached_logits_are_the_uncached(options, chunk):
    model = Transformer(**SIZES, **options)
    without_zeros(model)
    testing.assert_cached_equals_uncached(model, IDS, chunk=chunk)


def test_compiled_step_takes_the_index_as_a_tensor(model):
    testing.assert_cached_equals_uncached(model, IDS, jit=True)


def test_beams_share_the_memory_of_their_source(model):
    beams = 2
    target_ids = np.random.default_rng(1).integers(1, V, size=(B * beams, T))
    expected = logits(model, np.repeat(SOURCE, beams, axis=0), target_ids)
    memory, memory_mask = model.encode(SOURCE)
    cache = model.start_cache(memory, length=T, beam_size=beams)
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
        "logits_bias": True,
        "positions": "learned",
        "max_length": 13,
        "norm": "pre",
        "embedding_norm": True,
        "epsilon": 1e-5,
    },
    "mixed": {
        "tie_logits": False,
        "logits_bias": True,
        "activation": "gelu",
        "use_bias": True,
        "dtype": "mixed_float16",
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_model_is_the_same_to_the_bit(variant, tmp_path):
    model = Transformer(**SIZES, **VARIANTS[variant], name="mine")
    without_zeros(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, Transformer) and loaded.get_config() == model.get_config()
    testing.assert_saves_and_loads(model, IDS)
    # The search uses the same layers as the model, and no second copy.
    memory, _ = loaded.encode(SOURCE)
    np.testing.assert_array_equal(array(memory), array(model.encode(SOURCE)[0]))


def test_precision_policy_keeps_weights_in_float32(any_precision):
    model, _ = any_precision
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.weights} == {"float32"}
    policy = model.get_config()["dtype"]
    expected = keras.dtype_policies.get(policy).compute_dtype
    output = model(IDS)
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
    # The loss reads one column of the logits. So an update moves the rows of the source's and the
    # target's tokens, and the row of that column. It moves no other row, not even the pad's.
    model = Transformer(**SIZES, dropout=0.0)
    column = 18
    model.compile(
        keras.optimizers.SGD(1.0), lambda _, y: ops.mean(y[..., column] ** 2), run_eagerly=True
    )
    matrix = model.source_embedding.token.embeddings
    before = ops.convert_to_numpy(matrix).copy()
    inputs = {"source_ids": np.array([[4, 9, 0]]), "target_ids": np.array([[2, 7, 5, 0]])}
    model.train_on_batch(inputs, np.zeros((1, 4, V)))
    moved = np.flatnonzero((ops.convert_to_numpy(matrix) != before).any(-1))
    np.testing.assert_array_equal(moved, [2, 4, 5, 7, 9, column])


# --- only the encoder


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


# --- training


# Fails if: the optimizer creates its variables while the step is traced.
@pytest.mark.tensorflow_only
def test_the_training_step_is_traced_once():
    class Counted(SmoothedCrossentropy):
        calls = 0

        def __call__(self, *args, **kwargs):
            Counted.calls += 1
            return super().__call__(*args, **kwargs)

    model = Transformer(**SIZES)
    model.compile(optimizer=PaperAdam(D), loss=Counted())
    model.fit(IDS, TARGET, epochs=2, batch_size=B, verbose=0)
    assert Counted.calls == 1
    assert int(model.optimizer.updates) == 2


def test_what_is_frozen_stays_and_the_rest_moves():
    model = Transformer(**SIZES)
    model.encoder.trainable = False
    model.compile(optimizer=PaperAdam(D, warmup_steps=2), loss=SmoothedCrossentropy())
    before = model.get_weights()
    model.fit(IDS, TARGET, verbose=0)
    pairs = zip(model.weights, before, model.get_weights(), strict=True)
    moved = {weight.path for weight, old, new in pairs if (old != new).any()}
    assert moved == {weight.path for weight in model.trainable_variables}


# Fails if: with XLA, attention over unknown lengths is a separate TensorFlow function.
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("of_a_user", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_xla_trains_on_batches_of_unknown_shape(of_a_user):
    import tensorflow as tf

    model = Transformer(**{**SIZES, "num_decoder_layers": 1}, dropout=0.1)
    if of_a_user:
        model = keras.Model(model.input, model.output)
    model.compile(PaperAdam(D), SmoothedCrossentropy(), jit_compile=True)
    labels = np.roll(TARGET, -1, axis=1)
    unknown = tf.TensorSpec((None, None), tf.int32)
    batches = tf.data.Dataset.from_generator(
        lambda: iter([(IDS, labels)] * 2),
        output_signature=({name: unknown for name in IDS}, unknown),
    )
    before = model.get_weights()
    loss = model.fit(batches, steps_per_epoch=2, verbose=0).history["loss"][0]
    assert np.isfinite(loss) and any(
        (a != b).any() for a, b in zip(before, model.get_weights(), strict=True)
    )
