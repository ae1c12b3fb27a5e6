"""Laws of the certificates: correct models pass on every backend, and usual mistakes are named."""

import itertools

import broken_models as broken
import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer import layers, losses, models, testing
from keras_transformer.decoding import search

V = broken.V
IDS = testing.random_inputs(V)  # source of 7 tokens, target of 5
SQUARE = testing.random_inputs(V, source_length=5)  # equal lengths, so shapes do not show a swap
FLOATS = np.random.default_rng(1).normal(size=(3, 5, broken.D)).astype("float32")


def fails(message):
    """Expects that a certificate fails, and that its text begins with `message`."""
    return pytest.raises(AssertionError, match=f"(?s)^{message}")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return broken.sequence_to_sequence()


# --- correct models pass


# Eagerly JAX compiles every operation by itself, so there the fast tier has the compiled model.
QUICK = ("float32", keras.backend.backend() == "jax")


# Fails if: a certificate does not restore the seed states (on torch, the generator).
@pytest.mark.parametrize(
    ("dtype", "jit"),
    [
        pytest.param(*case, marks=[] if case == QUICK else pytest.mark.slow)
        for case in itertools.product(["float32", "mixed_float16", "mixed_bfloat16"], [False, True])
    ],
)
def test_the_transformer_is_certified(dtype, jit, capsys):
    model = models.Transformer(
        V, num_layers=1, dtype=dtype, **{**broken.BLOCK, "attention_dropout": 0.1}
    )
    model.compile("sgd", losses.SmoothedCrossentropy(0.1))
    weights = [np.array(weight) for weight in model.get_weights()]
    states = [np.array(ops.convert_to_numpy(v)) for v in model.non_trainable_variables]
    names = testing.certify(model, V, jit=jit)
    assert {"causal in training", "cached equals uncached", "loss ignores padding"} < set(names)
    assert len(names) == 13
    assert capsys.readouterr().out == "".join(f"ok      {name}\n" for name in names)
    # The model is unchanged: its weights, and the states of its random numbers.
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)
    for before, after in zip(states, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(after), before)


def test_certify_runs_what_applies_and_reports_all_that_fails(capsys):
    with fails("source-sensitive: The model ignores source_ids"):
        testing.certify(broken.ignores_its_source(), V)
    lines = capsys.readouterr().out.splitlines()
    # The decoder is also no registered class.
    assert [line[8:] for line in lines if line.startswith("FAILED")] == [
        "source-sensitive",
        "saves and loads",
    ]
    assert lines[0] == "ok      causal"
    assert not [line for line in lines if "cached" in line or "loss" in line or "scores" in line]


def test_layers_and_decoder_only_models_are_certified_too():
    attention = layers.MultiHeadAttention(broken.D, 2, dropout=0.2)
    testing.assert_causal(lambda x: attention(x, causal=True), FLOATS)
    x, memory = keras.Input((None, broken.D)), keras.Input((None, broken.D))
    block = keras.Model([memory, x], layers.DecoderLayer(**broken.BLOCK)(x, memory))
    pair = [FLOATS[:, ::-1], FLOATS]
    for training in (False, True):
        testing.assert_causal(block, pair, training=training)
        testing.assert_batch_invariant(block, pair, training=training)
    testing.assert_source_sensitive(block, pair)
    testing.assert_saves_and_loads(layers.EncoderLayer(**broken.BLOCK), FLOATS)
    testing.assert_saves_and_loads(layers.DecoderLayer(**broken.BLOCK), pair)
    with pytest.raises(ValueError, match="no input holds integer ids"):
        testing.assert_padding_invariant(block, pair)


def test_an_override_in_vain_is_seen():
    with fails("The model is not wired by its own methods"):
        testing.assert_wired(broken.overridden_in_vain(), IDS)


def test_a_layer_that_multiplies_quantised_integers_is_seen():
    with fails("Quantised by 'int8' the model gives other outputs"):
        testing.assert_quantizes(broken.RawKernel(), FLOATS)


