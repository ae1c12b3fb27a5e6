"""Laws of encoder-only models: hidden tokens, classes, and moving an encoder to a classifier."""

import shutil
import sys

import hub_models
import keras
import labelled_text
import numpy as np
import pretrain_and_classify
import pytest
from keras import ops

from keras_transformer import data, layers, models, testing, text
from keras_transformer.data.masked import predicted_count
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.metrics import TokenAccuracy

B, S, P, V, C = 3, 7, 2, 23, 5
SIZES = {"num_layers": 2, "d_model": 10, "num_heads": 2, "d_ff": 13, "norm": "pre"}
IDS = np.array([[2, 9, 4, 14, 7, 11, 3], [2, 8, 17, 4, 3, 0, 0], [2, 13, 3, 0, 0, 0, 0]], "int32")
INPUTS = {"token_ids": IDS, "masked_positions": np.array([[2, 4], [3, 0], [1, 0]], "int32")}
# Eagerly JAX compiles every operation by itself; tests/test_transformer.py has that.
JIT = {"jit": keras.backend.backend() == "jax"}


def array(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def language_model(**options):
    return models.MaskedLanguageModel(V, **{**SIZES, "max_length": 11, **options})


def text_classifier(**options):
    return models.TextClassifier(V, C, **{**SIZES, "max_length": 11, **options})


# --- the models


# Fails if: the implicit mask is dropped.
def test_padding_and_neighbours_change_no_logits():
    options = {"positions": "sinusoidal", "max_length": None, "norm": "post"}
    model, classifier = language_model(**options), text_classifier(**options)
    testing.assert_padding_invariant(model, INPUTS, target="masked_positions", **JIT)
    testing.assert_padding_invariant(classifier, IDS, **JIT)
    for each, inputs in ((model, INPUTS), (classifier, IDS)):
        testing.assert_batch_invariant(each, inputs, **JIT)
        testing.assert_finite_when_masked(each, inputs, **JIT)


def test_padding_changes_nothing_in_half_precision():
    model, classifier = (make(dtype="float16") for make in (language_model, text_classifier))
    testing.assert_padding_invariant(model, INPUTS, target="masked_positions", **JIT)
    testing.assert_padding_invariant(classifier, IDS, **JIT)


def test_padding_changes_nothing_compiled():
    model = language_model(num_layers=1)
    testing.assert_padding_invariant(model, INPUTS, target="masked_positions", jit=True)


def test_ids_and_positions_may_be_floats_as_in_a_model_that_keras_rebuilds():
    model = language_model()
    token_ids, positions = (INPUTS[name].astype("float32") for name in INPUTS)
    found = model.decode(model.encode(token_ids), positions)
    np.testing.assert_array_equal(array(found), array(model(INPUTS)))


# Fails if: the config lacks the dropout; a layer has another name.
def test_they_save_and_load():
    model, classifier = language_model(use_bias=True), text_classifier(dropout=0.3)
    testing.assert_saves_and_loads(model, INPUTS)
    testing.assert_saves_and_loads(classifier, IDS)
    # Files of earlier versions are read by these names.
    for each in (model, classifier):
        assert {"embedding", "encoder"} <= {weight.path.split("/")[0] for weight in each.weights}


# Fails if: the encoder is causal; the logits belong to other positions.
def test_a_hidden_token_is_told_by_both_sides():
    model = language_model(dropout=0.0)
    positions = np.tile(np.arange(S, dtype="int32"), (B, 1))

    def logits(ids):
        return array(model({"token_ids": ids, "masked_positions": positions}))

    before = logits(IDS)
    for t in range(S):
        ids = IDS.copy()
        ids[0, t] = 19
        changed = np.abs(logits(ids) - before).max(axis=-1) > 1e-6
        assert changed[0].all() and not changed[1:].any()
    asked = array(model(INPUTS))
    for row, column in np.ndindex(B, P):
        at = INPUTS["masked_positions"][row, column]
        np.testing.assert_allclose(asked[row, column], before[row, at], atol=1e-5)


# Fails if: the logits are in half precision.
def test_classes_are_in_full_precision_from_half_precision_layers():
    classifier = text_classifier(dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(classifier(IDS).dtype) == "float32"
    assert keras.backend.standardize_dtype(classifier.encoder.compute_dtype) == "bfloat16"


# Fails if: padding counts in the mean; the sum is in half precision.
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_mean_is_of_real_tokens(dtype):
    x = np.random.default_rng(1).normal(size=(B, S, 13)).astype("float32")
    mask = IDS != 0
    expected = [x[row, : mask[row].sum()].mean(axis=0) for row in range(B)]
    pool = layers.MeanPooling(dtype=dtype)
    tolerance = 1e-6 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(array(pool(x, mask=mask)), expected, atol=tolerance)
    np.testing.assert_allclose(array(pool(x)), x.mean(axis=1), atol=tolerance)
    assert not array(pool(x, mask=np.zeros_like(mask))).any()
    symbol = pool(keras.Input((None, 13)))
    assert symbol.shape == (None, 13)
    # The sum is too large for half precision.
    hundreds = np.full((1, 1000, 1), 100)
    every = np.ones((1, 1000), bool)
    assert array(layers.MeanPooling(dtype="float16")(hundreds, mask=every)) == 100


# Fails if: the encoder comes without its embedding.
def test_an_encoder_is_taken_over_whole_and_nothing_else():
    model, classifier = language_model(), text_classifier()
    classes = [array(weight) for weight in classifier.classes.weights]
    assert np.abs(array(classifier.embedding(IDS)) - array(model.embedding(IDS))).max() > 0.1
    classifier.take_encoder(model)
    own = array(classifier.encoder(classifier.embedding(IDS)))
    np.testing.assert_array_equal(own, array(model.encode(IDS)))
    for weight, before in zip(classifier.classes.weights, classes, strict=True):
        np.testing.assert_array_equal(array(weight), before)
    # The weights are copied: training one model does not change the other.
    model.embedding.token.embeddings.assign(model.embedding.token.embeddings * 2)
    np.testing.assert_array_equal(array(classifier.encoder(classifier.embedding(IDS))), own)


@pytest.mark.parametrize("options", [{"d_ff": 17}, {"max_length": 7}, {"num_layers": 3}])
def test_an_encoder_of_another_size_is_refused(options):
    classifier = text_classifier()
    before = classifier.get_weights()
    with pytest.raises(ValueError, match="differ in size"):
        classifier.take_encoder(language_model(**options))
    for mine, old in zip(classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, old)


# --- batches of hidden tokens, and of classes


class Words:
    """A tokenizer of numbers: "7 9" is [7, 9]. Ids 0 to 3 are special, and 4 is the mask."""

    pad_id, unknown_id, start_id, end_id, mask_id = 0, 1, 2, 3, 4

    def encode(self, line):
        return [int(word) for word in line.split()]

    def special_ids(self):
        return [0, 1, 2, 3, 4]

    @property
    def vocabulary_size(self):
        return V


def corpus(count=307, longest=31, seed=1, first=5):
    """Returns encoded texts of random ids from `first`, with 0 to `longest` tokens."""
    rng = np.random.default_rng(seed)
    lines = [rng.integers(first, V, n) for n in rng.integers(0, longest + 1, count)]
    lines = [" ".join(map(str, line)) for line in lines]
    return data.encode_texts(lines, Words(), labels=np.arange(count) % C, max_length=67)


def restored(batch):
    """Returns the rows as they were before masking."""
    inputs, labels, _ = batch
    ids = inputs["token_ids"].copy()
    rows, columns = np.nonzero(labels)
    ids[rows, inputs["masked_positions"][rows, columns]] = labels[rows, columns]
    return ids


def epoch_of(plan, number=0):
    first = number * plan.batches_per_epoch
    return [plan.batches(u)[0] for u in range(first, first + plan.batches_per_epoch)]


def as_texts(rows):
    return sorted(tuple(row[row > 0].tolist()) for row in rows if row.any())


# Fails if: the positions are not those of the hidden tokens.
@pytest.mark.parametrize("shapes", ["dynamic", "static"])
def test_an_epoch_holds_every_text_once_under_its_masks(shapes):
    encoded = corpus()
    plan = data.MaskedPlan(encoded, Words(), 211, shapes=shapes)
    batches = epoch_of(plan)
    found = as_texts([row for batch in batches for row in restored(batch)])
    texts = [encoded.text(i).tolist() for i in range(len(encoded))]
    assert found == sorted((2, *ids, 3) for ids in texts if ids)
    assert all(batch[0]["token_ids"].size <= 211 for batch in batches)
    pairs = {(batch[0]["token_ids"].shape, batch[1].shape) for batch in batches}
    assert len(pairs) == len({token_shape for token_shape, _ in pairs})  # P follows from S
    if shapes == "static":
        assert len(pairs) <= 16


# Fails if: a special id is hidden; the shares are 0.7 or 0.1; special ids are drawn.
def test_the_share_of_tokens_hidden_and_what_stands_there_instead():
    encoded = corpus(2003, first=1)  # the text also contains unknown ids and masks
    plan = data.MaskedPlan(encoded, Words(), 1009)
    masked = random = same = 0
    for batch in epoch_of(plan):
        inputs, labels, weights = batch
        ids, before, positions = inputs["token_ids"], restored(batch), inputs["masked_positions"]
        used = labels > 0
        assert (labels[used] > 4).all() and (positions[~used] == 0).all()
        assert (before[ids != before] > 4).all()  # nothing special was hidden
        ordinary = (before > 4).sum(axis=1)
        np.testing.assert_array_equal(used.sum(axis=1), predicted_count(ordinary))
        assert all((np.diff(row[u]) > 0).all() for row, u in zip(positions, used, strict=True))
        shown = np.take_along_axis(ids, positions, axis=1)[used]
        assert not np.isin(shown, [0, 1, 2, 3]).any()
        masked += (shown == 4).sum()
        same += (shown == labels[used]).sum()
        random += ((shown != 4) & (shown != labels[used])).sum()
    total = masked + random + same
    assert total > 4000  # so that 3 deviations are below 0.02
    assert abs(masked / total - 0.8) < 0.02
    # A random token may be the old one.
    assert abs(random / total - 0.1 * (1 - 1 / (V - 5))) < 0.015
    assert abs(total / encoded.ordinary.sum() - 0.15) < 0.01


def test_how_many_are_predicted():
    assert predicted_count([0, 1, 3, 9, 10, 20, 100]).tolist() == [0, 1, 1, 1, 2, 3, 15]
    assert predicted_count([0, 1, 10], share=1.0).tolist() == [0, 1, 10]


# Fails if: weights count all positions, or only one micro-batch.
@pytest.mark.parametrize("accumulate", [1, 3])
def test_weights_count_predicted_tokens_alone(accumulate):
    plan = data.MaskedPlan(corpus(), Words(), 211, accumulate=accumulate, share=0.5)
    filled = 0
    for update in range(plan.batches_per_epoch // accumulate):
        batches = plan.batches(update)
        weights = np.concatenate([weights.ravel() for _, _, weights in batches])
        labels = np.concatenate([labels.ravel() for _, labels, _ in batches])
        assert len(set(weights.tolist()) - {0.0}) == 1
        np.testing.assert_array_equal(weights > 0, labels > 0)
        np.testing.assert_allclose(weights.sum(), accumulate, rtol=1e-5)
        filled += (labels == 0).sum()
    assert filled  # some rows have fewer predictions than the widest row of their batch


# Fails if: all updates, or all runs, use the same seed.
def test_masks_are_a_pure_function_of_seed_and_update():
    first, second, other = (data.MaskedPlan(corpus(), Words(), 211, seed=s) for s in (1, 1, 2))
    for update in (17, 3, 90):
        one, two = first.batches(update)[0], second.batches(update)[0]
        for name in ("token_ids", "masked_positions"):
            np.testing.assert_array_equal(one[0][name], two[0][name])
        np.testing.assert_array_equal(one[1], two[1])
    masked, differently, later = (
        sorted(tuple(row) for batch in epoch_of(plan, n) for row in batch[0]["token_ids"].tolist())
        for plan, n in ((first, 0), (other, 0), (first, 1))
    )
    assert masked != differently and masked != later
    # A single text has no order, so here only the masks depend on seed and update.
    alone = data.encode_texts([" ".join(["7"] * 50)], Words())
    plans = [data.MaskedPlan(alone, Words(), 211, seed=seed) for seed in (1, 2)]
    drawn = [plan.batches(u)[0][0]["token_ids"].tobytes() for plan in plans for u in range(5)]
    assert len(set(drawn)) == 10


# Fails if: the rows of zeros that fill up a batch draw random numbers too.
@pytest.mark.parametrize("shapes", ["dynamic", "static"])
def test_devices_change_no_mask(shapes):
    one, many = (
        data.MaskedPlan(corpus(), Words(), 211, shapes=shapes, devices=devices)
        for devices in (1, 3)
    )
    filled = 0
    for update in range(one.batches_per_epoch):
        (a, labels, weights), (b, *rest) = one.batches(update)[0], many.batches(update)[0]
        pairs = [(a[name], b[name]) for name in a] + list(zip((labels, weights), rest, strict=True))
        real = [each["token_ids"].any(axis=1) for each in (a, b)]
        for x, y in pairs:
            np.testing.assert_array_equal(x[real[0]], y[real[1]])
        filled += len(rest[0]) - len(labels)
    assert filled


def test_evaluation_hides_the_same_tokens_in_each_pass():
    plan, encoded = data.MaskedPlan(corpus(), Words(), 211), corpus(101, seed=2)
    dataset = plan.evaluation(encoded)

    def one_pass():
        batches = [dataset[i] for i in range(len(dataset))] if is_indexed else list(dataset)
        return [
            ({k: array(v).astype(int) for k, v in inputs.items()}, array(labels).astype(int), w)
            for inputs, labels, w in batches
        ]

    is_indexed = isinstance(dataset, keras.utils.PyDataset)
    first, second = one_pass(), one_pass()
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0]["token_ids"], two[0]["token_ids"])
    found = as_texts([row for batch in first for row in restored(batch)])
    texts = [encoded.text(i).tolist() for i in range(len(encoded))]
    assert found == sorted((2, *ids, 3) for ids in texts if ids)
    # Keras averages the batches' sums, weighted by rows. That equals the mean over hidden tokens.
    rows = [len(weights) for _, _, weights in first]
    total = sum(
        array(weights).sum() * share for (_, _, weights), share in zip(first, rows, strict=True)
    )
    np.testing.assert_allclose(total, sum(rows), rtol=1e-4)


# Fails if: classes come in another order than their texts.
@pytest.mark.parametrize("shapes", ["dynamic", "static"])
def test_every_text_comes_with_its_class_the_empty_ones_too(shapes):
    encoded = corpus(first=5)
    plan = data.LabelledPlan(encoded, 211, shapes=shapes)
    found = []
    for ids, labels, weights in epoch_of(plan):
        real = ids.any(axis=1)
        np.testing.assert_allclose(weights, real / real.sum(), rtol=1e-6)
        found += [
            (tuple(row[row > 0].tolist()), label)
            for row, label in zip(ids, labels, strict=True)
            if row.any()
        ]
    expected = [((2, *encoded.text(i).tolist(), 3), encoded.labels[i]) for i in range(len(encoded))]
    assert sorted(found) == sorted(expected)
    assert (encoded.lengths == 0).any()


# Fails if: predictions come in another order than their texts; a device gets fewer rows.
@pytest.mark.parametrize("devices", [1, 4])
def test_predictions_come_back_in_the_order_of_the_texts(devices):
    encoded = corpus(29, longest=3)
    classifier = text_classifier(num_layers=1)
    dataset, order = encoded.prediction(31, devices)
    assert all(len(token_ids) % devices == 0 for (token_ids,) in dataset)
    logits = np.empty((len(encoded), C))
    logits[order] = classifier.predict(dataset, verbose=0)
    for i in range(len(encoded)):
        alone = array(classifier(encoded.rows([i], (1, encoded.lengths[i] + 2))))
        np.testing.assert_allclose(logits[i], alone[0], atol=1e-5)


def test_texts_are_selected_and_cut():
    encoded = corpus(29)
    chosen = encoded.select([5, 3, 11])
    assert chosen.labels.tolist() == [0, 3, 1] and len(chosen) == 3
    for i, j in enumerate([5, 3, 11]):
        np.testing.assert_array_equal(chosen.text(i), encoded.text(j))
    cut = data.encode_texts(["5 6 7 8 9", "5", ""], Words(), max_length=5)
    assert cut.text(0).tolist() == [5, 6, 7] and cut.cut == 1 and len(cut) == 3
    assert cut.rows([2, 0], (2, 5)).tolist() == [[2, 3, 0, 0, 0], [2, 5, 6, 7, 3]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.encode_texts([], Words()), "no text"),
        (lambda: data.encode_texts(["5"], Words(), labels=[1, 2]), "1 texts and 2 labels"),
        (lambda: data.encode_texts(["5"], Words(), max_length=2), "max_length=2"),
        (lambda: data.LabelledPlan(data.encode_texts(["5"], Words())), "no labels"),
        (lambda: data.MaskedPlan(data.encode_texts([""], Words()), Words()), "None of the 1 texts"),
        (lambda: data.MaskedPlan(corpus(), Words(), share=0), "share"),
        (lambda: data.MaskedPlan(corpus(), Words(), 23), "too long for a batch"),
    ],
)
def test_what_cannot_be_batched_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Fails if: the symbol of the mask is recognized in texts.
def test_a_vocabulary_has_a_mask_that_no_text_holds():
    lines = ["a man rides", "a <mask> rests", "the dog sleeps"]
    tokenizer = text.train_tokenizer(lines, 285, mask=True)
    assert tokenizer.mask_id == 4 and tokenizer.id_to_piece(4) == "<mask>"
    ids = tokenizer.encode(lines[1])
    assert 4 not in ids and tokenizer.decode([*ids, 4]) == lines[1]
    assert tokenizer.special_ids() == [0, 1, 2, 3, 4]
    assert text.Tokenizer(tokenizer.model_proto).mask_id == 4
    plain = text.train_tokenizer(lines, 285)
    assert plain.mask_id is None and plain.special_ids() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="mask=True"):
        data.MaskedPlan(data.encode_texts(lines, plain), plain)


