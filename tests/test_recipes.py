"""Tests that every recipe runs. If a command does the same, both end with the same weights."""

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_transformer as kt
from keras_transformer.models import PRESETS
from keras_transformer.runs.checkpoints import read_arrays

pytestmark = pytest.mark.tensorflow_only

RECIPES = Path(__file__).parents[1] / "recipes"
SMALL = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_ff": 64}
# TensorFlow's deterministic mode must be on before the recipe computes anything. Searches are not
# compiled, because their results do not change the weights. Every command begins as in a new
# process, where the numbers in names of variables start at 0.
DETERMINISTIC = f"""
import json, runpy, sys
import tensorflow
tensorflow.config.experimental.enable_op_determinism()
import keras, pytest, uncompiled
from keras_transformer.models import PRESETS
uncompiled.search_uncompiled(pytest.MonkeyPatch())
PRESETS["tiny"] |= {SMALL}
for sys.argv in json.loads(sys.argv[1]):
    keras.backend.clear_session()
    run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
    try:
        run(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""
# Runs a recipe as users start it, with a smaller model and searches of one shape.
SHORT = f"""
import runpy, sys
import pytest, uncompiled
from keras_transformer.models import PRESETS
uncompiled.search_in_one_shape(pytest.MonkeyPatch())
PRESETS["tiny"] |= {SMALL}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(*command):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *map(str, command)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, **pipes, text=True)


@pytest.fixture
def run_recipe(monkeypatch, capsys, uncompiled):
    """Returns a function that runs a recipe in this process; importing TensorFlow takes seconds.

    The function takes the recipe's name and options, and returns status, stdout and stderr.
    """

    def run(name, *options):
        recipe = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, options)])
        keras.backend.clear_session()  # numbers in names start at 0, as in a new process
        capsys.readouterr()
        status, message = 0, ""
        try:
            recipe.main()
        except SystemExit as end:  # with a text, Python prints it and ends with status 1
            status, message = (1, end.code) if isinstance(end.code, str) else (end.code, "")
        out, err = capsys.readouterr()
        return status, out, err + message

    return run


def write_text(folder):
    """Writes a small text in the form of Multi30k: words, and their reversed spellings."""
    rng = random.Random(11)
    for name, count in (("train", 60), ("val", 5), ("test2016", 5)):
        sources = [" ".join(rng.choices("ba be bo da de do".split(), k=3)) for _ in range(count)]
        targets = [" ".join(word[::-1] for word in source.split()) for source in sources]
        for language, lines in (("en", sources), ("de", targets)):
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")


# Fails if: the recipe's peak rate differs by 3 %.
def test_the_multi30k_recipe_and_the_command_are_bit_equal(tmp_path):
    """The command is that of docs/results.md, with a smaller text, vocabulary and training."""
    write_text(tmp_path)
    results = (RECIPES.parent / "docs" / "results.md").read_text(encoding="utf-8")
    command = results.split("```\nkeras-transformer train ")[1].split("```")[0].split("keras-")[0]
    options = command.replace("\\\n", " ").split()
    for side in ("source", "target"):
        language = {"source": "en", "target": "de"}[side]
        for part, name in (("train", "train"), ("valid", "val")):
            options[options.index(f"--{part}-{side}") + 1] = tmp_path / f"{name}.{language}"
    small = {"--vocabulary-size": 280, "--updates": 4, "--validate-every": 2}
    for option, value in {**small, "--run-dir": tmp_path / "by_command"}.items():
        options[options.index(option) + 1] = value

    recipe = RECIPES / "translate_multi30k.py"
    given = ["--data", tmp_path, "--run-dir", tmp_path / "by_recipe"]
    given += [word for option in small.items() for word in option]
    given += ["--precision", options[options.index("--precision") + 1]]
    commands = [recipe, *given], ["keras_transformer", "train", *options, "--deterministic"]
    commands = [[str(word) for word in command] for command in commands]
    process = start("-c", DETERMINISTIC, json.dumps(commands))
    _, errors = process.communicate()
    assert process.returncode == 0, errors

    runs = [tmp_path / name for name in ("by_recipe", "by_command")]
    for file in ("checkpoints/update-00000004/weights.npz", "averaged.npz"):
        by_recipe, by_command = (dict(read_arrays(run / file)) for run in runs)
        assert by_recipe.keys() == by_command.keys() and len(by_recipe) > 25
        for name, array in by_recipe.items():
            np.testing.assert_array_equal(array, by_command[name], err_msg=name)
    first = dict(read_arrays(runs[0] / "checkpoints/update-00000002/weights.npz"))
    assert all((first[name] != array).any() for name, array in by_recipe.items())


