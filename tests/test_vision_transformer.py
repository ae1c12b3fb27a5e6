"""Tests of the Vision Transformer: patches, their order, pictures, and images in batches."""

import runpy
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from patch_pictures import (
    layers_of_attention,
    layers_of_convolution,
    patch_attention,
    receptive_field,
)

from keras_transformer import RunDirectory, testing
from keras_transformer.data import ImagePlan
from keras_transformer.layers import PatchEmbedding
from keras_transformer.layers.patch_embedding import cut_patches
from keras_transformer.models import VisionTransformer
from keras_transformer.ops import compilation
from keras_transformer.runs.checkpoints import read_arrays

B, P, ROWS, COLUMNS, C, D = 2, 3, 5, 7, 2, 11  # patches of 3 x 3, 5 x 7 of them
SHAPE = (P * ROWS, P * COLUMNS, C)
IMAGES = np.random.default_rng(2010).normal(size=(B, *SHAPE)).astype("float32")
SIZES = {"patch_size": P, "num_layers": 2, "d_model": 10, "num_heads": 2, "d_ff": 13}


def array(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def model(**options):
    return VisionTransformer(SHAPE, 17, **{**SIZES, **options})


def with_patches(images, order):
    """Returns the images with their patches in another order."""
    patches = images.reshape(-1, ROWS, P, COLUMNS, P, C).transpose(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(-1, ROWS * COLUMNS, P, P, C)[:, order]
    patches = patches.reshape(-1, ROWS, COLUMNS, P, P, C).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(images.shape)


ORDER = np.random.default_rng(11).permutation(ROWS * COLUMNS)


# --- patches


# Fails if: rows and columns are swapped.
def test_patches_are_those_cut_by_hand():
    patches = array(cut_patches(ops.convert_to_tensor(IMAGES), P))
    expected = [
        IMAGES[:, P * row : P * (row + 1), P * column : P * (column + 1)].reshape(B, -1)
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]
    np.testing.assert_array_equal(patches, np.stack(expected, axis=1))


def test_the_embedding_is_a_convolution_whose_stride_is_its_kernel():
    layer = PatchEmbedding(P, D, positions=None, class_token=False)
    convolution = keras.layers.Conv2D(D, P, strides=P)
    found, _ = array(layer(IMAGES)), convolution(IMAGES)
    layer.patches.bias.assign(np.arange(D) / D)
    found = array(layer(IMAGES))
    kernel, bias = layer.get_weights()
    convolution.set_weights([kernel.reshape(P, P, C, D), bias])
    expected = array(convolution(IMAGES)).reshape(B, ROWS * COLUMNS, D)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Fails if: the class token comes last; positions start at 1.
def test_the_class_token_comes_first_and_every_position_has_its_vector():
    layer = PatchEmbedding(P, D)
    x = array(layer(IMAGES))
    plain = PatchEmbedding(P, D, positions=None, class_token=False)
    plain.build(IMAGES.shape)
    plain.set_weights([layer.patches.kernel, layer.patches.bias])
    positions, first = array(layer.position.embeddings), array(layer.first.embeddings)
    assert positions.shape == (1 + ROWS * COLUMNS, D)
    np.testing.assert_allclose(x[:, 0], np.tile(first + positions[:1], (B, 1)), atol=1e-6)
    np.testing.assert_allclose(x[:, 1:], array(plain(IMAGES)) + positions[1:], atol=1e-5)


@pytest.mark.parametrize("shape", [(None, 21, 2), (16, 21, 2), (15, 20, 2), (15, 21)])
def test_images_that_patches_do_not_divide_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of patch_size=3"):
        PatchEmbedding(P, D).build((None, *shape))


# Fails if: the size of an image is not checked.
def test_what_does_not_fit_is_said():
    layer = PatchEmbedding(P, D)
    layer(IMAGES)
    with pytest.raises(ValueError, match="expected shape=.*15, 21, 2"):
        layer(IMAGES[:, :-P])
    with pytest.raises(ValueError, match="got 'rotary'"):
        PatchEmbedding(P, D, positions="rotary")
    with pytest.raises(ValueError, match="'class' or 'mean', got 'max'"):
        model(pooling="max")


# --- the model


# Fails if: the first patch is classified instead of the class token.
@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_without_positions_the_order_of_patches_is_unseen_and_with_them_it_is_seen(pooling):
    for positions in (None, "learned", "sinusoidal"):
        vit = model(pooling=pooling, positions=positions)
        change = np.abs(array(vit(with_patches(IMAGES, ORDER))) - array(vit(IMAGES))).max()
        assert change < 1e-4 if positions is None else change > 1e-3, positions


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_patches_and_positions_in_another_order_change_nothing(pooling):
    vit = model(pooling=pooling)
    expected = array(vit(IMAGES))
    positions = array(vit.embedding.position.embeddings)
    first = vit.embedding.class_token
    positions[first:] = positions[first:][ORDER]
    vit.embedding.position.embeddings.assign(positions)
    np.testing.assert_allclose(array(vit(with_patches(IMAGES, ORDER))), expected, atol=1e-4)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_weights_of_every_layer_sum_to_1_and_the_logits_are_the_same(pooling):
    vit = model(pooling=pooling)
    logits, weights = vit.classify(IMAGES, return_attention_weights=True)
    length = ROWS * COLUMNS + (pooling == "class")
    assert [tuple(each.shape) for each in weights] == 2 * [(B, 2, length, length)]
    for each in weights:
        np.testing.assert_allclose(array(each).sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(array(logits), array(vit(IMAGES)), atol=1e-5)


# Fails if: the config lacks the pooling.
@pytest.mark.parametrize("options", [{}, {"pooling": "mean", "positions": "sinusoidal"}])
def test_it_saves_and_loads(options):
    testing.assert_saves_and_loads(model(**options, dropout=0.3, epsilon=1e-5), IMAGES)


def test_rows_do_not_see_each_other_and_compiled_it_gives_the_same():
    vit = model()
    testing.assert_batch_invariant(vit, IMAGES, training=True, jit=keras.backend.backend() == "jax")
    compiled = compilation.compile_with_weights(lambda images: vit(images), vit)
    expected = array(vit(IMAGES))
    np.testing.assert_allclose(array(compiled(IMAGES)), expected, atol=1e-5)
    np.testing.assert_allclose(array(vit(IMAGES[1:])), expected[1:], atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_agrees_with_float32(dtype):
    vit, low = model(), model(dtype=dtype)
    low.set_weights(vit.get_weights())
    expected, found = array(vit(IMAGES)), low(IMAGES)
    assert keras.backend.standardize_dtype(found.dtype) == dtype.removeprefix("mixed_")
    assert {w.dtype for w in low.weights} == {"float32"}
    tolerance = 0.01 if dtype == "mixed_float16" else 0.08
    np.testing.assert_allclose(array(found), expected, atol=tolerance * np.abs(expected).max())


# Fails if: the projections have no biases.
def test_it_has_the_published_number_of_parameters():
    # DeiT's "tiny" (Touvron et al., 2021) has 5,717,416 parameters in timm.
    tiny = VisionTransformer((224, 224, 3), 1000, 16, num_layers=12, d_model=192, num_heads=3)
    assert tiny.count_params() == 5_717_416


def test_it_learns_where_a_spot_is():
    """The class is the quarter of the bright patch, so a model without positions cannot know it."""
    images = np.zeros((64, 8, 8, 1), "uint8")
    labels = np.arange(64) % 4
    for i, label in enumerate(labels):
        row, column = 2 * (i // 4 % 2) + 4 * (label // 2), 2 * (i // 8 % 2) + 4 * (label % 2)
        images[i, row : row + 2, column : column + 2] = 255
    plan = ImagePlan(images, labels, batch_size=16)
    vit = VisionTransformer((8, 8, 1), 4, 2, 1, 16, 2, dropout=0.0)
    random = np.random.default_rng(0)  # the same weights on every backend
    vit.set_weights([0.2 * random.normal(size=w.shape) + ("gamma" in w.path) for w in vit.weights])
    vit.compile(
        keras.optimizers.Adam(0.003),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "torch",
    )
    vit.fit(plan.dataset(), steps_per_epoch=150, verbose=0, shuffle=False)
    assert vit.evaluate(plan.evaluation(images, labels), verbose=0)[1] == 1.0


# --- pictures


# Fails if: the field belongs to the sum over channels.
def test_a_receptive_field_is_what_a_kernel_made_by_hand_has():
    image = np.zeros((7, 9, 1), "float32")
    convolution = keras.layers.Conv2D(2, 3, padding="same", use_bias=False)
    convolution.build((None, *image.shape))
    kernel = np.arange(18).reshape(3, 3, 1, 2).astype("float32")
    kernel[0, 2] = 0  # this pixel has no influence
    convolution.set_weights([kernel])
    field = receptive_field(convolution, image, (3, 4))
    expected = np.zeros((7, 9), "float32")
    expected[2:5, 3:6] = np.sqrt((kernel[:, :, 0] ** 2).sum(-1))
    np.testing.assert_allclose(field, expected, rtol=1e-5)
    # Two channels that cancel out in a sum are seen nevertheless.
    convolution.set_weights([np.stack([kernel[..., 0], -kernel[..., 0]], axis=-1)])
    assert (receptive_field(convolution, image, (3, 4)) > 0).sum() == 7  # 0 at the corner


# Fails if: the last layers are taken instead of the first.
def test_a_convolution_sees_a_pixel_more_a_layer_and_attention_all_at_once():
    vit = VisionTransformer((12, 15, 1), 5, **SIZES)
    image = IMAGES[0, :12, :15, :1]
    for depth in (1, 2):
        field = receptive_field(layers_of_convolution(depth, image.shape), image, (5, 7))
        expected = np.zeros((12, 15), bool)
        expected[5 - depth : 6 + depth, 7 - depth : 8 + depth] = True
        np.testing.assert_array_equal(field > 0, expected)
        field = receptive_field(layers_of_attention(vit, depth), image, (6,))
        assert (field > 0).all()
    field = receptive_field(layers_of_attention(vit, 0), image, (1 + 5 + 2,))
    expected = np.zeros((12, 15), bool)
    expected[3:6, 6:9] = True  # without a layer a patch sees only itself
    np.testing.assert_array_equal(field > 0, expected)


# Fails if: rows and columns of the grid are swapped; attention to the patch is shown instead of
# the patch's own; the class token counts as a patch.
@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_the_picture_shows_the_weights_of_each_layer_and_head(pooling):
    vit = model(pooling=pooling)
    figure = patch_attention(vit, IMAGES[0], (1, 4))
    maps = [axes.images[0].get_array() for axes in figure.axes]
    assert len(maps) == 1 + 2 * (2 + 2)  # the image, then two heads and two fields per layer
    _, weights = vit.classify(IMAGES[:1], return_attention_weights=True)
    first = pooling == "class"
    for layer, head in ((0, 0), (0, 1), (1, 0), (1, 1)):
        expected = array(weights[layer])[0, head, first + COLUMNS + 4, first:]
        found = maps[1 + 4 * layer + head]
        np.testing.assert_allclose(found, expected.reshape(ROWS, COLUMNS), atol=1e-6)
    for message, image, patch in (("shape", IMAGES[0, 1:], None), ("5 x 7", IMAGES[0], (5, 0))):
        with pytest.raises(ValueError, match=message):
            patch_attention(vit, image, patch)


# --- images in batches


COUNT = 13
NUMBERED = np.tile(np.arange(1, COUNT + 1, dtype="uint8")[:, None, None, None], (1, 5, 7, 1))


def numbers(batch):
    """Returns the number of every image, also if it was shifted."""
    return np.round((batch[0].max(axis=(1, 2, 3)) + 1) * 127.5).astype(int)


# Fails if: two epochs have the same order.
def test_an_epoch_holds_each_image_once_with_its_label():
    plan = ImagePlan(NUMBERED, np.arange(COUNT), batch_size=4, seed=3, shift=2, mirror=True)
    batches = [plan.batch(update) for update in range(13)]  # four epochs
    seen = np.concatenate([numbers(batch) for batch in batches]).reshape(4, COUNT)
    for epoch in seen:
        assert sorted(epoch) == list(range(1, COUNT + 1))
    assert len({tuple(epoch) for epoch in seen}) == 4
    for images, labels, weights in batches:
        np.testing.assert_array_equal(numbers((images,)), labels + 1)
        assert images.dtype == weights.dtype == np.float32 and abs(weights.sum() - 1) < 1e-6


# Fails if: the seed is ignored.
def test_a_batch_is_a_function_of_seed_and_update():
    plans = [ImagePlan(NUMBERED, np.arange(COUNT), 4, seed, shift=2) for seed in (3, 3, 4)]
    plans[0].batch(0)
    first, again, other = (plan.batch(5) for plan in plans)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[1] != other[1]).any()
    [images, labels, weights] = next(iter(plans[1].dataset(5)))
    np.testing.assert_array_equal(array(images), first[0])
    np.testing.assert_array_equal(array(labels), first[1])


# Fails if: images are not shifted; they are mirrored upside down.
def test_images_are_moved_whole_and_what_comes_in_is_black():
    image = np.arange(1, 36, dtype="uint8").reshape(1, 5, 7, 1)
    plan = ImagePlan(np.repeat(image, 50, axis=0), np.zeros(50), 50, shift=1, mirror=True)
    framed = np.pad(image[0, ..., 0], 1)
    ways = [framed[y : y + 5, x : x + 7] for y in range(3) for x in range(3)]
    ways = {way.tobytes() for way in ways} | {way[:, ::-1].tobytes() for way in ways}
    found = np.round((plan.batch(0)[0][..., 0] + 1) * 127.5).astype("uint8")
    assert {each.tobytes() for each in found} <= ways
    assert len({each.tobytes() for each in found}) > 9
    plain = ImagePlan(image, [0], 1).batch(0)[0]
    np.testing.assert_allclose(plain, image / 127.5 - 1, atol=1e-6)


def test_an_evaluation_holds_each_image_once_as_it_is():
    plan = ImagePlan(NUMBERED, np.arange(COUNT), 4, shift=2)
    batches = [[array(part) for part in batch] for batch in plan.evaluation(NUMBERED, range(COUNT))]
    images = np.concatenate([batch[0] for batch in batches])
    np.testing.assert_allclose(images, NUMBERED / 127.5 - 1, atol=1e-6)
    assert [len(batch[1]) for batch in batches] == [4, 4, 4, 1]


def test_images_that_do_not_fit_their_labels_are_refused():
    with pytest.raises(ValueError, match=r"\(13, 5, 7, 1\) and \(12,\)"):
        ImagePlan(NUMBERED, np.arange(12), 4)
    with pytest.raises(ValueError, match="no image"):
        ImagePlan(NUMBERED[:0], [], 4)


# --- the recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "classify_images.py"
SMALL = "--patch 4 --width 4 --layers 1 --heads 1 --batch 8 --updates 4 --validate-every 2".split()


@pytest.fixture
def recipe(monkeypatch, capsys, uncompiled):
    """Runs the recipe as a script; returns its lines, its stderr and its error message."""
    policy = keras.config.dtype_policy()

    def run(*options):
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *map(str, options)])
        message = None
        try:
            runpy.run_path(str(RECIPE), run_name="__main__")
        except SystemExit as exit:
            message = exit.code
        printed = capsys.readouterr()
        return printed.out.splitlines(), printed.err, message

    yield run
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def digits(tmp_path):
    """Writes a small MNIST: three digits of 8 x 8 pixels, with a brightness per digit."""
    random = np.random.default_rng(5)
    arrays = {}
    for part, count in (("train", 43), ("test", 7)):
        arrays[f"y_{part}"] = np.arange(count) % 3
        noise = random.integers(0, 50, (count, 8, 8))
        arrays[f"x_{part}"] = (noise + 100 * arrays[f"y_{part}"][:, None, None]).astype("uint8")
    np.savez(tmp_path / "mnist.npz", **arrays)
    return tmp_path


def weights(run, update):
    return read_arrays(run / "checkpoints" / f"update-{update:08d}" / "weights.npz")


# Fails if: resuming starts at update 0; an image is classified without scaling its pixels.
@pytest.mark.tensorflow_only
def test_the_recipe_trains_resumes_classifies_and_draws(recipe, digits):
    run, picture = digits / "run", digits / "attention.png"
    lines, _, message = recipe("--data", digits, "--run-dir", run, *SMALL)
    assert message is None and "% of 7 test images right" in lines[-1]
    logged = (run / "log.jsonl").read_text(encoding="utf-8")
    assert logged.count('"val_token_accuracy"') == 2 and list(run.glob("events.out.*"))

    # The run is stopped after two updates and resumed.
    again = shutil.copytree(run, digits / "again")
    shutil.rmtree(again / "checkpoints" / "update-00000004")
    more, _, message = recipe("--data", digits / "mnist.npz", "--run-dir", again, *SMALL)
    assert message is None and more[-1].split(" right")[0] == lines[-1].split(" right")[0]
    for (name, whole), (_, resumed) in zip(weights(run, 4), weights(again, 4), strict=True):
        np.testing.assert_allclose(resumed, whole, atol=1e-6, err_msg=name)
    assert any((a != b).any() for (_, a), (_, b) in zip(weights(run, 2), weights(run, 4)))  # noqa: B905

    keras.utils.save_img(digits / "digit.png", np.full((11, 13, 3), 90, "uint8"), scale=False)
    classify = ("--run-dir", run, "--classify", digits / "digit.png", "--picture", picture)
    lines, errors, message = recipe(*classify)
    names, shares = zip(*(line.removesuffix(" %").split("\t") for line in lines), strict=True)
    assert message is None and sorted(names) == ["0", "1", "2"]
    trained = RunDirectory.open(run).load_model()
    expected = ops.softmax(trained(np.full((1, 8, 8, 1), 90 / 127.5 - 1)))
    expected = sorted(array(expected)[0], reverse=True)
    np.testing.assert_allclose([float(share) / 100 for share in shares], expected, atol=1e-4)
    assert keras.utils.load_img(picture).size[0] > 300 and str(picture) in errors
    assert "name a new file" in recipe(*classify)[2]

    other = ("--data", digits, "--run-dir", run, *SMALL, "--dropout", 0.2)
    assert "other settings (dropout: 0.0 there, 0.2 here)" in recipe(*other)[2]


@pytest.mark.tensorflow_only
def test_the_recipe_takes_a_folder_of_own_images(recipe, tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            image = np.full((9, 8 + i, 3), (200, 30, 9)[:: 1 if name == "cats" else -1], "uint8")
            path = tmp_path / "images" / name / f"{i}.png"
            keras.utils.save_img(path, image, scale=False)
    train = ("--data", tmp_path / "images", "--run-dir", tmp_path / "run", *SMALL, "--size", 8)
    lines, _, message = recipe(*train, "--pooling", "mean", "--precision", "bfloat16")
    assert message is None and "% of 1 test images right" in lines[-1]
    lines, _, _ = recipe("--run-dir", tmp_path / "run", "--classify", path)
    assert {line.split("\t")[0] for line in lines} == {"cats", "dogs"}
    path.rename(tmp_path / "images" / "cats" / path.name.replace("5", "9"))  # the split is another
    again = recipe(*train, "--pooling", "mean", "--precision", "bfloat16")[2]
    assert "images_sha256" in again and "give another --run-dir" in again
    shutil.rmtree(tmp_path / "images" / "dogs")
    assert "two or more sub-folders" in recipe(*train)[2]


# Fails if: pickles are allowed.
@pytest.mark.tensorflow_only
def test_the_recipe_says_what_is_missing(recipe, digits, monkeypatch):
    def no_network():
        raise Exception("URL fetch failure")

    run = ("--run-dir", digits / "run")
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", no_network)
    monkeypatch.delenv("KERAS_TRANSFORMER_DATA", raising=False)
    evil = {name: np.array([{}]) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(digits / "evil.npz", **evil)
    (digits / "empty.npz").write_bytes(b"")
    np.savez(digits / "other.npz", x=np.zeros(3))
    for options, expected in (
        ((), "--data names mnist.npz"),
        (("--data", digits / "none.npz"), "no such file"),
        (("--data", digits / "evil.npz"), "allow_pickle=False"),
        (("--data", digits / "empty.npz"), "not MNIST as Keras keeps it"),
        (("--data", digits / "other.npz"), "x_train"),
        (("--task", "cifar10"), "could not be downloaded (URL fetch failure)"),
        (("--data", digits, *SMALL, "--patch", 3), "multiples of patch_size=3"),
        (("--classify", digits / "none.png"), "No run at"),
    ):
        assert expected in recipe(*run, *options)[2], options
    assert not (digits / "run").exists()
