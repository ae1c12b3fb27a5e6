"""Tests that imports stay light, that no file names a machine, and that requirements are pinned."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from keras_transformer.cli.start_up import without_notices

pytestmark = pytest.mark.tensorflow_only  # each test states its own backend

ROOT = Path(__file__).parent.parent
HEAVY = [
    *("tensorflow_text", "keras_nlp", "keras_hub", "sacrebleu", "matplotlib", "sentencepiece"),
    *("ctranslate2", "torch"),
]


# Fails if: a module imports sacrebleu, matplotlib or keras_nlp at its top.
@pytest.mark.parametrize(
    ("backend", "forbidden"), [("tensorflow", HEAVY), ("jax", [*HEAVY, "tensorflow"])]
)
def test_importing_any_module_imports_nothing_heavy(backend, forbidden):
    # A module that is None in sys.modules cannot be imported, and the traceback shows who tried.
    # Looking at sys.modules afterwards would not do, because Keras imports matplotlib if it can.
    code = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({forbidden}))
import keras_transformer
for module in pkgutil.walk_packages(keras_transformer.__path__, "keras_transformer."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_importing_says_nothing():
    """TensorFlow's C++ code prints notices at any log level, which would hide a command's lines."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    run = subprocess.run(
        [sys.executable, "-c", "import keras_transformer"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("level", ["3", "0"])
def test_only_notices_are_kept_from_stderr(level, capfd, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    notices = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1.2 3 port.cc:153] oneDNN custom operations are on.\n"
        "To enable the following instructions: AVX2, in other operations, rebuild TensorFlow.\n"
    )
    with pytest.raises(ImportError), without_notices():
        os.write(2, f"{notices}E0000 an error\nIt stays.\n".encode())
        raise ImportError
    os.write(2, b"After.\n")
    shown = notices if level == "0" else ""
    assert capfd.readouterr().err == f"{shown}E0000 an error\nIt stays.\nAfter.\n"


def repository_files():
    """Returns every file that is committed or could be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip(f"not a git checkout: {listing.stderr.strip()}")
    names = [name for name in listing.stdout.split("\0") if name]
    return [path for path in map(ROOT.joinpath, names) if path.is_file()]


# Matches absolute paths into a home, scratch or work folder. Relative ones (./work/x) are fine.
MACHINE_PATH = re.compile(rb"(?<![\w.~)}])/(?:root|home|Users|tmp|work|opt|farm)/[\w.]")
REGISTRY_HOST = re.compile(rb"pypi[.]org|pythonhosted|registry[.]npmjs|deb[.]debian")


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST])
def test_no_file_names_a_machine_or_a_registry(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip().decode(errors='replace')[:100]}"
        for path in repository_files()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if pattern.search(line) and b"re.compile" not in line
    ]
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_look_for():
    for path in ["home/me/data", "tmp/run", "work/x"]:
        assert MACHINE_PATH.search(f"cd /{path}".encode())
        assert not MACHINE_PATH.search(f"https://host.example/{path} ./{path} ~/{path}".encode())
    assert REGISTRY_HOST.search(b"https://pypi" + b".org/simple")


def pinned_versions():
    """Reads constraints.txt as {canonical name: version}."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_constraints_are_plain_pins_in_order():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [x for x in lines if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[0-9][\w.]*", x)] == []
    names = [canonicalize_name(line.split("==")[0]) for line in lines]
    assert names == sorted(set(names))


def test_every_requirement_has_a_pin_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = sum(project["optional-dependencies"].values(), project["dependencies"])
    pins = pinned_versions()
    for requirement in map(Requirement, requirements):
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} has no pin in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} excludes its pin {version}"