# --- training


def test_it_learns_what_stands_between_and_a_classifier_takes_that_over():
    """All tokens of a text are equal, so the other tokens reveal a hidden one."""
    keras.utils.set_random_seed(1)
    lines = [" ".join([str(5 + i % 18)] * 9) for i in range(200)]
    encoded = data.encode_texts(lines, Words(), labels=[i % 18 % 2 for i in range(200)])
    sizes = {**SIZES, "num_layers": 1, "d_model": 16, "d_ff": 37, "dropout": 0.0}
    model = models.MaskedLanguageModel(V, **sizes, max_length=11)
    model.compile(
        keras.optimizers.Adam(0.01), SmoothedCrossentropy(0.0), weighted_metrics=[TokenAccuracy()]
    )
    plan = data.MaskedPlan(encoded, Words(), 600)
    model.fit(plan.dataset(), steps_per_epoch=60, verbose=0)
    learnt = model.evaluate(plan.evaluation(encoded), verbose=0, return_dict=True)
    assert learnt["token_accuracy"] > 0.95

    classifier = models.TextClassifier(V, 2, **sizes, max_length=11)
    classifier.take_encoder(model)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    classifier.compile(keras.optimizers.Adam(0.01), crossentropy, weighted_metrics=[accuracy])
    plan = data.LabelledPlan(encoded, 600)
    classifier.fit(plan.dataset(), steps_per_epoch=25, verbose=0)
    learnt = classifier.evaluate(plan.evaluation(encoded), verbose=0, return_dict=True)
    assert learnt["accuracy"] > 0.95


