"""Damaged files of the recipes: a reader reads them, or says in one line what is wrong."""

import gzip
import shutil
import sys
from pathlib import Path

import numpy as np
from mutations import mutations

import keras_transformer as kt
from campaign import cases
from campaign.damage import COPIES, wrong

TEXT = "".join(f"ba be {word}\tda de {word}\n" for word in "bo do ba da be de".split() * 3)


def parallel(folder):
    for name in ("a", "b"):
        (folder / name).write_text(TEXT, encoding="utf-8")
    return lambda: kt.data.read_parallel(folder / "a", folder / "b")


def zipped(folder):
    (folder / "a.gz").write_bytes(gzip.compress(TEXT.encode(), mtime=0))
    return lambda: kt.data.read_tsv(folder / "a.gz")


def film_reviews(folder):
    import labelled_text

    for part in ("train", "test"):
        rows = "".join(f"{i}\t좋은 영화 {i}\t{i % 2}\n" for i in range(9))
        (folder / f"ratings_{part}.txt").write_text(f"id\tdocument\tlabel\n{rows}", "utf-8")
    return lambda: labelled_text.nsmc(folder)


def own_labels(folder):
    import labelled_text

    rows = "".join(f"a text {i}\tclass {i % 3}\n" for i in range(30))
    (folder / "a.tsv").write_text(rows, "utf-8")
    return lambda: labelled_text.own(folder / "a.tsv", None, 1)


def pronunciations(folder):
    import pronounce_korean

    (folder / "a.tsv").write_text("가각\tk a k a k\n나\tn a\n" * 5, "utf-8")
    return lambda: pronounce_korean.read(folder / "a.tsv")


def characters(folder):
    import language_model

    (folder / "a.txt").write_text(TEXT, "utf-8")
    return lambda: language_model.read(folder / "a.txt")


def digits(folder):
    import classify_images

    rng = np.random.default_rng(1)
    arrays = {}
    for part, count in (("train", 30), ("test", 7)):
        arrays[f"x_{part}"] = rng.integers(256, size=(count, 9, 9)).astype("uint8")
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype("uint8")
    np.savez_compressed(folder / "mnist.npz", **arrays)

    def read():
        training, test = classify_images.read_npz(folder / "mnist.npz")
        kt.data.ImagePlan(*training, 4, 1, shift=2).batch(0)

    return read


def images(folder):
    import classify_images
    from PIL import Image

    rng = np.random.default_rng(1)
    for number, ending in enumerate(("png", "jpg", "gif", "bmp", "webp", "png")):
        path = folder / f"class {number % 2}" / f"{number}.{ending}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(256, size=(9, 9, 3)).astype("uint8")).save(path)
    return lambda: classify_images.read_folder(folder, 8)


def archives(folder):
    import wmt14_data
    from test_wmt14 import write_distribution

    write_distribution(folder / "data", "fr", count=3)

    def read():
        list(wmt14_data.TrainingText(folder / "data", "fr"))
        for year in (2013, 2014):
            wmt14_data.newstest(folder / "data", "fr", year)

    return read


READERS = (parallel, zipped, film_reviews, own_labels, pronunciations, characters, digits, images)
READERS += (archives, digits, images, archives)


class Readers:
    """Each method is a turn: it returns what went wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir()

    def of_recipes(self, rng: np.random.Generator, number: int) -> str | None:
        """A file that a recipe reads, damaged in 50 ways. Nothing is written at all."""
        reader, data = READERS[number % len(READERS)], self.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        read = reader(data)
        files = sorted(path for path in data.rglob("*") if path.is_file())
        path = files[rng.integers(len(files))]
        good, seed = path.read_bytes(), int(rng.integers(2**31))
        self.count += COPIES

        def read_each():
            from keras_transformer.cli import program

            read()
            for content in [*mutations(good, COPIES - 1, seed), b""]:
                path.write_bytes(content)
                try:
                    with program(reader.__name__):
                        read()
                except SystemExit as end:
                    print(end.code, file=sys.stderr)

        end = cases.run(read_each, path)  # it may write this file
        return wrong(end, f"{reader.__name__}, damage to {path.name}")
