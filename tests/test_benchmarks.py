"""Tests of the benchmarks: contestants in processes of their own, and what is counted."""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import decode
import keras
import lengths
import numpy as np
import pytest
import train
from contest import Contestant
from decoding import loop
from test_translator import character_tokenizer, small_model

from keras_transformer import Translator
from keras_transformer.decoding import shapes
from keras_transformer.models import Transformer

pytestmark = pytest.mark.tensorflow_only

FOLDER = Path(__file__).parent.parent / "benchmarks"

ECHO = """
import os
def prepare(config):
    print("noise")
    os.system("echo more noise")
    def answer(request):
        print("noise again")
        return {"sum": config["base"] + 1 // request["x"]}
    return answer, {"ready": True}
"""


def test_a_contestant_answers_whatever_it_prints_and_says_what_broke(tmp_path):
    file = tmp_path / "echo.py"
    file.write_text(ECHO)
    contestant = Contestant("echo", file, {"base": 5}, tmp_path / "logs" / "echo.txt")
    assert contestant.facts == {"ready": True}
    assert contestant.ask({"x": 1}) == {"sum": 6}
    with pytest.raises(RuntimeError, match="echo: ZeroDivisionError.*see .*echo.txt"):
        contestant.ask({"x": 0})
    assert "more noise" in contestant.log.read_text()
    file.write_text("import nothing_of_this_name")
    with pytest.raises(RuntimeError, match="ModuleNotFoundError"):
        Contestant("echo", file, {}, tmp_path / "other.txt")


def test_operations_are_those_of_the_models_matrices():
    size = {"num_layers": 2, "d_model": 6, "num_heads": 3, "d_ff": 11, "dropout": 0.0}
    model = Transformer(13, **size)

    def weights(part, *names):
        return sum(
            int(w.shape[0] * w.shape[1])
            for w in part.weights
            if len(w.shape) == 2 and (not names or any(name in w.path for name in names))
        )

    rows, source, target = 3, 5, 7
    of_memory = ("cross_attention/key", "cross_attention/value")
    cross = weights(model.decoder, *of_memory)
    products = source * (weights(model.encoder) + cross)
    products += target * (weights(model.decoder) - cross + 13 * 6)
    scores = 2 * 6 * 2 * (source * source + target * target + target * source)
    # Forward and twice as much backward, with two operations per multiplication and addition.
    expected = 6 * rows * (products + scores)
    assert train.operations([(rows, source, target)], size, 13) == expected