# --- the recipe

SMALL = "--vocabulary-size 290 --layers 1 --width 4 --heads 1 --pretrain-updates 2 --updates 2"
SMALL += " --validate-every 1 --scratch-rates 0.001 --finetune-rates 0.001 --tokens-per-batch 512"


def write_nsmc(folder):
    good, bad = "재밌다 좋다 최고 !", "별로 지루하다 최악 ..."
    for part, count in (("train", 40), ("test", 10)):
        lines = [f"{i}\t{(bad, good)[i % 2] if i != 3 else ''}\t{i % 2}\n" for i in range(count)]
        (folder / f"ratings_{part}.txt").write_text(
            "id\tdocument\tlabel\n" + "".join(lines), "utf-8"
        )


@pytest.fixture
def recipe(monkeypatch, capsys, uncompiled):
    def run(*options):
        monkeypatch.setattr(sys, "argv", ["recipe", *map(str, options)])
        try:
            pretrain_and_classify.main()
            status = 0
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.tensorflow_only
def test_the_recipe_stops_goes_on_and_classifies(recipe, tmp_path, monkeypatch):
    write_nsmc(tmp_path)
    run = tmp_path / "run"
    command = ["--data", tmp_path, "--run-dir", run, *SMALL.split()]

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(models, "TextClassifier", interrupt)
        status, _, errors = recipe(*command)
    assert status == 130 and "the same command continues" in errors
    status, _, errors = recipe("--run-dir", run, "--classify", "좋다")
    assert "is not finished" in status

    status, printed, errors = recipe(*command)
    assert status == 0 and f"{run}/pretrain: trained already" in errors
    assert f"{run}/scratch" in errors and f"{run}/finetune" in errors
    rows = [line.split() for line in printed.splitlines()]
    (scratch,) = [row for row in rows if row[:3] == ["from", "scratch", "0.001"] and "to" in row]
    assert 0 <= float(scratch[4].rstrip("%")) <= 100 and "not NSMC's own split" in printed
    assert "10 test texts" in printed and "p = " in printed
    status, again, errors = recipe(*command)
    assert status == 0 and again == printed and "update" not in errors
    status, found, _ = recipe("--run-dir", run, "--classify", "최고 !", "")
    assert status == 0
    for line, sentence in zip(found.splitlines(), ("최고 !", ""), strict=True):
        text_, name, share = line.split("\t")
        assert text_ == sentence and name in ("negative", "positive") and share.endswith("%")
    status, _, _ = recipe(*command, "--width", "8")
    assert "other settings" in status