# --- which positions see which


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_missing_causal_mask_is_seen(training, jit):
    with fails(
        r"The model is not causal: changing target_ids\[:, 1\] .*batch row 0, position 0, entry 0"
    ):
        testing.assert_causal(broken.no_causal_mask(), IDS, training=training, jit=jit)


# Fails if: the two calls that are compared draw different dropout.
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_causal_mask_that_is_lost_in_training_is_seen_there_alone(jit):
    model = broken.causal_mask_lost_in_training()
    testing.assert_causal(model, IDS["target_ids"], jit=jit)
    with fails(r"The model is not causal: changing inputs\[:, 1\] .* in training\."):
        testing.assert_causal(model, IDS["target_ids"], training=True, jit=jit)


def test_swapped_inputs_are_named():
    model = broken.swapped_inputs()
    with fails(r"The output's positions are not .* 5 positions.* \(3, 7, 19\).* are swapped"):
        testing.assert_causal(model, IDS)
    with fails(r"The model is not causal.* swapped \(likely: the model is causal in source_ids\)"):
        testing.assert_causal(model, SQUARE)
    with fails("The model reads source_ids causally.* decoder are swapped"):
        testing.assert_source_sensitive(model, SQUARE)


def test_a_source_mask_from_the_target_is_seen():
    inputs = {**SQUARE, "source_ids": np.maximum(SQUARE["source_ids"], 1)}
    model = broken.source_mask_from_target()
    with fails("The model is not causal.*the source's mask"):
        testing.assert_causal(model, inputs)
    with fails("The model runs on the inputs as given and fails with 3 more pad columns in source"):
        testing.assert_padding_invariant(model, inputs)
    # An encoder spreads every token to all positions. Without one, masked tokens have no effect.
    model = broken.source_mask_from_target(encoder=keras.layers.Identity())
    with fails("Some tokens of source_ids do not reach.*row 1, .*mask made from the target"):
        testing.assert_source_sensitive(model, inputs)


def test_an_ignored_source_or_target_is_seen(model):
    with fails("The model ignores source_ids: .*First: batch row 0"):
        testing.assert_source_sensitive(broken.ignores_its_source(), IDS)
    with fails(r"The model ignores target_ids: changing target_ids\[:, 0\]"):
        testing.assert_causal(lambda ids: 0 * model(ids), IDS)


# Fails if: the certificate changes no other row.
def test_a_norm_over_the_batch_is_seen():
    model = broken.norm_over_the_batch()
    testing.assert_batch_invariant(model, IDS)
    with fails(
        "The batch matters: changing all other rows changed row 0, in training.*BatchNormalization"
    ):
        testing.assert_batch_invariant(model, IDS, training=True)
    with fails("The batch matters: changing all other rows"):
        testing.assert_batch_invariant(broken.centred_over_the_batch(), IDS)


def test_a_place_in_the_batch_and_the_size_of_the_batch_are_seen(model):
    def by_place(ids):
        return model(ids) + ops.arange(len(ids["source_ids"]), dtype="float32")[:, None, None]

    def by_size(ids):
        return model(ids) * len(ids["source_ids"])

    with fails(r"The batch matters: its rows in the order \[2, 0, 1\]"):
        testing.assert_batch_invariant(by_place, IDS)
    with fails("The batch matters: a row alone gave .*row 0"):
        testing.assert_batch_invariant(by_size, IDS)


def test_dropout_at_inference_and_foreign_random_numbers_are_seen(model):
    with fails("The same inputs gave two different outputs.*dropout that is on at inference"):
        testing.assert_causal(broken.dropout_at_inference(), IDS)

    def noisy(ids, training):
        return model(ids) + float(np.random.normal())

    with fails("The same inputs gave two different outputs, .* although all seed generators"):
        testing.assert_causal(noisy, IDS, training=True)