@pytest.fixture
def tiny(monkeypatch):
    """Makes the size "tiny" even smaller."""
    size = {"num_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 24, "dropout": 0.1}
    monkeypatch.setitem(train.SIZES, "tiny", size)
    monkeypatch.setitem(train.VOCABULARY, "tiny", 50)
    monkeypatch.setitem(train.TOKENS, "tiny", 256)


def test_one_shrunk_contest(tiny, tmp_path, monkeypatch, capsys):
    command = ["train.py", "--size", "tiny", "--dtype", "float32"]
    command += ["--contestants", "keras_transformer_fit", "--batches", "1", "--rounds", "1"]
    command += ["--logs", str(tmp_path), "--output", str(tmp_path / "train.json")]
    monkeypatch.setattr(sys, "argv", command)
    train.main()
    printed = capsys.readouterr().out
    assert "keras_transformer_fit" in printed and "1.00" in printed
    assert json.loads((tmp_path / "train.json").read_text())["cells"]


class Here:
    """A contestant in the tests' process, because one of its own imports all libraries anew."""

    def __init__(self, name, file, config, log):
        spec = importlib.util.spec_from_file_location(f"contestant_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._answer, self.facts = module.prepare(json.loads(json.dumps(config)))

    def ask(self, request):
        return json.loads(json.dumps(self._answer(json.loads(json.dumps(request)))))

    def close(self):
        pass


@pytest.fixture
def here(monkeypatch):
    """Lets contestants translate in the tests' process, without rests."""
    monkeypatch.setattr(decode, "Contestant", Here)
    monkeypatch.setattr(decode, "REST", 0)
    # Contestants change these for their whole process.
    monkeypatch.setattr(shapes, "REPAYS_FROM", shapes.REPAYS_FROM)
    if importlib.util.find_spec("torch"):
        monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.syspath_prepend(FOLDER / "decoding")


@pytest.mark.parametrize(
    ("package", "others", "search", "measurements"),
    [
        (
            "ctranslate2",
            ["keras_transformer_auto", "ctranslate2", "ctranslate2_int8"],
            "beam",
            ["latency", "latency after a pause", "throughput"],
        ),
        (
            "transformers",
            ["huggingface", *sorted(decode.LOOPS)],
            "greedy",
            ["latency", "latency after a pause", "throughput", "7 tokens"],
        ),
    ],
)
def test_one_shrunk_contest_of_translators(
    package, others, search, measurements, tiny, here, tmp_path, monkeypatch, capsys
):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[bench]'")
    if package == "transformers":
        pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[bench]'")
    monkeypatch.setattr(decode, "TOKENS", 5)
    monkeypatch.setattr(decode, "LOOP_TOKENS", 7)
    args = argparse.Namespace(
        run=None,
        source=None,
        search=[search],
        contestants=[decode.OURS, *others],
        rounds=1,
        sentences=20,
        latency_sentences=3,
        logs=tmp_path,
    )
    cells = list(decode.contests("tiny", args, cores=1))
    assert [cell["measurement"] for cell in cells] == measurements
    for cell in cells:
        decode.print_cell(cell)
        lengths = cell["request"]["tokens"] * cell["request"]["count"]
        assert all(result["tokens"] == lengths for result in cell["contestants"].values())
        missing = {*args.contestants} - {*cell["contestants"]}
        assert missing <= decode.LOOPS and not (missing and cell["measurement"] == "7 tokens")
    assert list(decode.differences(cells)) == []
    printed = capsys.readouterr().out
    assert f"tiny {search}, throughput: 20 sentences" in printed and "batch_size" in printed


# Fails if: drawn ids are compared, or `auto` is measured, which leaves samples to our own engine.
def test_one_shrunk_contest_of_samples(run, parallel, here, tmp_path, capsys):
    for package in ("ctranslate2", "transformers", "torch"):
        pytest.importorskip(
            package, reason=f"{package} is not installed: pip install -e '.[bench]'"
        )
    others = ["keras_transformer_auto", "ctranslate2", "huggingface"]
    args = argparse.Namespace(
        run=run,
        source=dict(each.split("=") for each in parallel)["--train-source"],
        search=["sample"],
        contestants=[decode.OURS, *others],
        rounds=1,
        sentences=8,
        latency_sentences=2,
        logs=tmp_path,
    )
    cells = list(decode.contests("run", args, cores=1))
    measurements = ["latency", "latency after a pause", "throughput"]
    assert [cell["measurement"] for cell in cells] == measurements
    for cell in cells:
        decode.print_cell(cell)
        assert list(cell["contestants"]) == [decode.OURS, "ctranslate2", "huggingface"]
    assert list(decode.differences(cells)) == []
    assert "run sample, throughput: 8 sentences" in capsys.readouterr().out


def asked(**options):
    """A request of a contest, changed by `options`."""
    request = {"setting": {}, "one_by_one": False, "beam_size": 1, "compared": True, "top_p": None}
    return request | options


def answer_of_three():
    """Answers requests by translations of three tokens, the end counted."""
    return loop.answers([[5, 6], [7]], lambda: lambda rows, *_: [[8, 9]] * len(rows))


# Fails if: a pause is not made, or is timed.
def test_a_pause_is_made_and_not_timed():
    begin = time.perf_counter()
    pauses = answer_of_three()(asked(count=2, tokens=3, one_by_one=True, pause=0.2))
    assert sum(pauses["seconds"]) < 0.2 < 0.4 <= time.perf_counter() - begin


def test_translations_of_another_length_or_of_other_ids_are_errors():
    answer = answer_of_three()
    assert answer(asked(count=2, tokens=3))["ids"] == [[8, 9], [8, 9]]
    assert answer(asked(count=1, tokens=None))["tokens"] == 3  # counts the end
    with pytest.raises(ValueError, match=r"of \[3, 3\] tokens and not 4"):
        answer(asked(count=2, tokens=4))
    results = {"ctranslate2": {"same": 95}, "huggingface": {"same": 97}}
    cell = {"size": "tiny", "search": "beam", "measurement": "latency", "compared": 100}
    found = list(decode.differences([{**cell, "contestants": results}]))
    assert found == ["tiny beam latency: ctranslate2 differs in 5 of 100 sentences"]


def test_a_pre_norm_model_is_pegasus():
    pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from decoding.huggingface import to_huggingface

    size = {"num_layers": 2, "d_model": 24, "num_heads": 3, "d_ff": 37, "norm": "pre"}
    model = Transformer(50, **size)
    random = np.random.default_rng(1)
    model.set_weights([random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    source, target = random.integers(4, 50, (2, 3, 7))
    source[0, 4:] = 0
    with torch.no_grad():
        theirs = to_huggingface(model, 16, pad_id=0, start_id=2, end_id=3)(
            input_ids=torch.tensor(source),
            attention_mask=torch.tensor(source != 0),
            decoder_input_ids=torch.tensor(target),
        ).logits
    ours = model({"source_ids": source, "target_ids": target}).numpy()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_costs_of_large_text_are_measured(tmp_path):
    output = tmp_path / "report.json"
    command = [sys.executable, str(FOLDER / "scale.py"), "--pairs", "9000", "30000"]
    command += [
        "--updates",
        "3",
        "--steps",
        "2",
        "--folder",
        str(tmp_path),
        "--output",
        str(output),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, other = json.loads(output.read_text())["results"]
    assert other["bytes"] > 3 * one["bytes"]
    for found in (one, other):
        assert found["first start"]["seconds"] > found["restart"]["seconds"] > 0
        assert 0 < found["restart"]["waiting_share"] < 1
    assert "1,000,000,000 pairs: about" in done.stdout and "cores" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.slow
def test_bleu_against_time_of_a_shrunk_training(tmp_path):
    sources = [f"{a} {b} {c}" for a in "abcdefg" for b in "hijkl" for c in "mnopq"]
    for name, lines in (("train", sources), ("val", sources[::9])):
        for language, order in (("en", 1), ("de", -1)):
            text = "".join(line[::order] + "\n" for line in lines)
            (tmp_path / f"{name}.{language}").write_text(text)
    command = [sys.executable, str(FOLDER / "time_to_bleu.py"), "--data", str(tmp_path)]
    command += ["--runs", str(tmp_path / "runs"), "--updates", "8", "--validate-every", "2"]
    command += ["--vocabulary-size", "290", "--output", str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    points = json.loads((tmp_path / "report.json").read_text())["curves"]["keras_transformer"]
    assert [point["update"] for point in points] == [4, 8]
    assert [list(point["bleu"]) for point in points] == [["1"], ["1", "4"]]
    assert 0 < points[0]["minutes"] < points[1]["minutes"]
    assert "40 BLEU: not reached" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True)  # trains nothing
    assert json.loads((tmp_path / "report.json").read_text())["curves"] == {
        "keras_transformer": points
    }
    assert again.returncode == 0
    command[command.index("--data") + 1] = str(tmp_path / "no")
    missing = subprocess.run(command, capture_output=True, text=True)
    assert missing.returncode == 2 and "no train.en" in missing.stderr


# Fails if: the chance is read one position late; a shorter row's padding is read.
def test_the_chance_of_an_end_is_that_of_score():
    tokenizer = character_tokenizer("abcdef")
    translator = Translator(small_model(tokenizer.vocabulary_size), tokenizer)
    pairs = [("ab", "c"), ("fade", "bc"), ("c", "deaf")]
    rows = lengths.ends(translator, pairs)
    targets = tokenizer.encode([target for _, target in pairs])
    assert rows[:, 0].tolist() == [len(ids) for ids in targets]
    scored = translator.token_log_probabilities(pairs)
    np.testing.assert_allclose(rows[:, 2], [np.exp(row[-1]) for row in scored], rtol=1e-4)
    # What is expected before the end: the chance of an end after each shorter target.
    source = [*translator.encode_sources(["fade"])[0], tokenizer.end_id]
    chances = []
    for count in range(len(targets[1])):
        arrays = {"source_ids": [source], "target_ids": [[tokenizer.start_id, *targets[1][:count]]]}
        logits = translator.models[0]({name: np.array(ids) for name, ids in arrays.items()})
        chances.append(float(keras.ops.softmax(logits)[0, -1, tokenizer.end_id]))
    np.testing.assert_allclose(rows[1, 1], sum(chances), rtol=1e-4)