# Fails if: the classifier starts from random weights; the run does not read its own tokenizer.
@pytest.mark.tensorflow_only
def test_the_recipe_starts_from_a_preset_of_keras_hub(recipe, tmp_path, monkeypatch):
    pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    preset = tmp_path / "preset"
    theirs = hub_models.backbone("Bert", num_layers=1)
    theirs.save_to_preset(str(preset))
    text = tmp_path / "own.tsv"
    lines = [f"a good fox {i}\tyes\nfilms qu {i}\tno\n" for i in range(20)]
    text.write_text("".join(lines), "utf-8")
    options = "--from-keras-hub,{},--text,{},--run-dir,{},--max-length,{}"
    command = options.format(preset, text, tmp_path / "run", 11).split(",") + SMALL.split()
    status, _, _ = recipe(*command)
    assert "tokenizer.json" in status
    hub_models.tokenizer("Bert").save_to_preset(str(preset))
    taken = []
    take = models.TextClassifier.take_encoder

    def take_encoder(classifier, model):
        take(classifier, model)
        taken.append(
            keras.ops.convert_to_numpy(classifier.encoder.layers[0].feed_forward.inner.kernel)
        )

    monkeypatch.setattr(models.TextClassifier, "take_encoder", take_encoder)
    status, printed, errors = recipe(*command)
    assert status == 0 and "pre-trained" in printed and "run/pretrain" not in errors
    dense = theirs.get_layer("transformer_layer_0")._feedforward_intermediate_dense
    np.testing.assert_array_equal(taken[0], keras.ops.convert_to_numpy(dense.kernel))
    shutil.rmtree(preset)  # what is trained no longer needs it
    status, found, _ = recipe("--run-dir", tmp_path / "run", "--classify", "a good fox")
    assert status == 0 and found.split("\t")[1] in ("yes", "no")
    status, _, _ = recipe(*command, "--unlabelled", text)
    assert status == 2
    other = tmp_path / "gpt2"
    hub_models.backbone("GPT2", num_layers=1).save_to_preset(str(other))
    hub_models.tokenizer("GPT2").save_to_preset(str(other))
    command[1], command[5] = str(other), str(tmp_path / "other")
    status, _, _ = recipe(*command)
    assert "has a GPT2Tokenizer without a mask, so it is no encoder of text" in status


