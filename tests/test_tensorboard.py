"""Tests of what TensorBoard gets, read back through its own API."""

import io
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from uncompiled import search_uncompiled

import keras_transformer as kt
from keras_transformer.callbacks import Probes, TensorBoard, TranslationScore
from keras_transformer.callbacks.tensorboard.event_file import EventFile
from keras_transformer.ops.input_pipeline import endless
from keras_transformer.visualization.shapes import run_once

PAIRS = [("나는 집에 간다", "I go home"), ("나는 커피를 | 좋아해 좋아해", "I love coffee")] * 6


def small(tokenizer):
    model = kt.models.Transformer(
        tokenizer.vocabulary_size, num_layers=1, d_model=8, num_heads=2, d_ff=11, dropout=0.1
    )
    model.compile(
        optimizer=kt.optimizers.PaperAdam(d_model=8, warmup_steps=10),
        loss=kt.losses.SmoothedCrossentropy(label_smoothing=0.1),
        weighted_metrics=[kt.metrics.NatsPerToken(), kt.metrics.TokenAccuracy()],
    )
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a run of two epochs of three updates: folder, model, tokenizer and plan."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    tokenizer = kt.text.train_tokenizer(PAIRS, 320, character_coverage=1.0)
    encoded = kt.data.encode_pairs(PAIRS, tokenizer)
    plan = kt.data.BatchPlan(encoded, tokens_per_batch=64, seed=1)
    keras.utils.set_random_seed(7)
    model = small(tokenizer)
    translator = kt.Translator(model, tokenizer)

    def translate(lines):
        translator.translate(lines, beam_size=1)
        return [line[::-1] for line in lines]

    probes, meter = Probes(PAIRS[:2], tokenizer), kt.data.FeedMeter()
    board = TensorBoard(str(folder), 2, probes, picture_share=1, hparams={"seed": 3}, meter=meter)
    score = TranslationScore(
        translate,
        *zip(*PAIRS[:2], strict=True),
        lambda hypotheses, references: {"bleu": 12.5, "chrf": 34.0},
        samples=board.samples,
    )
    with pytest.MonkeyPatch.context() as patch:
        draw = Probes.draw
        search_uncompiled(patch)
        patch.setattr(Probes, "draw", draw)
        model.fit(
            plan.dataset(0, meter),
            validation_data=plan.evaluation(encoded),
            epochs=2,
            steps_per_epoch=3,
            shuffle=False,
            verbose=0,
            callbacks=[score, board],
        )
    return folder, model, tokenizer, plan


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"histograms": 0, "images": 0})
    return accumulator.Reload()


@pytest.fixture(scope="module")
def events(trained):
    return read(trained[0])


def test_curves_are_there_at_their_updates(events):
    for name in ("nats_per_token", "gradient_norm", "target_tokens_per_second"):
        assert [e.step for e in events.Scalars(f"train/{name}")] == [2, 3, 4, 6]
    # JAX requests the first batches of an epoch before the epoch begins, PyTorch the last ones
    # before the interval that trains on them.
    always = {4} if keras.backend.backend() == "torch" else {3, 4}
    for name in ("padding_share", "waiting_share"):
        assert always < {e.step for e in events.Scalars(f"train/{name}")} <= {2, 3, 4, 6}
    for name, value in (("bleu", 12.5), ("chrf", 34.0)):
        found = events.Scalars(f"validation/{name}")
        assert {(e.step, e.value) for e in found} == {(3, value), (6, value)}


# Fails if: the padding is not that of the batches.
def test_padding_is_counted_in_the_batches(trained, events):
    """The padding of a whole epoch equals the plan's own count."""
    *_, plan = trained
    meter = kt.data.FeedMeter()
    batches = iter(plan.dataset(0, meter))
    for _ in range(plan.batches_per_epoch):
        next(batches)
    assert meter.padding / meter.positions == pytest.approx(plan.padding())
    assert 0 < plan.padding() < 1
    assert all(0 <= e.value < 1 for e in events.Scalars("train/padding_share"))


# Fails if: the clock measures the work between batches instead of the waiting.
def test_waiting_is_the_time_that_batches_were_not_there():
    def batch(index):
        time.sleep(0.02)
        return {"ids": np.ones((2, 3), "int32")}, np.ones((2, 3), "int32"), np.ones((2, 3))

    meter, begin = kt.data.FeedMeter(), time.perf_counter()
    batches = iter(endless(batch, 0, meter))
    for _ in range(10):
        next(batches)
    assert 0.1 < meter.waited <= time.perf_counter() - begin
    if keras.backend.backend() == "tensorflow":  # prefetched, so there is no wait after a pause
        time.sleep(0.2)
        before = meter.waited
        next(batches)
        assert meter.waited - before < 0.01


