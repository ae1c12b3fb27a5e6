"""A Vision Transformer (Dosovitskiy et al., 2020) that classifies images: digits, or your own.

    python recipes/classify_images.py --data mnist.npz     # MNIST as one file, or its folder
    python recipes/classify_images.py --data FOLDER        # own images: a sub-folder per class
    python recipes/classify_images.py --task cifar10       # downloads CIFAR-10, 170 MB; for a GPU
    python recipes/classify_images.py --classify 7.png     # what the trained model sees there
    python recipes/classify_images.py --classify 7.png --picture attention.png

Without --data it looks for mnist/mnist.npz in the folder that KERAS_TRANSFORMER_DATA names. Part of
the training images is held out for validation. The test images are used once, at the end. Training
moves the images by a few pixels. MNIST's digits are white on black, and yours must be too.
"""

import argparse
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
from patch_pictures import patch_attention

import keras_transformer as kt
from keras_transformer.cli import INTERRUPTED, command, program, say_next, without_notices
from keras_transformer.data import scaled

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options

# Defaults of each task: digits take minutes on two CPU cores, photographs need a GPU.
DEFAULTS = {
    "mnist": {"patch": 7, "width": 96, "layers": 4, "heads": 4, "dropout": 0.0},
    "cifar10": {"patch": 4, "width": 256, "layers": 6, "heads": 8, "dropout": 0.1},
    "folder": {"patch": 8, "width": 128, "layers": 6, "heads": 4, "dropout": 0.1},
}
DEFAULTS["mnist"] |= {"updates": 5000, "rate": 0.003}
DEFAULTS["cifar10"] |= {"updates": 40_000, "rate": 0.001}
DEFAULTS["folder"] |= {"updates": 10_000, "rate": 0.001}
AUGMENTATION = {
    "mnist": {"shift": 2},
    "cifar10": {"shift": 4, "mirror": True},
    "folder": {"shift": 4},
}
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}


