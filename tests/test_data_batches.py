"""Laws of token-budget batches."""

import itertools
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_transformer import data, text
from keras_transformer.data import layout

END, START = 3, 2
MODES = ["dynamic", "static"]


def corpus(lengths, max_length=61, drop=0):
    """Returns pairs with these (source, target) lengths, without specials. All ids are distinct."""
    source, target = np.array(lengths).reshape(-1, 2).T
    return data.EncodedPairs(
        source_ids=np.arange(7, 7 + source.sum(), dtype=np.int32),
        source_offsets=np.concatenate([[0], np.cumsum(source)]),
        target_ids=np.arange(1_000_007, 1_000_007 + target.sum(), dtype=np.int32),
        target_offsets=np.concatenate([[0], np.cumsum(target)]),
        source_end_id=END,
        target_start_id=START,
        target_end_id=END + 2,
        max_length=max_length,
        dropped_empty=0,
        dropped_long=drop,
    )


def sentences(count, longest=23, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.integers(1, longest + 1, count)
    target = np.clip(source + rng.integers(-3, 4, count), 1, longest)
    return corpus(np.stack([source, target], axis=1))


def rows_of(batch):
    """Reads a batch back as a list of (source, target) ids without specials."""
    inputs, labels, weights = batch
    read = []
    rows = zip(inputs["source_ids"], inputs["target_ids"], labels, weights, strict=True)
    for source, target, label, weight in rows:
        length, size = np.count_nonzero(source), np.count_nonzero(label)
        assert (source[length:] == 0).all() and (label[size:] == 0).all()
        assert ((label > 0) == (weight > 0)).all()
        if not size:
            assert not length and not target.any()
            continue
        assert source[length - 1] == END and label[size - 1] == END + 2
        assert target.tolist() == [START, *label[: size - 1], *[0] * (len(label) - size)]
        read.append((tuple(source[: length - 1].tolist()), tuple(label[: size - 1].tolist())))
    return read


def epoch_batches(plan, epoch=0):
    """Returns the batches of one epoch. Needs accumulate=1."""
    count = plan.batches_per_epoch
    return [plan.batches(update)[0] for update in range(epoch * count, (epoch + 1) * count)]


def everything(encoded):
    return sorted(
        (tuple(encoded.source(i).tolist()), tuple(encoded.target(i).tolist()))
        for i in range(len(encoded))
    )


def equal(a, b):
    return all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for x, y in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
    )


lengths = st.lists(st.tuples(st.integers(1, 29), st.integers(1, 29)), min_size=1, max_size=131)


@given(
    lengths=lengths,
    seed=st.integers(0, 2**31),
    mode=st.sampled_from(MODES),
    rows_multiple=st.sampled_from([1, 2, 3, 5]),
    budget=st.integers(151, 499),
)
def test_a_plan_is_a_partition_within_the_budget(lengths, seed, mode, rows_multiple, budget):
    encoded = corpus(lengths)
    plan = data.BatchPlan(encoded, budget, seed=seed, shapes=mode, rows_multiple=rows_multiple)
    for epoch in (0, 2):
        batches = epoch_batches(plan, epoch)
        read = [rows_of(batch) for batch in batches]
        assert sorted(itertools.chain.from_iterable(read)) == everything(encoded)
        shapes = set()
        for (inputs, labels, weights), pairs in zip(batches, read, strict=True):
            rows, source_width = inputs["source_ids"].shape
            assert inputs["target_ids"].shape == labels.shape == weights.shape
            assert labels.shape[0] == rows and rows % rows_multiple == 0 and pairs
            assert rows * max(source_width, labels.shape[1]) <= budget
            parts = np.array_split((labels > 0).any(axis=1), rows_multiple)
            assert np.ptp([part.sum() for part in parts]) <= 1
            shapes.add((rows, source_width, labels.shape[1]))
        assert plan.shapes(epoch) == sorted(shapes)
        positions = sum(rows * (source + target) for rows, source, target in plan_shapes(batches))
        tokens = sum(len(s) + len(t) + 2 for s, t in everything(encoded))
        assert plan.padding(epoch) == pytest.approx(1 - tokens / positions)