@pytest.mark.tensorflow_only
def test_the_recipe_says_what_is_wrong_with_a_file_and_where(recipe, tmp_path):
    status, _, _ = recipe("--data", tmp_path)
    assert "no such file" in status and "ratings_train.txt" in status
    write_nsmc(tmp_path)
    path = tmp_path / "ratings_test.txt"
    whole = path.read_text("utf-8")
    for wrong, message in (
        (whole.replace("id\t", "", 1), "line 1: found 2"),
        (whole.replace("document", "text"), "line 1: expected NSMC's header"),
        (whole.replace("\t1\n", "\t5\n", 1), "line 3: the label is 0 or 1, got '5'"),
        (whole.replace("2\t", "2 ", 1), "line 4: found 2"),
        ("id\tdocument\tlabel\n", "no review"),
        ("", "is empty"),
    ):
        path.write_text(wrong, "utf-8")
        status, _, _ = recipe("--data", tmp_path)
        assert status.startswith("pretrain_and_classify: error: ") and message in status, status
        assert "ratings_test.txt" in status
    path.write_text(whole, "utf-8")
    assert recipe("--data", tmp_path, "--scratch-rates", 1)[0] == 2
    assert recipe("--data", tmp_path, "--updates", 7, "--validate-every", 2)[0] == 2


