"""Laws of PaperAdam and LossScale: what one update does, for any number of micro-batches."""

import keras
import numpy as np
import pytest
from keras import ops
from random_pairs import random_pairs

from keras_transformer import data, models
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.metrics import NatsPerToken
from keras_transformer.optimizers import LossScale, PaperAdam
from keras_transformer.optimizers.schedules import PaperSchedule

SHAPES = [(5, 7), (3,), ()]
V, D_MODEL, WARMUP = 23, 12, 5


def number(x):
    return float(ops.convert_to_numpy(x))


def arrays(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def variables(seed=0):
    random = np.random.default_rng(seed)
    return [keras.Variable(random.normal(size=shape).astype("float32")) for shape in SHAPES]


def gradients(step, scale=1.0):
    """Returns gradients of many magnitudes, which differ from step to step."""
    random = np.random.default_rng(step + 1)
    return [
        (scale * random.normal(size=s) * 10.0 ** random.integers(-4, 2, s)).astype("float32")
        for s in SHAPES
    ]


def tensors(values):
    return [ops.convert_to_tensor(value) for value in values]


def updater(optimizer, weights):
    """Returns `optimizer.apply(gradients, weights)` as a function of the gradients.

    It is compiled on JAX, as in `fit`. An eager call would be traced and compiled every time.
    """
    optimizer.build(weights)
    if keras.backend.backend() != "jax":
        return lambda grads: optimizer.apply(tensors(grads), weights)
    import jax

    compiled = jax.jit(optimizer.stateless_apply)

    def apply(grads):
        state = [[v.value for v in variables] for variables in (optimizer.variables, weights)]
        new_weights, new_state = compiled(state[0], tensors(grads), state[1])
        for variable, value in zip(
            weights + optimizer.variables, new_weights + new_state, strict=True
        ):
            variable.assign(value)

    return apply


def norm_of(values):
    return np.sqrt(sum((np.asarray(v, "float64") ** 2).sum() for v in values))


class NumpyAdam:
    """Algorithm 1 of Kingma and Ba (2015) with decoupled weight decay, in float64."""

    def __init__(self, weights, rate, beta_1=0.9, beta_2=0.98, epsilon=1e-9, decay=0.0):
        self.weights = [w.astype("float64") for w in weights]
        self.m = [np.zeros_like(w) for w in self.weights]
        self.v = [np.zeros_like(w) for w in self.weights]
        self.rate, self.beta_1, self.beta_2, self.epsilon = rate, beta_1, beta_2, epsilon
        self.decay = decay
        self.step = 0

    def apply(self, grads):
        self.step += 1
        t, rate = self.step, self.rate(self.step)
        # As in Keras, epsilon is added before v is corrected ("epsilon hat" in the paper).
        alpha = rate * np.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        for i, g in enumerate(np.asarray(g, "float64") for g in grads):
            self.m[i] = self.beta_1 * self.m[i] + (1 - self.beta_1) * g
            self.v[i] = self.beta_2 * self.v[i] + (1 - self.beta_2) * g**2
            change = alpha * self.m[i] / (np.sqrt(self.v[i]) + self.epsilon)
            self.weights[i] = self.weights[i] - change - rate * self.decay * self.weights[i]


def paper_rate(step):
    return D_MODEL**-0.5 * min(step**-0.5, step * WARMUP**-1.5)


def assert_close(found, expected, rtol=1e-5, atol=2e-6):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# --- an update ---


# Fails if: the powers of beta_1 and beta_2 are swapped; weight decay is left out.
@pytest.mark.parametrize("decay", [None, 0.1])
def test_equals_adam_in_float64_with_the_papers_schedule_from_step_1(decay):
    weights = variables()
    optimizer = PaperAdam(D_MODEL, WARMUP, weight_decay=decay)
    theirs = NumpyAdam(arrays(weights), paper_rate, decay=decay or 0.0)
    apply = updater(optimizer, weights)
    for step in range(9):
        assert number(optimizer.learning_rate) == pytest.approx(paper_rate(step + 1), rel=1e-6)
        apply(gradients(step))
        theirs.apply(gradients(step))
        assert_close(arrays(weights), theirs.weights)
        assert number(optimizer.updates) == step + 1


def test_the_defaults_are_the_papers():
    optimizer = PaperAdam(d_model=512)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.98, 1e-9)
    assert number(optimizer.learning_rate) == pytest.approx(512**-0.5 * 4000**-1.5, rel=1e-6)


