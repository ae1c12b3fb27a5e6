"""Texts with their classes: NSMC's film reviews, or a file of your own."""

import numpy as np
from downloads import download_missing

import keras_transformer as kt

HOME = "https://raw.githubusercontent.com/e9t/nsmc/master"
OFFICIAL = ("아 더빙.. 진짜 짜증나네요 목소리", "굳 ㅋ")  # the first reviews of its two files


def nsmc(folder):
    """Returns training and test reviews [(text, class), ...], the classes, and a note on the test.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file has another format. The message names the line.
    """
    train, test = (_read_nsmc(folder, part) for part in ("train", "test"))
    note = (
        "NSMC's own split. Published on it: 87.5 % (mBERT) and 90.1 % (KoBERT), both pre-trained "
        "on far more text."
    )
    if (train[0][0], test[0][0]) != OFFICIAL:
        note = (
            "These files are not NSMC's own split: figures published on that (87.5 % mBERT, "
            "90.1 % KoBERT) are of other test reviews, for orientation only."
        )
    return train, test, ["negative", "positive"], note


def own(path, test_path, seed):
    """Returns the same for files with a text, a tab and a class per line.

    Without a test file a random tenth of the different texts becomes the test.
    """
    train = _labelled(path)
    if test_path is None:
        texts = list(dict.fromkeys(kt.text.comparable(text) for text, _ in train))
        if len(texts) < 10:
            raise ValueError(
                f"{path} has {len(texts)} different texts, and a tenth of them is to be kept for "
                "the test: give more, or --test-text"
            )
        order = np.random.default_rng([seed, 1]).permutation(len(texts))
        drawn = {texts[i] for i in order[: len(texts) // 10]}
        parts = ([], [])
        for text, label in train:
            parts[kt.text.comparable(text) in drawn].append((text, label))
        train, test = parts
        note = f"{path}, texts drawn at random and kept from training."
    else:
        test, note = _labelled(test_path), f"{test_path}."
    classes = sorted({label for _, label in train})
    if len(classes) < 2:
        raise ValueError(f"{path}: all is of class {classes[0]!r}, expected two classes or more")
    if unknown := sorted({label for _, label in test} - set(classes)):
        raise ValueError(f"the test has classes that training lacks: {', '.join(unknown)}")
    number = {label: i for i, label in enumerate(classes)}
    train, test = ([(text, number[label]) for text, label in part] for part in (train, test))
    return train, test, classes, note


def download(folder):
    """Downloads the two files of reviews that do not exist yet."""
    names = ("ratings_train.txt", "ratings_test.txt")
    download_missing({folder / name: f"{HOME}/{name}" for name in names})
    return folder


def _read_nsmc(folder, part):
    """Reads ratings_train.txt (or .tsv) or ratings_test.txt as [(review, 0 or 1), ...]."""
    paths = [folder / f"ratings_{part}{ending}" for ending in (".txt", ".tsv")]
    path = next((path for path in paths if path.exists()), paths[0])
    header, *rows = kt.data.read_tsv(path, 1, 2)
    if header != ("document", "label"):
        raise ValueError(
            f"{path}, line 1: expected NSMC's header, id, document and label between tabs; your "
            "own labelled text goes by --text"
        )
    for number, (_, label) in enumerate(rows, start=2):
        if label not in ("0", "1"):
            raise ValueError(f"{path}, line {number}: the label is 0 or 1, got {label!r}")
    if not rows:
        raise ValueError(f"{path} holds no review below its header")
    return [(review, int(label)) for review, label in rows]


def _labelled(path):
    """Reads a file with a text, a tab and a class per line as [(text, class), ...]."""
    rows = kt.data.read_tsv(path)
    for number, (_, label) in enumerate(rows, start=1):
        if not label.strip():
            raise ValueError(f"{path}, line {number}: no class behind the tab")
    return rows