# --- padding


# Fails if: the certificate tolerates 10,000 times the rounding.
def test_padding_that_is_read_is_seen():
    with fails("Padding matters: 3 more pad columns in source_ids .*batch row 0, position 0"):
        testing.assert_padding_invariant(broken.reads_source_padding(), IDS)
    with fails("Padding matters: 3 more pad columns in inputs .*batch row 0, entry 0:"):
        testing.assert_padding_invariant(broken.mean_over_padding(), IDS["source_ids"])


# Fails if: the certificate adds no rows.
def test_more_rows_that_change_the_others_are_seen():
    with fails("Padding matters: 2 more rows of only padding changed"):
        testing.assert_padding_invariant(
            lambda ids: ops.subtract(ids, ops.mean(ids, axis=0, keepdims=True)), IDS["source_ids"]
        )


def test_a_mask_that_is_lost_beside_a_second_tensor_is_seen():
    given, masks = {"inputs": FLOATS}, {"inputs": ("mask", IDS["target_ids"] != 0)}
    options = {"shift": FLOATS[:, ::-1]}
    layer = broken.MaskOfOneTensor()
    testing.assert_honours_implicit_masks(layer, given, masks)
    with fails("A mask is lost: with shift, .*batch row 1, position 3.*none that is named after"):
        testing.assert_honours_implicit_masks(layer, given, masks, options=options)
    with fails("A mask that is passed gives way, with no other tensor, to another"):
        testing.assert_honours_implicit_masks(broken.ImplicitMaskWins(), given, masks)
    with fails("The masks mask change no output"):
        full = {"inputs": ("mask", np.ones((3, 5), bool))}
        testing.assert_honours_implicit_masks(layer, given, full)


# Fails if: the certificate does not check gradients.
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rows_of_padding_that_are_nan_are_seen(jit):
    ids = IDS["source_ids"]
    with fails("The output is not finite with row 0 of inputs all padding.* nan at .*softmax"):
        testing.assert_finite_when_masked(broken.infinite_mask(), ids, jit=jit)
    repaired = broken.infinite_mask(repair=True)
    testing.assert_finite_when_masked(repaired, ids, gradients=False, jit=jit)
    with fails("The gradient of .* is not finite with row 0 of inputs .*NaN replaced by 0"):
        testing.assert_finite_when_masked(repaired, ids, jit=jit)


# Fails if: a comparison with NaN passes.
def test_nan_on_the_inputs_as_given_is_seen():
    with fails("The same inputs gave two different outputs, or NaN.* got nan"):
        testing.assert_padding_invariant(
            lambda ids: np.nan * ops.cast(ids, "float32"), IDS["source_ids"]
        )


# --- caches


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cache_that_forgets_its_index_is_seen(jit):
    with fails(r"Cached decoding is not the uncached: .*batch row 0, position 1, .*index that is"):
        testing.assert_cached_equals_uncached(broken.index_lost(), IDS, jit=jit)


def test_a_cache_that_is_read_behind_its_index_is_seen():
    with fails("Cached decoding is not the uncached: .*position 0, .*never written"):
        testing.assert_cached_equals_uncached(broken.cache_without_mask(), IDS)


# Fails if: the certificate uses the cache only once.
def test_a_cache_that_adds_to_what_it_holds_is_seen_when_used_again():
    with fails("Cached decoding is not the uncached once the cache has been used"):
        testing.assert_cached_equals_uncached(broken.cache_added(), IDS)


def test_chunks_and_models_without_the_protocol(model):
    testing.assert_cached_equals_uncached(
        models.Transformer(V, num_layers=1, **broken.BLOCK), IDS, chunk=3
    )
    with pytest.raises(ValueError, match="Functional has no encode, start_cache, decode"):
        testing.assert_cached_equals_uncached(model, IDS)


# --- files