@pytest.mark.parametrize("decay", [None, 0.1])
def test_equals_keras_adam_at_a_constant_rate(decay):
    settings = {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}
    ours, theirs = variables(), variables()
    optimizer = PaperAdam(**settings, weight_decay=decay)
    other = keras.optimizers.Adam(**settings, weight_decay=decay)
    ours_apply, theirs_apply = updater(optimizer, ours), updater(other, theirs)
    for step in range(5):
        ours_apply(gradients(step))
        theirs_apply(gradients(step))
        assert_close(arrays(ours), arrays(theirs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_variables_are_float32_arithmetic_rounded(dtype, accumulate):
    """Fails if: epsilon, a square, a power of beta or the clipping's scale underflows or rounds."""

    def rounded(values):
        return arrays(ops.cast(ops.cast(value, dtype), "float32") for value in values)

    def batch(step):
        grads = gradients(step, scale=1e-2)
        grads[0][0], grads[0][1] = 0.0, 1e-6
        return rounded(grads)

    weights = [keras.Variable(ops.cast(w, dtype), dtype=dtype) for w in variables()]
    ours = PaperAdam(
        learning_rate=0.02,
        weight_decay=0.01,
        global_clipnorm=1e-3,
        use_ema=True,
        ema_momentum=0.999,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )
    theirs = NumpyAdam(rounded(variables()), lambda step: 0.02, decay=0.01)
    apply, average = updater(ours, weights), None
    for update in range(3):
        grads = [batch(update * accumulate + i) for i in range(accumulate)]
        for each in grads:
            apply([ops.cast(g, dtype) for g in each])
        mean = [np.mean(each, axis=0) for each in zip(*grads, strict=True)]
        theirs.apply([g * min(1, 1e-3 / norm_of(mean)) for g in mean])
        step = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
        found = arrays(ops.cast(w, "float32") for w in weights)
        assert_close(found, theirs.weights, rtol=0.51 * step, atol=1e-6)  # half of a last digit
        theirs.weights = [w.astype("float64") for w in found]
        average = average or found
        average = [a + (w - a) / 1000 for a, w in zip(average, found, strict=True)]
    assert_close(arrays(ours._model_variables_moving_average), average)
    ours.finalize_variable_values(weights)
    assert_same(arrays(ops.cast(w, "float32") for w in weights), rounded(average))


def test_weight_decay_spares_what_is_excluded():
    weights = variables()
    before = arrays(weights)
    optimizer = PaperAdam(learning_rate=0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=weights[1:2])
    updater(optimizer, weights)([np.zeros(s, "float32") for s in SHAPES])
    assert_close(arrays(weights), [before[0] * 0.95, before[1], before[2] * 0.95])


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_global_clipping_is_by_the_norm_of_the_whole_gradient(factor):
    """`gradient_norm` is the norm before clipping. With epsilon 1 the gradient's length matters."""
    weights, grads = variables(), gradients(0)
    norm = norm_of(grads)
    optimizer = PaperAdam(learning_rate=0.1, epsilon=1.0, global_clipnorm=float(factor * norm))
    theirs = NumpyAdam(arrays(weights), lambda step: 0.1, epsilon=1.0)
    updater(optimizer, weights)(grads)
    theirs.apply([g * min(1.0, factor) for g in grads])
    assert_close(arrays(weights), theirs.weights)
    assert number(optimizer.gradient_norm) == pytest.approx(norm, rel=1e-5)


@pytest.mark.tensorflow_only
def test_sparse_gradients_are_measured_and_applied_as_dense_ones():
    """An embedding's gradient is a list of rows, and the same row can occur more than once."""
    import tensorflow as tf

    rows, ids = np.array([[1.0, 2], [3, 4], [5, 6]], "float32"), [1, 0, 1]
    dense = np.array([[3.0, 4], [6, 8], [0, 0]], "float32")
    results = []
    sparse = tf.IndexedSlices(tf.constant(rows), tf.constant(ids), tf.constant([3, 2]))
    for gradient in (sparse, tf.constant(dense)):
        weight = keras.Variable(np.ones((3, 2), "float32"))
        optimizer = PaperAdam(learning_rate=0.1, epsilon=1.0, global_clipnorm=2.0)
        optimizer.apply([gradient], [weight])
        assert number(optimizer.gradient_norm) == pytest.approx(norm_of([dense]))
        results.append(arrays([weight]))
    assert_same(*results)


# --- accumulation ---


def test_accumulation_counts_in_updates():
    """The rate, the moments, the moving average and the norm belong to updates of 3 batches."""
    weights = variables()
    optimizer = PaperAdam(
        D_MODEL, WARMUP, gradient_accumulation_steps=3, use_ema=True, ema_momentum=0.9
    )
    theirs = NumpyAdam(arrays(weights), paper_rate)
    apply = updater(optimizer, weights)
    for update in range(4):
        micro_batches = [gradients(3 * update + micro) for micro in range(3)]
        for micro, grads in enumerate(micro_batches):
            before = arrays(weights)
            apply(grads)
            if micro < 2:
                assert_same(arrays(weights), before)
                assert number(optimizer.updates) == update
                rate = paper_rate(update + 1)
                assert number(optimizer.learning_rate) == pytest.approx(rate, rel=1e-6)
        mean = [np.mean(g, axis=0) for g in zip(*micro_batches, strict=True)]
        theirs.apply(mean)
        assert_close(arrays(weights), theirs.weights)
        assert number(optimizer.gradient_norm) == pytest.approx(norm_of(mean), rel=1e-5)
        assert number(optimizer.updates) == update + 1


@pytest.mark.parametrize("accumulate", [None, 3])
def test_the_moving_average_moves_with_updates_only(accumulate):
    weights = variables()
    optimizer = PaperAdam(
        learning_rate=0.1,
        gradient_accumulation_steps=accumulate,
        use_ema=True,
        ema_momentum=0.9,
    )
    apply = updater(optimizer, weights)
    average = None
    for update in range(4):
        for micro in range(accumulate or 1):
            apply(gradients(7 * update + micro))
            if average is not None and micro < (accumulate or 1) - 1:
                assert_same(arrays(optimizer._model_variables_moving_average), average)
        if average is None:  # the first update sets it
            average = arrays(weights)
        else:
            average = [0.9 * a + 0.1 * w for a, w in zip(average, arrays(weights), strict=True)]
        assert_close(arrays(optimizer._model_variables_moving_average), average)
        average = arrays(optimizer._model_variables_moving_average)
    optimizer.finalize_variable_values(weights)
    assert_same(arrays(weights), average)


# --- updates that are skipped ---


# Fails if: a skipped update moves the moments or the weights, or still decays the weights.
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("accumulate", [None, 2])
def test_an_update_that_is_not_finite_changes_nothing_and_is_counted(bad, accumulate):
    weights = variables()
    optimizer = PaperAdam(
        D_MODEL,
        WARMUP,
        weight_decay=0.1,
        use_ema=True,
        global_clipnorm=1.0,
        gradient_accumulation_steps=accumulate,
    )

    apply = updater(optimizer, weights)

    def update(step, poison):
        for micro in range(accumulate or 1):
            grads = gradients(9 * step + micro)
            if poison and micro == 0:
                grads[0][2, 3] = bad
            apply(grads)

    def state():
        moments = optimizer._momentums + optimizer._velocities
        return arrays(weights + moments + optimizer._model_variables_moving_average)

    def counters():
        return number(optimizer.skipped_updates), number(optimizer.skipped_in_a_row)

    update(0, poison=False)
    assert counters() == (0, 0)
    for skipped in (1, 2):
        before = state()
        update(skipped, poison=True)
        assert_same(state(), before)
        assert counters() == (skipped, skipped)
        assert not np.isfinite(number(optimizer.gradient_norm))
        assert number(optimizer.updates) == skipped + 1
        rate = paper_rate(skipped + 2)  # the schedule counts skipped updates
        assert number(optimizer.learning_rate) == pytest.approx(rate, rel=1e-6)
    update(3, poison=False)
    assert counters() == (2, 0)
    assert all((a != b).any() for a, b in zip(state(), before, strict=True))
    assert all(np.isfinite(a).all() for a in state())


def test_the_average_starts_at_the_first_update_that_counts():
    weights = variables()
    optimizer = PaperAdam(learning_rate=0.1, use_ema=True)
    apply = updater(optimizer, weights)
    apply([np.full(s, np.nan, "float32") for s in SHAPES])
    apply(gradients(1))
    assert_same(arrays(optimizer._model_variables_moving_average), arrays(weights))


def test_without_an_update_that_counts_there_is_no_average_to_end_with():
    weights = variables()
    before = arrays(weights)
    optimizer = PaperAdam(learning_rate=0.1, use_ema=True)
    updater(optimizer, weights)([np.full(s, np.nan, "float32") for s in SHAPES])
    optimizer.finalize_variable_values(weights)
    assert_same(arrays(weights), before)


# --- through fit ---


def transformer(optimizer, **options):
    keras.utils.set_random_seed(5)
    model = models.Transformer(
        V, num_layers=1, d_model=D_MODEL, num_heads=2, d_ff=17, dropout=0.0, **options
    )
    jit = keras.backend.backend() == "jax"
    model.compile(
        optimizer,
        loss=SmoothedCrossentropy(0.1),
        weighted_metrics=[NatsPerToken()],
        jit_compile=jit,
    )
    return model


def joined(batches, rows, width):
    """Joins an update's micro-batches to one batch, for an optimizer that does not accumulate."""

    def padded(x, first):
        return np.pad(x, ((first, rows - first - x.shape[0]), (0, width - x.shape[1])))

    total = None
    first = 0
    for batch in batches:
        parts = [padded(x, first) for x in keras.tree.flatten(batch)]
        total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
        first += batch[1].shape[0]
    inputs, labels, weights = keras.tree.pack_sequence_as(batches[0], total)
    return inputs, labels, weights / len(batches)


class Norms(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(number(self.model.optimizer.gradient_norm))


def test_k_accumulated_batches_are_one_big_batch():
    """With two vocabularies, the source embedding's gradient is sparse on TensorFlow."""
    plan = data.BatchPlan(random_pairs(61, V), 35, shapes="static", accumulate=3)
    clipped = {"d_model": D_MODEL, "warmup_steps": WARMUP, "global_clipnorm": 0.5}
    small = transformer(
        PaperAdam(**clipped, gradient_accumulation_steps=3), target_vocabulary_size=V + 6
    )
    norms = Norms()
    small.fit(plan.dataset(), steps_per_epoch=9, verbose=0, callbacks=[norms])
    assert number(small.optimizer.updates) == 3

    big = transformer(PaperAdam(**clipped), target_vocabulary_size=V + 6)
    before = big.get_weights()
    for update in range(3):
        inputs, labels, weights = joined(plan.batches(update), rows=17, width=7)
        assert weights.sum() == pytest.approx(1)
        big.train_on_batch(inputs, labels, weights)
        big_norm = number(big.optimizer.gradient_norm)
        assert norms.values[3 * update + 2] == pytest.approx(big_norm, rel=1e-4)
        assert big_norm > 0.5  # so it is clipped
    assert_close(small.get_weights(), big.get_weights(), rtol=1e-4, atol=1e-5)
    assert all((a != b).any() for a, b in zip(small.get_weights(), before, strict=True))


def test_one_bad_batch_in_fit_is_skipped():
    plan = data.BatchPlan(random_pairs(61, V), 48, shapes="static")
    batch = plan.batches(0)[0]
    model = transformer(PaperAdam(D_MODEL, WARMUP))
    optimizer = model.optimizer
    model.train_on_batch(*batch)
    before = arrays(model.variables + optimizer._momentums + optimizer._velocities)
    inputs, labels, weights = batch
    model.train_on_batch(inputs, labels, np.where(weights > 0, np.float32(np.inf), 0))
    after = arrays(model.variables + optimizer._momentums + optimizer._velocities)
    assert_same(after, before)
    assert number(optimizer.skipped_updates) == 1
    model.train_on_batch(*batch)
    assert number(optimizer.skipped_in_a_row) == 0 and number(optimizer.updates) == 3
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_loss_scale_skips_counts_and_halves_until_the_gradient_fits():
    plan = data.BatchPlan(random_pairs(61, V), 48, shapes="static")
    (batch,) = plan.batches(0)
    policy = keras.DTypePolicy("mixed_float16")
    start = 2.0**24
    optimizer = LossScale(PaperAdam(D_MODEL, WARMUP), initial_scale=start)
    model = transformer(optimizer, dtype=policy)
    inner = optimizer.inner_optimizer
    before = model.get_weights()
    model.train_on_batch(*batch)
    assert_same(model.get_weights(), before)
    assert number(inner.skipped_updates) == number(inner.skipped_in_a_row) == 1
    assert number(optimizer.dynamic_scale) == start / 2
    assert number(optimizer.iterations) == 1
    updates = 1
    while number(inner.skipped_in_a_row):
        assert updates < 24
        model.train_on_batch(*batch)
        updates += 1
    skipped = number(inner.skipped_updates)
    assert skipped == updates - 1
    assert number(optimizer.dynamic_scale) == start / 2**skipped
    assert number(optimizer.iterations) == updates
    rate = paper_rate(updates + 1)  # the schedule counts skipped updates
    assert number(optimizer.learning_rate) == pytest.approx(rate, rel=1e-6)
    assert all((a != b).any() for a, b in zip(model.get_weights(), before, strict=True))
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_loss_scale_works_in_fit():
    plan = data.BatchPlan(random_pairs(61, V), 48, shapes="static")
    optimizer = LossScale(PaperAdam(D_MODEL, WARMUP), initial_scale=128.0)
    model = transformer(optimizer, dtype=keras.DTypePolicy("mixed_float16"))
    history = model.fit(plan.dataset(), steps_per_epoch=4, epochs=3, verbose=0).history
    assert number(optimizer.iterations) == 12
    assert number(optimizer.inner_optimizer.skipped_updates) == 0
    assert history["nats_per_token"][-1] < history["nats_per_token"][0]


# --- configuration ---


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: PaperAdam(13, 37, global_clipnorm=1.0, gradient_accumulation_steps=3),
        lambda: PaperAdam(learning_rate=0.01, beta_2=0.9, weight_decay=0.1, use_ema=True),
        lambda: LossScale(PaperAdam(13, 37), initial_scale=8.0),
    ],
)
def test_serialization_round_trip(optimizer):
    optimizer = optimizer()
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()
    assert number(copy.learning_rate) == number(optimizer.learning_rate)
    inner = getattr(copy, "inner_optimizer", copy)
    assert type(inner) is PaperAdam
    if inner.learning_rate is not inner._learning_rate:
        assert type(inner._learning_rate) is PaperSchedule


def test_a_restored_optimizer_goes_on_where_it_was(tmp_path):
    """A `.keras` file holds the schedule's step, the moments and the counters."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.compile(PaperAdam(13, 37), "mse", jit_compile=False)
    x, y = np.ones((5, 3), "float32"), np.ones((5, 2), "float32")
    for target in (y, y * np.nan, y):
        model.train_on_batch(x, target)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    assert number(copy.optimizer.skipped_updates) == 1
    assert number(copy.optimizer.learning_rate) == number(model.optimizer.learning_rate)
    for each in (model, copy):
        each.train_on_batch(x, y)
    assert_same(copy.get_weights(), model.get_weights())


@pytest.mark.parametrize("wrong", [{"clipnorm": 1.0}, {"clipvalue": 1.0}])
def test_only_the_whole_gradient_is_clipped(wrong):
    with pytest.raises(ValueError, match="global_clipnorm"):
        PaperAdam(512, **wrong)


@pytest.mark.parametrize("norm", [0, -1.0, float("nan"), float("inf")])
def test_a_norm_that_clips_nothing_is_refused(norm):
    with pytest.raises(ValueError, match=f"global_clipnorm is a number above 0, got {norm}"):
        PaperAdam(512, global_clipnorm=norm)


@pytest.mark.parametrize("wrong", [{"amsgrad": True}, {"ema_overwrite_frequency": 3}])
def test_what_it_has_not_is_refused(wrong):
    with pytest.raises(ValueError, match="amsgrad.*ema_overwrite_frequency"):
        PaperAdam(512, **wrong)


def test_the_schedule_needs_the_width():
    with pytest.raises(ValueError, match="d_model"):
        PaperAdam()


def test_float16_does_not_accumulate():
    with pytest.raises(ValueError, match="accumulation"):
        LossScale(PaperAdam(512, gradient_accumulation_steps=2))