def log_of_rows(tokens, meter):
    """Returns the intervals of a small training on rows of 7 positions with `tokens` tokens."""
    row = np.array([[1] * tokens + [0] * (7 - tokens)], "int32")
    records, ids = [], keras.Input((None,), dtype="int32")
    model = keras.Model(ids, keras.layers.Embedding(11, 11)(ids))
    model.compile("sgd", "sparse_categorical_crossentropy")
    progress = kt.callbacks.Progress(every=2, stream=io.StringIO(), log=records.append, meter=meter)
    dataset = endless(lambda index: (row, row), 0, meter)
    model.fit(dataset, steps_per_epoch=6, verbose=0, callbacks=[progress])
    return [record for record in records if record["event"] == "interval"]


def test_two_trainings_at_once_are_metered_apart():
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(log_of_rows, tokens, kt.data.FeedMeter()) for tokens in (3, 7)]
    for tokens, one in zip((3, 7), both, strict=True):
        shares = {record["padding_share"] for record in one.result() if "padding_share" in record}
        assert shares == {1 - tokens / 7}


def test_without_a_meter_nothing_is_metered():
    records = log_of_rows(3, None)
    assert records and not any("share" in name for record in records for name in record)


def test_images_have_every_layer_and_head(events):
    once, kinds = {"view/masks", "view/positional encoding"}, ("encoder", "decoder", "cross")
    assert set(events.Tags()["images"]) == {
        *once,
        *(
            f"view/attention {n}: {kind}, mean of heads"
            for n in (1, 2)
            for kind in ("encoder", "decoder", "cross")
        ),
        *(f"view/heads {n}: {kind}" for n in (1, 2) for kind in kinds),
    }
    for tag in events.Tags()["images"]:
        found = events.Images(tag)
        assert [e.step for e in found] == ([0] if tag in once else [3, 6])
        assert all(e.encoded_image_string.startswith(b"\x89PNG") for e in found)


def test_what_is_drawn_is_what_the_model_attends_to(trained, monkeypatch):
    _, model, tokenizer, _ = trained
    drawn, pixels = {}, {}

    class Events:
        def image(self, update, tag, figure, dpi=80):
            drawn[tag] = figure
            pixels[tag] = dpi * figure.get_figwidth()

        def histogram(self, *arguments):
            pass

    Probes(PAIRS[:1], tokenizer).draw(Events(), model, 0)
    source = [*tokenizer.encode(PAIRS[0][0]), tokenizer.end_id]
    target = [tokenizer.start_id, *tokenizer.encode(PAIRS[0][1])]
    weights = model.attention_weights(np.array([source]), np.array([target]))
    [axes] = drawn["view/heads 1: cross"].axes
    image = np.asarray(axes.images[0].get_array().filled(np.nan))
    for head in range(2):
        left = head * (len(source) + 1)
        np.testing.assert_allclose(
            image[: len(target), left : left + len(source)], weights["cross"][0, 0, head], rtol=1e-5
        )
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == [tokenizer.id_to_piece(i) for i in source] * 2

    mean = drawn["view/attention 1: cross, mean of heads"]
    image = np.asarray(mean.axes[0].images[0].get_array())
    np.testing.assert_allclose(image, weights["cross"][-1, 0].mean(axis=0), rtol=1e-5)
    # TensorBoard shows pictures 350 pixels wide, and scales without smoothing.
    assert pixels["view/attention 1: cross, mean of heads"] == pytest.approx(350)
    letters = [label.get_fontsize() / 72 for label in mean.axes[0].get_yticklabels()]
    assert min(letters) * 350 / mean.get_figwidth() > 9  # pixels


def test_curves_come_before_pictures(events):
    """TensorBoard's first page sorts all kinds of tags together by name."""
    tags = events.Tags()
    assert max(tags["scalars"]) < min(tags["images"]) < min(tags["histograms"])


def test_watching_changes_nothing_in_training(trained):
    """Pictures and translations use no seed of the training."""
    _, model, tokenizer, plan = trained
    keras.utils.set_random_seed(7)
    alone = small(tokenizer)
    validation = plan.evaluation(kt.data.encode_pairs(PAIRS, tokenizer))
    alone.fit(
        plan.dataset(0),
        validation_data=validation,
        epochs=2,
        steps_per_epoch=3,
        shuffle=False,
        verbose=0,
    )
    for watched, other in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(watched, other)


# Fails if: a bar in a text is not escaped.
def test_texts_show_translations_one_row_each(events):
    [first, second] = events.Tensors("translations")
    assert (first.step, second.step) == (3, 6)
    rows = second.tensor_proto.string_val[0].decode().split("\n")
    assert rows[0] == "| source | reference | translation |"
    assert rows[2] == f"| {PAIRS[0][0]} | {PAIRS[0][1]} | {PAIRS[0][0][::-1]} |"
    assert "커피를 \\| 좋아해" in rows[3] and len(rows) == 4


def test_histograms_hold_every_matrix(trained, events):
    _, model, *_ = trained
    matrices = [v for v in model.trainable_variables if len(v.shape) > 1]
    assert len(events.Tags()["histograms"]) == len(matrices)
    for variable in matrices:
        *_, last = events.Histograms(f"weights/{variable.path}")
        values = keras.ops.convert_to_numpy(variable).astype("float64")
        found = last.histogram_value
        assert (last.step, found.num) == (6, values.size)
        assert sum(found.bucket) == values.size
        assert found.sum == pytest.approx(values.sum(), rel=1e-6, abs=1e-6)