# Fails if: the devices change which pairs sit together, their weights, or the order of updates.
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("devices", [3, 8])
def test_devices_change_only_the_rows_of_zeros(mode, devices):
    encoded = sentences(101)
    one = data.BatchPlan(encoded, 128, seed=4, shapes=mode, accumulate=2)
    many = data.BatchPlan(encoded, 128, seed=4, shapes=mode, accumulate=2, devices=devices)
    assert many.updates_per_epoch == one.updates_per_epoch
    passes = [epoch_batches(plan, 1) for plan in (one, many)]
    passes.append(list(one.evaluation(encoded)))
    passes.append(list(many.evaluation(encoded)))
    for batches, shared in (passes[:2], passes[2:]):
        for batch, parts in zip(batches, shared, strict=True):
            batch, parts = (keras.tree.map_structure(np.asarray, each) for each in (batch, parts))
            assert rows_of(batch) == rows_of(parts)
            rows = [len(each[1]) for each in (batch, parts)]
            assert rows[1] % devices == 0 and rows[0] <= rows[1] < rows[0] + devices
            real = (parts[1] > 0).any(axis=1)
            assert np.ptp([part.sum() for part in np.array_split(real, devices)]) <= 1
    for batch, parts in zip(*passes[:2], strict=True):
        totals = [np.sum(each[2], dtype="float64") for each in (batch, parts)]
        assert totals[0] == pytest.approx(totals[1], rel=1e-6)
    with pytest.raises(ValueError, match="devices are at least 1.*devices=0"):
        data.BatchPlan(encoded, 128, devices=0)


# Fails if: rows that fill up a batch have a weight, are too many, or all are one device's; a row
# is lost.
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("devices", [3, 4, 8])
def test_windows_and_images_are_filled_up_for_devices(devices):
    ids = np.arange(1, 102)
    images = np.random.default_rng(1).integers(256, size=(13, 5, 7, 1))

    def plans(count):
        windows = data.WindowPlan(ids, 4, 5, devices=count)
        pictures = data.ImagePlan(images, np.arange(13), 5, shift=1, devices=count)
        return (windows, windows.evaluation(ids)), (pictures, pictures.evaluation(images, ids[:13]))

    for (one, passed), (many, passed_by_many) in zip(plans(1), plans(devices), strict=True):
        for batch, parts in [
            *((one.batch(update), many.batch(update)) for update in range(4)),
            *zip(passed, passed_by_many, strict=True),
        ]:
            batch, parts = ([np.asarray(array) for array in each] for each in (batch, parts))
            rows = [len(each[0]) for each in (batch, parts)]
            assert rows[1] % devices == 0 and rows[0] <= rows[1] < rows[0] + devices
            weights = parts[2].reshape(rows[1], -1).sum(axis=1)
            real = weights > 0
            assert real.sum() == rows[0] and weights.sum() == pytest.approx(1)
            assert np.ptp([part.sum() for part in np.array_split(real, devices)]) <= 1
            for array, filled in zip(batch, parts, strict=True):
                np.testing.assert_array_equal(filled[real], array)
    for plan in (data.WindowPlan, data.ImagePlan):
        with pytest.raises(ValueError, match="devices is at least 1, got 0"):
            plan(*((ids, 4) if plan is data.WindowPlan else (images, ids[:13])), 5, devices=0)


def plan_shapes(batches):
    return [(*inputs["source_ids"].shape, labels.shape[1]) for inputs, labels, _ in batches]