def test_texts_of_ones_own_of_any_classes(tmp_path):
    path, other = tmp_path / "own.tsv", tmp_path / "test.tsv"
    classes = ("sport", "politics", "art")
    lines = [f"text {i}\t{classes[i % 3]}\n" for i in range(37)]
    path.write_text("".join(lines), "utf-8")
    train, test, names, note = labelled_text.own(path, None, seed=1)
    assert names == sorted(classes) and len(test) == 3 and "own.tsv" in note
    assert sorted(f"{t}\t{names[c]}\n" for t, c in train + test) == sorted(lines)
    assert labelled_text.own(path, None, 1)[1] == test != labelled_text.own(path, None, 2)[1]
    other.write_text("a text\tart\n", "utf-8")
    assert labelled_text.own(path, other, 1)[:2] == (
        [(f"text {i}", names.index(classes[i % 3])) for i in range(37)],
        [("a text", 0)],
    )
    for wrong, message in (
        ("x\tmusic\n", "lacks: music"),
        ("x\t \n", "line 1: no class"),
        ("x\n", "line 1"),
    ):
        other.write_text(wrong, "utf-8")
        with pytest.raises(ValueError, match=message):
            labelled_text.own(path, other, 1)
    path.write_text("".join(f"{i}\tart\n" for i in range(20)), "utf-8")
    with pytest.raises(ValueError, match="expected two classes"):
        labelled_text.own(path, None, 1)
    path.write_text("x\tart\n" * 20, "utf-8")
    with pytest.raises(ValueError, match="1 different texts"):
        labelled_text.own(path, None, 1)
    # Fails if: a text of the test is in another line too, and is trained on.
    path.write_text(
        "".join(f"film {i}\tgood\nfilm {i} bad\tpoor\n" for i in range(30)) * 2, "utf-8"
    )
    train, test, *_ = labelled_text.own(path, None, 1)
    assert len(test) == 12 and not {*test} & {*train} and len(train) == 108