# Fails if: the certificate compares in inference only.
def test_a_forgotten_argument_is_seen():
    with fails("The loaded model gives other outputs.*batch row 0, position 0, .*get_config"):
        testing.assert_saves_and_loads(broken.Forgetful(scale=2.0), FLOATS)
    with fails("The loaded model gives other outputs in training, .*dropout rate"):
        testing.assert_saves_and_loads(broken.Forgetful(dropout=0.5), FLOATS)
    with fails("The loaded model draws random numbers in other places.*0 seed generators, 1"):
        testing.assert_saves_and_loads(broken.Forgetful(dropout=0.0), FLOATS)
    testing.assert_saves_and_loads(broken.Forgetful(), FLOATS)


def test_a_class_that_is_not_registered_and_a_lambda_are_seen():
    with fails("The model cannot be saved and loaded: .*register_keras_serializable"):
        testing.assert_saves_and_loads(broken.Unregistered(), FLOATS)
    testing.assert_saves_and_loads(
        broken.Unregistered(), FLOATS, custom_objects={"Unregistered": broken.Unregistered}
    )
    with fails("The model cannot be saved and loaded: .*safe mode refuses"):
        testing.assert_saves_and_loads(keras.layers.Lambda(lambda x: 2 * x), FLOATS)


# --- losses


def mean_weights(labels):
    return (labels != 0) / max((labels != 0).sum(), 1)


def test_losses_that_ignore_padding_pass():
    testing.assert_ignores_padding(losses.SmoothedCrossentropy(0.1))
    testing.assert_ignores_padding(losses.SmoothedCrossentropy(0.1), weights=mean_weights)
    for pad_id in (4, 255, -100):
        loss = losses.SmoothedCrossentropy(0.1, ignore_class=pad_id)
        testing.assert_ignores_padding(loss, pad_id=pad_id)
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    testing.assert_ignores_padding(theirs)


@pytest.mark.parametrize(
    ("loss", "weights", "message"),
    [
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            None,
            "Padding counts in the loss: its logits matter.*no ignore_class",
        ),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            lambda labels: labels != 0,
            "Padding counts in the loss: 5 more pad columns .*all positions of the batch",
        ),
        (broken.mean_over_positions, None, "Padding counts in the loss: 5 more pad columns"),
        (broken.mean_of_sentences, None, "Padding counts in the loss: 2 more rows"),
        (broken.divided_by_no_token, None, "A batch of only padding costs nan.*at least 1"),
        (
            losses.SmoothedCrossentropy(0.1),
            lambda labels: labels == 0,
            "The loss ignores real tokens as well",
        ),
    ],
)
def test_padding_that_counts_in_the_loss_is_seen(loss, weights, message):
    with fails(message):
        testing.assert_ignores_padding(loss, weights=weights)


def test_a_plain_function_is_weighted_and_averaged_as_compile_does():
    def per_token(labels, logits):
        return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    testing.assert_ignores_padding(
        per_token, weights=lambda labels: labels.size * mean_weights(labels)
    )
    with pytest.raises(ValueError, match="got 'mse': pass"):
        testing.assert_ignores_padding("mse")


# --- searches

ENDS = {"start_id": 1, "end_id": 2}
SOURCES = np.arange(11, dtype="int32")[:, None]
TABLE = np.random.default_rng(5).normal(scale=2, size=(101, 7)).astype("float32")
AVERAGE = search.average_penalty()


def table_model(inputs):
    """Looks up logits in a random table, by source, token and position. It does not use Keras."""
    target_ids = ops.convert_to_tensor(inputs["target_ids"])
    places = ops.arange(target_ids.shape[1], dtype="int32")
    state = 17 * ops.convert_to_tensor(inputs["source_ids"]) + 7 * target_ids + 29 * places
    return ops.take(ops.convert_to_tensor(TABLE), state % len(TABLE), axis=0)


