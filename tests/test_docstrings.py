"""Tests that the examples of docstrings run, and that the comments beside their lines are true.

A comment that is a value, as in `causal_mask(2)  # [[True, False], [True, True]]`, is compared with
the line's value. After an assignment, a list of integers is the shape of the assigned tensor. Names
that an example does not define (model, pairs, tokenizer, ...) come from the fixture `world`. `fit`
takes only one step.
"""

import ast
import contextlib
import gzip
import importlib
import io
import json
import math
import re
import shutil
import tokenize
from pathlib import Path

import keras
import numpy as np
import pytest
from marian_folders import tiny_distribution

import keras_transformer as kt
from keras_transformer.datasets import korean_english

pytestmark = pytest.mark.tensorflow_only

PACKAGE = Path(kt.__file__).parent
PAIRS = [("two young men .", "zwei junge männer .")]
PAIRS += [(f"a {a} {b} .", f"ein {b} {a} .") for a in "abcdefgh" for b in "stuvwxyz"]


def docstrings():
    """Yields (module, name, text) for every docstring of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "__main__.py":
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                text = ast.get_docstring(node) or ""
                yield name.removesuffix(".__init__"), getattr(node, "name", "itself"), text


# These examples train and translate, which takes half a minute per example.
LONG = {"TrainSettings", "train"}


def examples():
    """Yields (module, name, code) for every example: a block of Python, or lines after >>>."""
    for module, name, text in docstrings():
        code = re.findall(r"```python\n(.*?)```", text, re.S)
        prompted = re.findall(r"^(?:>>>|\.\.\.) ?(.*)$", text, re.M)
        code += ["\n".join(prompted)] if prompted else []
        for number, each in enumerate(code):
            marks = [pytest.mark.slow] if name in LONG else []
            yield pytest.param(module, each, id=f"{module}:{name}:{number}", marks=marks)


def build():
    return compiled(kt.models.Transformer(290, num_layers=1, d_model=16, num_heads=2, d_ff=16))


def compiled(model):
    model.compile(
        kt.optimizers.PaperAdam(d_model=16, warmup_steps=10),
        kt.losses.SmoothedCrossentropy(0.1),
        weighted_metrics=[kt.metrics.NatsPerToken(), kt.metrics.TokenAccuracy()],
    )
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns a folder with the files and trained runs that examples name."""
    folder = tmp_path_factory.mktemp("examples")
    sources, targets = ("".join(f"{line}\n" for line in side) for side in zip(*PAIRS, strict=True))
    for name, text in (("train.en", sources), ("test.en", sources), ("train.de", targets)):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "train.de.gz").write_bytes(gzip.compress(targets.encode()))
    rows = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    for name in ("kor.txt", "pairs.tsv", "ours.tsv"):
        (folder / name).write_text(rows, encoding="utf-8")
    (folder / "web-1.tsv.gz").write_bytes(gzip.compress(rows.encode()))
    (folder / "scores.json").write_text("[]")
    (folder / "exports").mkdir()
    for name in ("opus-mt-en-fr", "opus-mt-en-ROMANCE"):
        tiny_distribution(folder / name, PAIRS, (">>fra<<", ">>ita<<") if "ROM" in name else ())
    tokenizer = kt.text.train_tokenizer(PAIRS, vocabulary_size=290)
    with kt.RunDirectory.start(folder / "runs" / "en-de", {}) as run:
        tokenizer.save(run.path / "tokenizer.model")
        run.save_checkpoint(build(), 1, {"update": 1})
    for name in ("seed1", "seed2", "demo"):
        shutil.copytree(folder / "runs" / "en-de", folder / "runs" / name)
    return folder


def public(*rooms):
    return {name: getattr(room, name) for room in rooms for name in room.__all__}


@pytest.fixture(scope="module")
def world(files):
    """Returns the names that examples use without defining them."""
    import matplotlib.figure
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    tokenizer = kt.text.Tokenizer.load(files / "runs" / "en-de" / "tokenizer.model")
    encoded = kt.data.encode_pairs(PAIRS, tokenizer)
    plan = kt.data.BatchPlan(encoded, 256, seed=1)
    model = build()
    sources, references = zip(*PAIRS[:4], strict=True)
    images = np.zeros((130, 28, 28, 1), "uint8")

    def step(ids, cache, index):
        return keras.ops.one_hot(keras.ops.full_like(ids, 3), 9), cache

    rooms = (kt.layers, kt.models, kt.optimizers, kt.callbacks, kt.data, kt.decoding, kt.runs)

    def my_beam_search(source_ids):
        limits = np.full(len(source_ids), source_ids.shape[1] + 3, "int32")
        arrays = map(keras.ops.convert_to_tensor, (source_ids, limits))
        return translator.search_ids(*arrays, source_ids.shape[1] + 3, 4, 4, 0.6)[:2]

    translator = kt.Translator(model, tokenizer)
    return {
        **public(*rooms, kt.evaluation, kt.visualization),
        **{"SmoothedCrossentropy": kt.losses.SmoothedCrossentropy, "progress": kt.progress},
        **{"kt": kt, "keras": keras, "np": np, "math": math, "json": json, "tf": tf},
        **{"matplotlib": matplotlib, "corpus": korean_english, "Path": Path},
        **{"model": model, "tokenizer": tokenizer, "translator": translator},
        **{"pairs": PAIRS, "train": PAIRS, "valid": PAIRS[:4], "valid_pairs": PAIRS[:4]},
        **{"sources": sources, "references": references, "hypotheses": list(references)},
        **{"texts": [text for pair in PAIRS for text in pair], "labels": [0, 1] * len(PAIRS)},
        **{"encoded": encoded, "plan": plan, "batches": plan.dataset(), "others": list(sources)},
        **{"images": images, "image_labels": np.zeros(130, "int32"), "ids": np.arange(1, 999)},
        **{"step": step, "cache": [], "max_lengths": np.array([4, 5]), "size": 3},
        **{"prompts": np.array([[5, 6], [7, 0]]), "prompt_lengths": np.array([2, 1])},
        **{"source_ids": np.array([[5, 6, 3], [7, 8, 3], [9, 4, 3], [8, 8, 3]])},
        **{"target_ids": np.array([[2, 7]] * 4)},
        **{"source_tokens": ["I", "go", "</s>"], "target_tokens": ["<s>", "Ich"]},
        **{"my_beam_search": my_beam_search, "encoder": model.feature_extractor()},
        **{
            "inputs": model.inputs,
            "outputs": model.outputs,
            "batch": 50,
            "score": keras.callbacks.Callback(),
        },
        **{"chunks": [(3, ["a", "b"])], "run": kt.RunDirectory.open(files / "runs" / "en-de")},
    }