# Fails if: the translations take the place of the references, or change the vocabulary.
def test_translations_by_other_runs_are_trained_on_beside_the_references(
    tmp_path, run_recipe, monkeypatch
):
    write_text(tmp_path)
    train = kt.data.read_parallel(tmp_path / "train.en", tmp_path / "train.de")
    translations = [f"so {number}" for number in range(len(train))]
    file = tmp_path / "distilled.de"
    options = ["--data", tmp_path, "--run-dir", tmp_path / "run", "--distilled", file]
    file.write_text("\n".join(translations[1:]))
    status, _, errors = run_recipe("translate_multi30k", *options)
    assert status == 1 and "distilled.de has 59" in errors
    file.write_text("\n".join(translations))
    words, pairs = [], []

    def stopped(text, tokenizer):
        pairs.extend(text)
        sys.exit(3)

    monkeypatch.setattr(kt.text, "train_tokenizer", lambda text, size: words.extend(text))
    monkeypatch.setattr(kt.data, "encode_pairs", stopped)
    assert run_recipe("translate_multi30k", *options)[0] == 3
    sources = [source for source, _ in train]
    assert words == train and pairs == train + list(zip(sources, translations, strict=True))


@pytest.mark.parametrize("direction", [[], ["--to-korean"]])
def test_the_korean_recipe_trains_tests_and_translates(
    direction, tmp_path, run_recipe, monkeypatch
):
    monkeypatch.setitem(PRESETS, "tiny", {**PRESETS["tiny"], **SMALL})
    run = tmp_path / "run"
    small = "--size 300 --test-size 3 --vocabulary-size 700 --updates 2 --validate-every 1".split()
    options = ["--run-dir", run, *small, *direction]
    if direction:
        status, out, err = run_recipe("translate_ko_en", *options)
    else:  # in a new process, as users start it, with compiled searches
        process = start("-c", SHORT, RECIPES / "translate_ko_en.py", *options)
        out, err = process.communicate()
        status = process.returncode
    assert status == 0, err
    for test in ("random", "objects", "topics", "tenses", "clauses", "counts", "shuffled"):
        assert test in out
    assert ("levels" in out) == (not direction)  # English to Korean has one level
    assert out.count(" -> ") > 10
    commands = err.split("\n\n")[-1].splitlines()
    assert [line.split(":")[0] for line in commands] == [
        "Translate", "Look at one", "TensorBoard", "Its words", "Your text",
    ]  # fmt: skip
    assert commands[0].endswith(f" | keras-transformer translate {run}")
    events = EventAccumulator(str(run)).Reload()
    for score in ("bleu", "chrf"):
        assert [event.step for event in events.Scalars(f"validation/{score}")] == [1, 2]
    first, *_ = events.Tensors("translations")
    rows = first.tensor_proto.string_val[0].decode().split("\n")
    assert rows[0] == "| source | reference | translation |" and len(rows) > 3
    if not direction:
        monkeypatch.setattr(kt.Translator, "translate", lambda self, texts, **_: list(texts))
        status, _, again = run_recipe("translate_ko_en", *options)
        assert status == 0 and "trained already, 2 updates" in again


def test_the_pronunciation_recipe_trains_scores_and_pronounces(tmp_path, run_recipe, monkeypatch):
    """Uses words of an invented spelling: every syllable is read letter by letter."""
    monkeypatch.setitem(PRESETS, "tiny", {**PRESETS["tiny"], **SMALL})
    for name, words in (
        ("train", "가각 나각 가나 각나 나가 각가"),
        ("dev", "나나 각"),
        ("test", "가"),
    ):
        table = {"가": "k a", "각": "k a k", "나": "n a"}
        lines = (
            f"{word}\t{' '.join(table[letter] for letter in word)}\n" for word in words.split()
        )
        (tmp_path / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    run = tmp_path / "run"
    small = ["--run-dir", run, "--members", 2]
    train = ["--data", tmp_path, "--updates", 2, "--validate-every", 1]

    def output(*options):
        status, lines, errors = run_recipe("pronounce_korean", *small, *options)
        assert status == 0, errors
        return lines.splitlines()

    lines = output(*train)
    table = {line.split()[0]: line.split()[1:] for line in lines[-6:] if line}
    assert list(table) == ["%", "seed-1", "seed-2", "ensemble", "mean", "deviation"]
    rates = np.array([table[name] for name in ("seed-1", "seed-2", "mean")], float)
    np.testing.assert_allclose(rates[:2].mean(axis=0), rates[2], atol=0.011)
    assert set(rates[:2, 0]) <= {0, 50, 100} and set(rates[:2, 2]) <= {0, 100}
    weights = [dict(read_arrays(run / seed / "averaged.npz")) for seed in ("seed-1", "seed-2")]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])
    (line,) = output("--words", "각나")
    assert line.startswith("각나\t")