@given(lengths=lengths, mode=st.sampled_from(MODES), accumulate=st.sampled_from([1, 2, 3, 7]))
def test_weights_of_an_update_are_per_target_token(lengths, mode, accumulate):
    plan = data.BatchPlan(corpus(lengths), 97, shapes=mode, accumulate=accumulate)
    for update in (0, 1, 5):
        batches = plan.batches(update)
        tokens = sum(np.count_nonzero(labels) for _, labels, _ in batches)
        assert len(batches) == accumulate
        for _, labels, weights in batches:
            np.testing.assert_allclose(weights, (labels > 0) * accumulate / tokens, rtol=1e-6)
            assert weights.dtype == np.float32


@pytest.mark.parametrize("mode", MODES)
def test_accumulation_groups_the_same_endless_sequence(mode):
    encoded = sentences(199)
    single = data.BatchPlan(encoded, 128, shapes=mode, seed=5)
    triple = data.BatchPlan(encoded, 128, shapes=mode, seed=5, accumulate=3)
    assert single.batches_per_epoch % 3  # so that some updates cross the end of an epoch
    assert triple.updates_per_epoch == single.updates_per_epoch / 3
    grouped = [
        batch for update in range(single.batches_per_epoch) for batch in triple.batches(update)
    ]
    for index, (inputs, labels, _) in enumerate(grouped):
        expected_inputs, expected_labels, _ = single.batches(index)[0]
        assert equal((inputs, labels), (expected_inputs, expected_labels))


@pytest.mark.parametrize("mode", MODES)
def test_an_update_is_a_pure_function_of_seed_and_update(mode):
    encoded = sentences(211)
    sequential = data.BatchPlan(encoded, 128, shapes=mode, seed=5, accumulate=2)
    updates = [sequential.batches(update) for update in range(90)]
    assert sequential.updates_per_epoch < 30
    for update in (89, 3, 47, 0, 88):
        again = data.BatchPlan(encoded, 128, shapes=mode, seed=5, accumulate=2)
        assert equal(again.batches(update), updates[update])
        assert equal(sequential.batches(update), updates[update])


def compositions(plan, epoch):
    return [frozenset(rows_of(batch)) for batch in epoch_batches(plan, epoch)]


@pytest.mark.parametrize("mode", MODES)
def test_epochs_and_seeds_differ_in_order_and_in_company(mode):
    encoded = sentences(997)
    plan = data.BatchPlan(encoded, 128, shapes=mode, seed=1)
    other = data.BatchPlan(encoded, 128, shapes=mode, seed=2)
    first, second, third = compositions(plan, 0), compositions(plan, 1), compositions(other, 0)
    assert len(first) == len(second) == len(third)
    for a, b in ((first, second), (first, third)):
        assert len(set(a) & set(b)) < len(a) / 2  # pairs are grouped differently
    lengths = [np.mean([len(s) for s, _ in members]) for members in first]
    assert abs(np.corrcoef(lengths[1:], lengths[:-1])[0, 1]) < 0.5  # not sorted by length
    again = [np.mean([len(s) for s, _ in members]) for members in second]
    assert abs(np.corrcoef(lengths, again)[0, 1]) < 0.5