def of_its_own(module, world):
    """Returns the names that have another meaning in one module."""
    room, _, name = module.removeprefix("keras_transformer.").partition(".")
    sizes = {"num_layers": 1, "d_model": 8, "num_heads": 1, "max_length": 512}
    if name in ("windows", "sampling", "sampler"):
        model = kt.models.CausalLanguageModel(1000, **sizes)
        model.compile("adam", kt.losses.SmoothedCrossentropy(0.0))
        return {"model": model}
    if name in ("images", "vision_transformer"):
        model = kt.models.VisionTransformer((28, 28, 1), 2, 7, num_layers=1, d_model=8, num_heads=1)
        model.compile("adam", kt.losses.SmoothedCrossentropy(0.0, ignore_class=None))
        return {"model": model, "labels": world["image_labels"]}
    if name in ("labelled_texts", "masked"):
        tokenizer = world["tokenizer"]
        encoded = kt.data.encode_texts(world["texts"], tokenizer, world["labels"])
        classifier = kt.models.TextClassifier(300, num_classes=2, **sizes)
        masked = kt.models.MaskedLanguageModel(300, **sizes)
        masked.compile("adam", kt.losses.SmoothedCrossentropy(0.0))
        model = classifier if name == "labelled_texts" else masked
        return {"encoded": encoded, "valid": encoded, "classifier": classifier, "num_classes": 2,
                "model": model}  # fmt: skip
    if name == "report":
        return {"train": world["encoded"]}
    if room == "runs":
        own = {"run": kt.RunDirectory.start("own", {})}
        return own | ({"valid": world["encoded"]} if name in ("fit", "run_directory") else {})
    return {}


@contextlib.contextmanager
def cut_short(monkeypatch):
    """Makes every `fit` take one step."""
    fit = keras.Model.fit

    def one_step(self, *args, **options):
        options |= {"epochs": 1, "initial_epoch": 0, "steps_per_epoch": 1, "verbose": 0}
        return fit(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", one_step)
        yield


def claims(code):
    """Returns the comments of a piece of code as {line: comment}."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def literal(text):
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return None


def check(value, claimed, shape):
    if shape and isinstance(claimed, list) and all(isinstance(each, int) for each in claimed):
        assert list(value.shape) == claimed
    elif isinstance(claimed, (list, float)) and not isinstance(value, (str, dict)):
        found = np.asarray(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(value)))
        if found.dtype.kind in "USO":
            assert list(value) == claimed
        else:
            np.testing.assert_allclose(found, claimed, atol=6e-4)
    elif claimed is not None:
        assert value == claimed


def run(code, names):
    comments = claims(code)
    for statement in ast.parse(code).body:
        claimed = literal(comments.get(statement.end_lineno, "").partition(":")[0])
        if claimed is None:
            found = re.match(r"\[[\d, ]+\]", comments.get(statement.end_lineno, ""))
            claimed = found and literal(found[0])
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), "<example>", "eval"), names)
            check(value, claimed, shape=False)
            continue
        exec(compile(ast.Module([statement], []), "<example>", "exec"), names)
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            check(names[statement.targets[0].id], claimed, shape=True)


@pytest.mark.parametrize("module, code", list(examples()))
def test_the_example_runs_and_says_the_truth(
    module, code, world, files, tmp_path, monkeypatch, uncompiled
):
    shutil.copytree(files, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    weights = world["model"].get_weights()
    names = {**world, **vars(importlib.import_module(module)), **of_its_own(module, world)}
    policy = keras.config.dtype_policy()
    with cut_short(monkeypatch):
        try:
            run(code, names)
        finally:  # an example may choose another one, freeze, train or compile
            keras.config.set_dtype_policy(policy)
            world["model"].trainable = True
            world["model"].set_weights(weights)
            compiled(world["model"])
