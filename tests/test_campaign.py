"""A small share of the campaign (tests/campaign), and that it sees what it is there for."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from campaign import cases, damage, kills, readers

pytestmark = [
    pytest.mark.tensorflow_only,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="cases are forks"),
]


# Fails if: a fork's exception, exit status, signal or print is lost.
@pytest.mark.parametrize(
    ("work", "status", "name"),
    [
        (lambda folder: print("done"), 0, None),
        (lambda folder: sys.exit("one line"), 1, None),
        (lambda folder: [][0], 70, "traceback"),
        (lambda folder: os.system("true"), 0, "forbidden"),
        (lambda folder: (folder.parent / "elsewhere").write_text(""), 0, "forbidden"),
        (lambda folder: (folder.parent / "other").mkdir(), 0, "forbidden"),
        (lambda folder: os.rename(folder / "mine", folder.parent / "mine"), 0, "forbidden"),
        (lambda folder: os.rename(folder / "mine", folder / "moved"), 0, None),
    ],
)
def test_a_case_says_what_a_file_made_it_do(work, status, name, tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "mine").write_text("")
    end = cases.run(lambda: work(folder), folder)
    assert end.status == status
    for each in ("traceback", "hung", "forbidden"):
        assert getattr(end, each) == (each == name), end.output


def test_a_case_that_never_ends_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "SECONDS", 1)
    assert cases.run(lambda: os.read(os.pipe()[0], 1), tmp_path / "case").hung


# Fails if: two runs count as equal though a number, a text, a validation or a file differs.
def test_what_a_kill_leaves_is_compared(tmp_path):
    def write(name, number=0, text="same", loss=1.0):
        run = tmp_path / name
        run.mkdir()
        np.savez(run / "a.npz", **{"00000/w:float32": np.float32([1, number])})
        (run / "pieces").write_text(text)
        log = {"event": "validation", "update": 2, "val_loss": loss, "seconds": len(name)}
        (run / "log.jsonl").write_text(json.dumps(log) + "\n")
        (run / "versions.json").write_text(name)
        return kills.contents(run)

    one = write("one")
    assert kills.differences(one, write("equal")) == []
    assert kills.differences(one, write("number", number=1)) == ["a.npz"]
    assert kills.differences(one, write("text", text="other")) == ["pieces"]
    assert kills.differences(one, write("loss", loss=2.0)) == ["log.jsonl"]
    (tmp_path / "one" / "left.tmp").write_text("")
    assert kills.differences(one, kills.contents(tmp_path / "one")) == ["left.tmp"]


# Fails if: the n-th call that writes is not the one that a process dies at; fewer are counted.
def test_a_crash_comes_before_the_call_it_is_asked_for(tmp_path):
    def train(path):
        os.mkdir(path / "a")
        os.rename(path / "a", path / "b")
        os.rmdir(path / "b")

    for number, left in enumerate(([], ["a"], ["b"])):
        path = tmp_path / str(number)
        path.mkdir()
        end = cases.run(lambda at=number, to=path: kills.crash_at(at, to, train), path)
        assert end.status == -signal.SIGKILL and os.listdir(path) == left
    path = tmp_path / "whole"
    path.mkdir()
    end = cases.run(lambda: print("calls", kills.crash_at(-1, path, train)), path)
    assert "calls 3" in end.output


# Fails if: a reader of a recipe ends in a traceback for a damaged file.
@pytest.mark.parametrize("number", range(9))
def test_readers_of_recipes_say_in_one_line_what_is_wrong(number, tmp_path):
    reader = readers.Readers(tmp_path / "readers")
    wrong = reader.of_recipes(np.random.default_rng(number), number)
    assert wrong is None, wrong


# Fails if: Pillow's errors for a picture that claims 19 billion pixels end in a traceback.
def test_a_picture_that_claims_too_much_is_named(tmp_path):
    import classify_images

    path = tmp_path / "a.bmp"
    size = (139_022).to_bytes(4, "little")
    path.write_bytes(b"BM" + bytes(8) + b"\x36\0\0\0" + b"\x28\0\0\0" + size + size + b"\1\0\x18\0")
    with pytest.raises(ValueError, match="a.bmp is no image that can be read"):
        classify_images.read_image(path, (8, 8, 3))


# Fails if: the damage hits no file, or a wrong end passes.
def test_damage_that_goes_wrong_is_reported():
    wrong = [damage.wrong(cases.End(0, text), "x") for text in ("FORBIDDEN open", "fine")]
    assert "forbidden" in wrong[0] and wrong[1] is None
    assert "status 70" in damage.wrong(cases.End(70, ""), "x")


@pytest.mark.slow
def test_every_turn_of_the_campaign(tmp_path):
    import subprocess

    output = tmp_path / "campaign.json"
    command = [sys.executable, "-m", "campaign", "--minutes", "0.5", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '"failures": 0' in output.read_text()