# Fails if: the embedding is upside down.
def test_the_projector_has_a_token_for_each_row(trained):
    folder, model, tokenizer, _ = trained
    vectors = np.loadtxt(folder / "embedding.tsv")
    tokens = (folder / "tokens.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(tokens) == len(vectors) == tokenizer.vocabulary_size
    i = tokenizer.piece_to_id("▁나는")
    assert tokens[i] == "▁나는"
    [table] = model.target_embedding.trainable_variables
    table = keras.ops.convert_to_numpy(table)
    np.testing.assert_allclose(vectors, table[: len(vectors)], rtol=1e-3)
    config = (folder / "projector_config.pbtxt").read_text(encoding="utf-8")
    assert 'tensor_path: "embedding.tsv"' in config and 'metadata_path: "tokens.tsv"' in config


# Fails if: the graph loses which layer made a tensor; inner layers are nodes.
def test_the_graph_is_figure_1(trained, events):
    inputs = {node.name: set(node.input) for node in events.Graph().node}
    joined = "decoder/layer_0/join_self_attention"
    assert inputs["decoder/layer_0/cross_attention"] == {
        joined,
        "encoder/layer_0/join_feed_forward",
    }
    assert inputs["decoder/layer_0/join_cross_attention"] == {
        joined,
        "decoder/layer_0/cross_attention",
    }
    assert inputs["encoder/layer_0/self_attention"] == {"embedding"}
    assert inputs["embedding_2"] == {"decoder/layer_0/join_feed_forward"}  # the logits


def test_every_decoder_layer_gets_the_last_encoder_output():
    model = kt.models.Transformer(20, num_layers=2, d_model=8, num_heads=2, d_ff=11)
    calls = {call.path: call for call in run_once(model, 2, 5, 4)}
    last = calls["encoder/layer_1/join_feed_forward"].path
    for layer in (0, 1):
        given = calls[f"decoder/layer_{layer}/cross_attention"].inputs
        assert any(path.startswith(last) for path in given)


def test_the_first_page_says_what_matters(events):
    from tensorboard.plugins.custom_scalar import layout_pb2

    [event] = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [c.title for c in layout.category][0] == "Is it learning?"
    charts = {chart.title: list(chart.multiline.tag) for c in layout.category for chart in c.chart}
    tags = events.Tags()["scalars"]
    for title, patterns in charts.items():
        assert any(re.match(p, tag) for p in patterns for tag in tags), title
    assert not any(re.match(p, "validation/bleu_seconds") for p in charts["BLEU and chrF"])


def test_a_run_is_a_row_of_hparams(trained):
    from test_ablate_paper import session_groups

    [group] = session_groups(trained[0].parent).values()
    assert group.hparams["d_ff"].number_value == 11
    assert group.hparams["seed"].number_value == 3
    found = {metric.name.tag: metric.value for metric in group.metric_values}
    assert found["validation/bleu"] == 12.5


# Fails if: pictures are drawn at any cost.
def test_pictures_wait_where_they_took_too_long(trained, tmp_path, capsys):
    _, _, tokenizer, plan = trained
    model = small(tokenizer)
    drawn = []

    class Slow(Probes):
        def draw(self, events, model, update):
            drawn.append(update)
            time.sleep(0.3)

    board = TensorBoard(str(tmp_path), 1, Slow(PAIRS[:1], tokenizer), picture_share=0.01)
    validation = plan.evaluation(kt.data.encode_pairs(PAIRS, tokenizer))
    model.fit(
        plan.dataset(0),
        validation_data=validation,
        epochs=4,
        steps_per_epoch=1,
        verbose=0,
        callbacks=[board],
    )
    assert drawn == [1, 4]  # only the first and the last epoch
    assert "pictures of" in capsys.readouterr().err


def test_a_figure_that_cannot_be_shown_is_left_out(tmp_path):
    events = EventFile(str(tmp_path), 0)
    events.histogram(1, "none", [np.nan, np.inf])
    events.histogram(1, "some", [1.0, np.nan, 3.0])
    events.close()
    found = read(tmp_path)
    assert found.Tags()["histograms"] == ["some"]
    assert found.Histograms("some")[0].histogram_value.num == 2


@pytest.mark.tensorflow_only
def test_nothing_of_it_needs_tensorflow(tmp_path):
    """On other backends no summary imports TensorFlow."""
    script = f"""
import json, os, sys
import numpy as np
from keras_transformer.callbacks.tensorboard.event_file import EventFile
from matplotlib.figure import Figure
events = EventFile({str(tmp_path)!r}, 0)
events.scalars(1, {{"a": 1.0}})
events.text(1, "t", "x")
events.image(1, "i", Figure())
events.histogram(1, "h", np.ones(3))
events.layout({{"A": {{"b": ["c"]}}}})
events.graph([])
events.close()
print(json.dumps("tensorflow" in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) is False