@pytest.mark.parametrize("rows_multiple", [1, 8])
def test_static_shapes_are_few_with_evaluation_and_full(rows_multiple):
    rng = np.random.default_rng(0)
    encoded = corpus(1 + rng.geometric(0.06, (3001, 2)).clip(max=55))
    valid = corpus(
        np.concatenate([1 + rng.geometric(0.06, (307, 2)).clip(max=55), [[60, 1], [3, 60]]])
    )
    plan = data.BatchPlan(encoded, 1024, shapes="static", rows_multiple=rows_multiple)
    shapes = {shape for epoch in range(3) for shape in plan.shapes(epoch)}
    assert len(shapes) > 10  # the plan uses many of the shapes that it may use
    evaluation = list(map(to_numpy, plan.evaluation(valid)))
    assert len(shapes | set(plan_shapes(evaluation))) <= 16
    assert set(plan_shapes(evaluation)) - shapes == {
        (1024 // 61 // rows_multiple * rows_multiple, 61, 61)
    }
    filling = [rows - len(rows_of(b)) for b in epoch_batches(plan) for rows in [len(b[1])]]
    assert np.count_nonzero(filling) <= 1  # only the last batch has rows without a pair


def test_static_bounds_are_optimal(monkeypatch):
    monkeypatch.setattr(layout, "MAX_STATIC_SHAPES", 6)
    lengths = 1 + np.random.default_rng(3).geometric(0.15, 97).clip(max=18)

    def padded(bounds):
        return np.take(bounds, np.searchsorted(bounds, lengths)).sum()

    values = np.unique(lengths)
    best = min(
        padded(np.array([*inner, values[-1]])) for inner in itertools.combinations(values[:-1], 4)
    )
    assert padded(layout.static_bounds(lengths, limit=values[-1])) == best


def to_numpy(batch):
    return keras.tree.map_structure(np.asarray, batch)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows_multiple", [1, 3])
def test_evaluation_is_one_pass_with_exact_weights(mode, rows_multiple):
    valid = sentences(101, seed=7)
    plan = data.BatchPlan(sentences(211), 128, shapes=mode, rows_multiple=rows_multiple)
    dataset = plan.evaluation(valid)
    for _ in range(2):
        batches = list(map(to_numpy, dataset))
        assert len(batches) == len(dataset)
        assert sorted(itertools.chain.from_iterable(map(rows_of, batches))) == everything(valid)
    assert all(rows % rows_multiple == 0 for rows, _, _ in plan_shapes(batches))
    # Keras averages the batches' sums, weighted by rows. That equals the mean over all tokens.
    rows = np.array([len(labels) for _, labels, _ in batches])
    tokens = sum((labels > 0).sum() for _, labels, _ in batches)
    for share, (_, labels, weights) in zip(rows / rows.sum(), batches, strict=True):
        np.testing.assert_allclose(share * weights, (labels > 0) / tokens, rtol=1e-5)


def test_dataset_starts_where_asked_and_never_ends():
    plan = data.BatchPlan(sentences(53), 128, accumulate=2, seed=3)
    dataset = plan.dataset(first_update=4)
    expected = itertools.chain.from_iterable(plan.batches(update) for update in range(4, 40))
    for batch, expected_batch in zip(dataset, expected, strict=False):
        assert equal(to_numpy(batch), expected_batch)
    if keras.backend.backend() == "tensorflow":
        assert dataset.cardinality() == -1  # infinite, so Keras asks for steps_per_epoch


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tokens_per_batch": 23}, "longest has 24 tokens .*max_length=23"),
        ({"tokens_per_batch": 95, "rows_multiple": 4}, "max_length=23"),
        ({"shapes": "square"}, "'square'"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"rows_multiple": 0}, "rows_multiple=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        data.BatchPlan(corpus([(23, 5), (1, 1)]), **arguments)


def test_budget_is_usable_to_its_last_token():
    plan = data.BatchPlan(corpus([(23, 5)]), 48, shapes="dynamic", rows_multiple=2)
    assert plan.shapes() == [(2, 24, 6)]


def test_evaluation_rejects_pairs_beyond_every_bucket():
    plan = data.BatchPlan(corpus([(5, 5)], max_length=7), shapes="static")
    with pytest.raises(ValueError, match="longest has 8 tokens"):
        plan.evaluation(corpus([(7, 5)]))


def test_summary_says_what_a_plan_costs():
    plan = data.BatchPlan(corpus([(2, 4)] * 21), 15, shapes="dynamic", accumulate=2)
    assert str(plan) == plan.summary()
    for part in ("21 pairs", "3.5 updates", "1 dynamic shapes", "0.0% padding", "30 target tokens"):
        assert part in str(plan)


def toy_model(vocabulary_size):
    source, target = (
        keras.Input((None,), dtype="int32", name=n) for n in ("source_ids", "target_ids")
    )
    embed = keras.layers.Embedding(vocabulary_size, 5)
    context = keras.layers.GlobalAveragePooling1D(keepdims=True)(embed(source))
    logits = keras.layers.Dense(vocabulary_size)(embed(target) + context)
    model = keras.Model([source, target], logits)
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        weighted_metrics=["sparse_categorical_accuracy"],
        jit_compile=keras.backend.backend() == "jax",  # compiling is faster only there
    )
    return model