def check_search(search, penalty=None, **options):
    testing.assert_scores_are_final(
        search, table_model, SOURCES, penalty=penalty, **ENDS, **options
    )


# Fails if: the certificate counts the start in the penalty.
def test_a_right_search_passes():
    right = broken.greedy(table_model, length=6, **ENDS)
    lengths = (right(SOURCES)[0] != 0).sum(axis=1)
    assert lengths.min() < lengths.max()  # so that some finished rows wait for others
    check_search(right, AVERAGE)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("keeps scoring", "A score is not that of its hypothesis: .*keeps scoring"),
        ("goes on", "Something follows the end: batch row .* continues"),
        ("other length", "A score is not that of its hypothesis: .*the start counted"),
    ],
)
def test_finished_hypotheses_that_change_are_seen(mistake, message):
    with fails(message):
        check_search(broken.greedy(table_model, length=6, mistake=mistake, **ENDS), AVERAGE)


def two_hypotheses(source_ids):
    """Returns ids [B, 2, 3] and their log-probabilities by the definition, best first."""
    ids = np.array([[[5, 2, 0], [3, 4, 2]]], "int32").repeat(len(source_ids), axis=0)
    scores = np.zeros(ids.shape[:2])
    for b, n in np.ndindex(*scores.shape):
        last = ENDS["start_id"]
        for place, token in enumerate(ids[b, n, : 2 + n]):
            logits = TABLE[(17 * source_ids[b, 0] + 7 * last + 29 * place) % len(TABLE)]
            scores[b, n] += logits[token] - np.log(np.exp(logits.astype("float64")).sum())
            last = token
    order = np.argsort(-scores, axis=1)
    return np.take_along_axis(ids, order[..., None], 1), np.take_along_axis(scores, order, 1)


def test_several_hypotheses_are_sorted_distinct_and_there():
    check_search(two_hypotheses)
    with fails("The hypotheses of batch row 0 are not sorted"):
        check_search(lambda sources: [part[:, ::-1] for part in two_hypotheses(sources)])
    with fails("Two hypotheses of batch row 0 are the same"):
        check_search(lambda sources: [part[:, [0, 0]] for part in two_hypotheses(sources)])
    with fails("The search found nothing for source row 0"):
        check_search(
            lambda sources: (two_hypotheses(sources)[0], np.full((len(sources), 2), -np.inf))
        )
    with pytest.raises(ValueError, match=r"for 11 sources it returned \(11, 2, 3\) and \(11,\)"):
        check_search(lambda sources: (two_hypotheses(sources)[0], np.zeros(len(sources))))


def test_a_source_that_depends_on_those_beside_it_is_seen():
    def first_alone(sources):
        ids, scores = two_hypotheses(sources)
        return (ids, scores) if len(sources) > 1 else (ids[:, ::-1], scores[:, ::-1])

    with fails(
        "The batch matters: source row 0 gives another score by itself.*in the batch, .* by itself"
    ):
        check_search(first_alone)


def check_beam(search, sources=SOURCES, beam_size=2):
    testing.assert_beam_keeps_greedy(
        search, table_model, sources, beam_size=beam_size, penalty=AVERAGE, **ENDS
    )


def test_a_beam_that_is_worse_than_greedy_search_is_seen():
    right = broken.greedy(table_model, length=6, **ENDS)
    check_beam(right)  # returns the hypotheses of greedy search
    check_beam(right, SOURCES[:, [0]] + 20, beam_size=5)

    def cut_short(source_ids):
        ids, scores = two_hypotheses(source_ids)
        return ids, scores / 2  # divides by the length of the shorter hypothesis

    with fails("A beam of 2 is worse than greedy search: source row .* it never left the beam"):
        check_beam(cut_short)
    left = np.array([[17]], "int32")  # another beam overtakes greedy's hypothesis of this source
    with pytest.raises(ValueError, match="left the beam of 3 for every source"):
        check_beam(right, left, beam_size=3)