def test_the_language_model_recipe_trains_resumes_and_writes(tmp_path, run_recipe):
    text = tmp_path / "text"
    text.write_text("ab cd\n가나 " * 60, encoding="utf-8")
    small = ["--layers", 1, "--heads", 1, "--width", 4, "--context", 8, "--batch", 2]
    small += ["--updates", 2, "--validate-every", 1, "--text", text]

    def output(*options):
        return run_recipe("language_model", "--run-dir", tmp_path / "run", *options)

    status, trained, errors = output(*small)
    assert status == 0 and "nats per character" in trained, errors
    status, again, _ = output(*small)  # trained already
    assert status == 0 and again.split()[0] == trained.split()[0]
    status, written, _ = output("--write", "가", "--characters", 20)
    assert status == 0 and written[0] == "가" and set(written) <= set("ab cd\n가나")
    assert len(written) == 1 + 20 + 1
    status, _, errors = output("--write", "x")
    assert status == 1 and "never seen in training: ['x']" in errors
    assert output()[0] == 2
    status, _, errors = output(*small, "--updates", 3, "--validate-every", 2)
    assert status == 2 and "--updates 3 is no multiple" in errors
    status, _, errors = output(*small, "--devices", 9)
    assert status == 1 and "9 devices were asked for" in errors
    status, _, errors = output("--text", tmp_path / "none")
    assert status == 1 and "no such file" in errors


# Per recipe: wrong options, and the message for them.
WRONG = {
    "ablate_paper": (["--data", "nowhere"], "no such file: nowhere/train.en"),
    "classify_images": (["--data", "nowhere"], "no such file: nowhere"),
    "compare_seq2seq": (["--data", "nowhere"], "no such file: nowhere/train.en"),
    "language_model": (["--text", "nowhere"], "no such file: nowhere"),
    "pretrain_and_classify": (["--data", "nowhere"], "no such file: nowhere/ratings_train.txt"),
    "pronounce_korean": (["--data", "nowhere"], "no such file: nowhere/train.tsv"),
    "translate_ko_en": (
        ["--size", "300", "--test-size", "3", "--vocabulary-size", "9000"],
        "supports at most",
    ),
    "translate_multi30k": (["--data", "nowhere"], "no such file: nowhere/train.en"),
    "translate_wmt14": (["--data", "nowhere"], "nowhere lacks 5 of the 5 archives"),
}


# Fails if: a recipe ends in a traceback.
def test_every_recipe_says_in_one_line_what_is_wrong(tmp_path, monkeypatch, capsys):
    scripts = {path.stem for path in RECIPES.glob("*.py") if "__main__" in path.read_text()}
    assert set(WRONG) == scripts
    monkeypatch.chdir(tmp_path)
    for name, (options, message) in WRONG.items():
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(name).main()
        line, *listed = end.value.code.split("\n")
        assert message in line, line
        if name == "translate_wmt14":  # lists the files to fetch
            assert len(listed) == 5
        else:
            assert line.startswith(f"{name}: error: ") and not listed, line
    assert not list(tmp_path.iterdir())  # nothing was written


def test_a_run_of_another_kind_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    import language_model

    (tmp_path / "text").write_text("ab cd " * 60, encoding="utf-8")
    for folder, content, message in (
        ("other", '{"recipe": "ko_en"}', "holds a run with other settings"),
        ("broken", "{", "settings.json is broken or half-written"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "settings.json").write_text(content, encoding="utf-8")
        (tmp_path / folder / "averaged.npz").touch()
        options = ["--text", str(tmp_path / "text"), "--run-dir", str(tmp_path / folder)]
        small = ["--layers", "1", "--heads", "1", "--width", "4", "--context", "8"]
        monkeypatch.setattr(sys, "argv", ["language_model.py", *options, *small])
        with pytest.raises(SystemExit, match=message):
            language_model.main()
    for options, message in (
        (["--run-dir", "nowhere", "--write", "a"], "No run at nowhere"),
        (["--run-dir", str(tmp_path / "broken"), "--write", "a"], "is broken"),
    ):
        monkeypatch.setattr(sys, "argv", ["language_model.py", *options])
        with pytest.raises(SystemExit, match=message):
            language_model.main()
