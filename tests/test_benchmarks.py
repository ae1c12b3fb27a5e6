"""The benchmarks: contestants in processes of their own, and what is counted."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow_only

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))

import train  # noqa: E402
from contest import Contestant  # noqa: E402

from keras_transformer.models import Transformer  # noqa: E402

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
    expected = 6 * rows * (products + scores)  # forward, backward twice; a product is two
    assert train.operations([(rows, source, target)], size, 13) == expected


def test_one_shrunk_contest(tmp_path):
    command = [sys.executable, str(FOLDER / "train.py"), "--size", "tiny", "--dtype", "float32"]
    command += ["--contestants", "keras_transformer_fit", "--batches", "1", "--rounds", "1"]
    command += ["--logs", str(tmp_path), "--output", str(tmp_path / "train.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "keras_transformer_fit" in done.stdout and "1.00" in done.stdout