@program("classify_images", INTERRUPTED)
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="mnist.npz, its folder, or one of class folders")
    parser.add_argument("--task", choices=("cifar10",), help="in place of --data: downloaded")
    parser.add_argument("--size", type=int, default=64, help="own images are resized to it")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/classify-images"))
    parser.add_argument("--patch", type=int, help="height and width of a patch, in pixels")
    parser.add_argument("--width", type=int)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--updates", type=int)
    parser.add_argument("--rate", type=float, help="the highest learning rate")
    parser.add_argument("--batch", type=int, default=128, help="images of a batch")
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--pooling", choices=("class", "mean"), default="class")
    parser.add_argument("--validate-every", type=int, default=500, help="updates")
    parser.add_argument("--seed", type=int, default=1)
    options.add_precision(parser)
    options.add_devices(parser)
    parser.add_argument("--classify", type=Path, metavar="FILE", help="this image; trains nothing")
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.png",
        help="draw what a patch attends to, of the image to classify or of the first test image",
    )
    args = parser.parse_args()
    if args.picture is not None and (args.picture.exists() or not args.picture.parent.is_dir()):
        raise ValueError(f"{args.picture} exists, or its folder does not: name a new file")
    if args.classify is not None:
        classify(args)
        return

    task, training, test, classes = read(args)
    for name, value in DEFAULTS[task].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    options.require_whole_validations(parser, args)
    training, valid = split(*training, min(5000, len(training[0]) // 10))
    model, plan, seconds = fit(args, task, training, valid, classes)
    right = model.evaluate(plan.evaluation(*test), verbose=0, return_dict=True)["token_accuracy"]
    if args.picture is not None:
        draw(model, test[0][0], args.picture)
    print(f"{100 * right:.2f} % of {len(test[0]):,} test images right, {seconds:.0f} s of training")
    again = command("python", sys.argv[0], "--run-dir", args.run_dir)
    say_next(
        {
            "Classify": f"{again} --classify IMAGE.png --picture attention.png",
            "TensorBoard": command("tensorboard", "--logdir", args.run_dir),
        }
    )


def fit(args, task, training, valid, classes):
    """Trains, or continues. Returns the model, its plan, and the seconds of training."""
    devices, scope = options.share_batches(args)
    moves = AUGMENTATION[task]
    plan = kt.data.ImagePlan(*training, args.batch, args.seed, **moves, devices=devices)
    kt.runs.set_precision(args.precision)
    keras.utils.set_random_seed(args.seed)
    with scope:
        model = kt.models.VisionTransformer(
            training[0].shape[1:],
            len(classes),
            patch_size=args.patch,
            num_layers=args.layers,
            d_model=args.width,
            num_heads=args.heads,
            dropout=args.dropout,
            pooling=args.pooling,
        )
        rate = objective.cosine(args.updates, args.rate, min(500, args.updates // 2), alpha=0.01)
        optimizer = kt.optimizers.PaperAdam(
            learning_rate=rate, beta_2=0.99, epsilon=1e-8, weight_decay=0.05, global_clipnorm=1.0
        )
        # An image is one label, and class 0 is no padding.
        objective.compile_for_tokens(model, optimizer, ignore_class=None, devices=devices)
    names = (*DEFAULTS[task], "batch", "pooling", "validate_every", "seed", "precision")
    settings = {"recipe": "classify_images", "task": task, "classes": classes}
    digest = hashlib.sha256()
    for array in (*training, *valid):
        digest.update(np.ascontiguousarray(array))
    settings |= {"images": training[0].shape, "images_sha256": digest.hexdigest()}
    settings |= {name: getattr(args, name) for name in names}
    with kt.RunDirectory.start(args.run_dir, settings, changeable=("updates",)) as run:
        kt.files.write_json(run.path / "classes.json", classes)
        state = run.fit(
            model,
            plan,
            updates=args.updates,
            validate_every=args.validate_every,
            validation=plan.evaluation(*valid),
            keep_checkpoints=2,
        )
    return model, plan, state["seconds"]


def classify(args):
    """Prints the three likeliest classes of an image file."""
    run = kt.RunDirectory.open(args.run_dir)
    classes = kt.files.read_json(run.path / "classes.json")
    model = run.load_model()
    image = read_image(args.classify, model.input_shape[1:])
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(model(scaled(image[None]))))[0]
    for i in np.argsort(-probabilities)[:3]:
        print(f"{classes[i]}\t{100 * probabilities[i]:.2f} %")
    if args.picture is not None:
        draw(model, image, args.picture)


def draw(model, image, path):
    figure = patch_attention(model, scaled(image))
    with kt.files.replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")
    print(f"drawn: {path}", file=sys.stderr)


# --- images: (integers [N, Y, X, C] from 0 to 255, labels [N])


def read(args):
    """Returns the task, images to train on, images to test with, and names of the classes."""
    if args.task == "cifar10":
        return "cifar10", *read_cifar10(), CIFAR10
    path = args.data
    if path is None:
        folder = os.environ.get("KERAS_TRANSFORMER_DATA")
        if not folder:
            raise ValueError(
                "--data names mnist.npz or a folder of class folders, or --task something to "
                "download; KERAS_TRANSFORMER_DATA is not set"
            )
        path = Path(folder) / "mnist" / "mnist.npz"
    if path.is_dir() and not (path / "mnist.npz").exists():
        return "folder", *read_folder(path, args.size)
    training, test = read_npz(path / "mnist.npz" if path.is_dir() else path)
    return "mnist", training, test, [str(i) for i in range(1 + int(training[1].max()))]


def read_npz(path):
    """Reads MNIST in Keras' format: x_train and x_test [N, Y, X], y_train and y_test [N]."""
    if not path.is_file():
        raise ValueError(f"no such file: {path}; give MNIST as Keras keeps it, mnist.npz")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
        found = [(images[..., None] if images.ndim == 3 else images, y) for images, y in found]
        for images, y in found:
            integers = images.dtype.kind in "ui" and y.dtype.kind in "ui"
            if images.ndim != 4 or y.shape != images.shape[:1] or not integers:
                raise ValueError(f"arrays of shapes {images.shape} and {y.shape}")
    except Exception as error:  # zipfile, zlib and NumPy raise ten kinds for a damaged file
        raise ValueError(
            f"{path} is not MNIST as Keras keeps it, an .npz of x_train, y_train, x_test and "
            f"y_test ({error})"
        ) from error
    return found


def read_cifar10():
    try:
        found = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises a plain Exception if it cannot download
        raise ValueError(
            f"CIFAR-10 is not there and could not be downloaded ({error}): connect to the network, "
            "or put Keras' cifar-10-batches-py-target into ~/.keras/datasets"
        ) from error
    return [(images, labels[:, 0]) for images, labels in found]


def read_folder(folder, size):
    """Reads your own images, resized. A tenth of them, and at least one, becomes the test."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    counts = np.bincount([label for _, label in files], minlength=len(classes))
    if len(classes) < 2 or counts.min() < 3:
        held = ", ".join(f"{name} {n}" for name, n in zip(classes, counts, strict=True))
        raise ValueError(
            f"{folder} holds neither mnist.npz nor two or more sub-folders of three images or more "
            f"each ({held or 'no sub-folder'})"
        )
    images = np.stack([read_image(path, (size, size, 3)) for path, _ in files])
    labels = np.array([label for _, label in files])
    training, test = split(images, labels, max(1, len(images) // 10))
    return training, test, classes


def read_image(path, shape):
    """Reads an image file of any format, resized: integers [Y, X, C], C = 1 or 3."""
    mode = "grayscale" if shape[2] == 1 else "rgb"
    try:
        image = keras.utils.load_img(path, color_mode=mode, target_size=shape[:2])
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise ValueError(
            f"{path} is no image that can be read ({error}): copy it again, or remove it."
        ) from error
    return keras.utils.img_to_array(image, dtype="uint8")


def split(images, labels, count):
    """Holds out `count` images, always the same. Returns the others, and those."""
    order = np.random.default_rng(0).permutation(len(images))
    return [(images[part], labels[part]) for part in (order[count:], order[:count])]


if __name__ == "__main__":
    main()