class Letters:
    pad_id, start_id, end_id = 0, 2, 3

    def encode(self, texts):
        return [[4 + ord(letter) - ord("a") for letter in text] for text in texts]


@pytest.mark.parametrize("mode", MODES)
def test_fit_takes_the_dataset_and_validates_every_epoch(mode):
    pairs = [("ab" * n, "cd" * n) for n in (1, 2, 3)] * 13
    plan = data.BatchPlan(data.encode_pairs(pairs, Letters(), max_length=8), 64, shapes=mode)
    valid = plan.evaluation(data.encode_pairs(pairs[:5], Letters(), max_length=8))
    model = toy_model(11)
    steps = plan.batches_per_epoch
    history = model.fit(
        plan.dataset(), epochs=2, steps_per_epoch=steps, validation_data=valid, verbose=0
    ).history
    assert len({shape[1:] for shape in plan.shapes()}) > 2  # so that Keras meets new shapes
    assert model.optimizer.iterations == 2 * steps
    assert history["val_loss"][1] < history["val_loss"][0]
    assert history["loss"][1] < history["loss"][0]


def test_shapes_are_static_where_keras_compiles_each():
    plan = data.BatchPlan(sentences(50), 61)
    assert plan.static == (keras.backend.backend() == "jax")  # tests run on the CPU


def test_shapes_are_static_on_tensorflow_with_an_accelerator(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("concerns TensorFlow's devices")
    import tensorflow as tf

    devices = [types.SimpleNamespace(device_type=kind) for kind in ("CPU", "TPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda: devices)
    assert data.BatchPlan(sentences(50), 61).static


def test_token_batches_is_the_plan_in_one_line():
    pairs = [("abc", "de"), ("b", "cd"), ("", "a")] * 5
    dataset = data.token_batches(pairs, Letters(), 16, seed=4, shapes="static", max_length=8)
    plan = data.BatchPlan(
        data.encode_pairs(pairs, Letters(), max_length=8), 16, seed=4, shapes="static"
    )
    for update, batch in zip(range(7), dataset, strict=False):
        assert equal(to_numpy(batch), plan.batches(update)[0])


def test_multi30k_padding_and_shapes(data_dir):
    folder = data_dir / "multi30k_en_de"
    pairs = data.read_parallel(folder / "train.en", folder / "train.de")
    tokenizer = text.train_tokenizer(pairs, vocabulary_size=10_000)
    encoded = data.encode_pairs(pairs, tokenizer)
    dynamic, static = (data.BatchPlan(encoded, 4096, shapes=mode) for mode in MODES)
    assert dynamic.padding() < 0.08
    assert static.padding() < 0.18 and len(static.shapes()) <= 16


@pytest.mark.tensorflow_only
def test_no_tuning_thread_keeps_a_pass_from_ending():
    plan = data.BatchPlan(sentences(7), 128)
    for dataset in (plan.dataset(), plan.evaluation(plan.encoded)):
        assert dataset.options().autotune.enabled is False


ENDS_EARLY = """
import time, numpy, keras_transformer as kt
from keras_transformer.ops.input_pipeline import endless

def batch(number):
    if number == 3:
        print("begun", flush=True)
        time.sleep(1.5)
        print("made", flush=True)
    return numpy.zeros((2, 2), "int32")

batches = iter(endless(batch, 0))
next(batches)
time.sleep(0.5)
print("over", flush=True)
"""


# Fails if: a process ends while tf.data's thread is in Python. It then hangs or aborts, if NumPy
# was computing.
@pytest.mark.tensorflow_only
def test_a_process_ends_after_the_batch_that_is_being_made():
    done = subprocess.run(
        [sys.executable, "-c", ENDS_EARLY], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.split()) == (0, ["begun", "over", "made"]), done.stderr
