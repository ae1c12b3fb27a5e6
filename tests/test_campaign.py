"""A small share of the campaign (tests/campaign), and that it sees what it is there for."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from campaign import cases, damage, kills

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


# Fails if: two runs count as equal though a number or a file differs.
def test_what_a_kill_leaves_is_compared(tmp_path):
    runs = [tmp_path / name for name in ("one", "other")]
    for number, run in enumerate(runs):
        run.mkdir()
        np.savez(run / "a.npz", **{"00000/w:float32": np.float32([1, number])})
    one, other = map(kills.contents, runs)
    assert kills.equal(one, one) and not kills.equal(one, other)
    (runs[0] / "left.tmp").write_text("")
    assert not kills.equal(one, kills.contents(runs[0]))


# Fails if: the damage hits no file, or a wrong end passes.
def test_damage_that_goes_wrong_is_reported():
    wrong = [damage._wrong(cases.End(0, text), "x") for text in ("FORBIDDEN open", "fine")]
    assert "forbidden" in wrong[0] and wrong[1] is None
    assert "status 70" in damage._wrong(cases.End(70, ""), "x")


@pytest.mark.slow
def test_a_minute_of_the_campaign(tmp_path):
    import subprocess

    output = tmp_path / "campaign.json"
    command = [sys.executable, "-m", "campaign", "--minutes", "1", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '"failures": 0' in output.read_text()
