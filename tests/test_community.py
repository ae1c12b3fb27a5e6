"""Tests that what contributors are told is true: files exist, and the workflow runs the tests."""

import re
import tomllib
from pathlib import Path

import pytest

import keras_transformer

pytestmark = pytest.mark.tensorflow_only  # needs no backend, so one run is enough

ROOT = Path(__file__).parents[1]
YAML = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"])


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_files_parse(path):
    yaml = pytest.importorskip("yaml")  # comes with the extra `docs`
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_workflow_runs_what_continuous_integration_runs():
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert re.search(r"^ +- run: bash \.ci/run$", text, re.MULTILINE)
    assert "timeout-minutes: 90" in text
    [version] = re.findall(r'python-version: "([\d.]+)"', text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    assert (ROOT / ".ci/run").exists()


def test_hooks_before_a_commit_are_those_of_make_lint():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    for tool in ("ruff check", "ruff format", "mypy"):
        assert f"-m {tool}" in hooks and f"-m {tool}" in lint
    assert hooks.count("language: system") == hooks.count("- id:") == 3


def test_every_folder_and_file_that_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:md|py|toml|txt))`", text)
    assert len(named) > 20
    for name in named:
        places = (ROOT / name, ROOT / "keras_transformer" / name)
        assert any(place.exists() for place in places), f"CONTRIBUTING.md names {name}"
    rooms = {path.parent.name for path in (ROOT / "keras_transformer").glob("*/__init__.py")}
    assert rooms <= {name.rstrip("/").rpartition("/")[2] for name in named}, "the floor plan"


def test_tables_that_contributing_names_are_in_their_tests():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tables = re.findall(r"the table `([A-Z]+)` in\s+`(tests/\w+\.py)`", text)
    assert {table for table, _ in tables} == {"LAYERS", "MODELS", "OPTIONS", "WAYS"}
    for table, file in tables:
        assert re.search(rf"^{table} = {{", (ROOT / file).read_text(encoding="utf-8"), re.M), file


def test_the_changelog_begins_with_this_version_or_what_is_unreleased():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?([\w.]+)", text, re.MULTILINE)[1]
    assert newest in ("Unreleased", keras_transformer.__version__)
