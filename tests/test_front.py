"""Tests of the floor plan: few names at the top, one training loop, type hints, light imports."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow_only  # each test states its own backend

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_transformer"
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_there_are_at_most_20_doors():
    doors = {path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert len({door for door in doors if not door.startswith("__")}) <= 20, sorted(doors)


def test_the_package_stays_small():
    lines = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in MODULES
        if "datasets" not in path.parts
    )
    assert lines <= 18_000


def test_the_loop_of_training_is_written_once():
    # Fails if: a recipe or a verb calls `model.fit` or writes checkpoints by itself.
    homes = [*MODULES, *(ROOT / "recipes").glob("*.py")]
    code = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in homes}
    for name, allowed in (("fit", {"run"}), ("save_checkpoint", {"run", "checkpoints"})):
        found = [
            f"{path}:{node.lineno}"
            for path, tree in code.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == name
            and getattr(node.func.value, "id", "") not in allowed
        ]
        assert len(found) <= (name == "fit"), found


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    """The rooms that a file imports from, anywhere in it, but not for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [each for each in ast.walk(tree) if isinstance(each, ast.If)]
    skipped = {n for each in blocks if "CHECKING" in ast.dump(each.test) for n in ast.walk(each)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in skipped:
            package, _, rest = (node.module or "").partition(".")
            if package == "keras_transformer":
                yield from [rest.split(".")[0]] if rest else [each.name for each in node.names]


def test_imports_run_downwards_in_the_floor_plan():
    # Fails if: a room imports one above it, or two rooms of a floor import each other.
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| floor |")[2]
    rows = [line.split("|")[2] for line in table.split("\n\n")[0].splitlines()[2:]]
    floors = [re.findall(r"`(\w+)(?:/|\.py)`", rooms) for rooms in rows]
    floor = {name: number for number, rooms in enumerate(floors) for name in rooms}
    assert len(floors) == 7 and {"cli", "decoding", "arguments"} <= set(floor)
    others = {name: set() for name in floor}
    for path in MODULES:
        if room(path) in floor and path.name != "__main__.py":
            others[room(path)] |= set(imported_rooms(path)) & set(floor) - {room(path)}
    for name, imported in others.items():
        assert not [each for each in imported if floor[each] < floor[name]], (name, imported)
    graphlib.TopologicalSorter(others).prepare()  # raises an error that names a circle


def test_rooms_above_ops_do_not_ask_keras_for_its_backend():
    for path in MODULES:
        if room(path) not in ("ops", "testing", "interop"):
            assert "backend.backend()" not in path.read_text(encoding="utf-8"), path


# Rooms whose public names do not have type hints yet.
UNTYPED = {"arguments.py", "decoding", "evaluation", "interop", "layers", "ops"}
UNTYPED |= {"datasets", "testing", "visualization"}


def public_functions():
    """Yields (place, function) for public functions, and for methods including Keras' own hooks."""
    special = ("__init__", "__call__", "__len__", "__getitem__", "__iter__")
    for path in MODULES:
        if path.name == "__main__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bodies = [tree.body]
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bodies.append(node.body)
        for body in bodies:
            for node in body:
                if isinstance(node, ast.FunctionDef) and (
                    not node.name.startswith("_") or node.name in special
                ):
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_everything_public_has_type_hints():
    bare = []
    for where, function in public_functions():
        if where.split("/")[1].split(":")[0] in UNTYPED:
            continue
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
        missing = [
            each.arg
            for each in named
            if each.annotation is None and each.arg not in ("self", "cls")
        ]
        if missing or (function.returns is None and function.name != "__init__"):
            bare.append(f"{where}: {', '.join(missing) or 'result'}")
    assert not bare, "\n".join(bare)


def test_recipes_use_public_names_only():
    """Recipes must not use names with a leading underscore, or modules that no package lists."""
    for path in (ROOT / "recipes").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bkt(\.\w+)*\._|from keras_transformer[\w.]* import _", text), path


@pytest.mark.parametrize("verb", [[], ["train"], ["translate"], ["evaluate"], ["export"]])
def test_help_loads_neither_keras_nor_tensorflow(verb):
    # Fails if: the command line imports a module that needs Keras before it is necessary.
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["keras", "tensorflow", "jax", "torch", "numpy"]))
from keras_transformer import cli
cli.main({[*verb, "--help"]})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and "usage: keras-transformer" in run.stdout, run.stderr


def test_help_answers_at_once():
    """It takes under half a second of processor time, which other jobs disturb less."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "keras_transformer", "--help"], capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 0.5


def test_importing_does_no_work():
    """It starts no thread, moves no file descriptor, and does not load Keras."""
    code = """
import os, sys, threading
before = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
import keras_transformer
assert "keras" not in sys.modules and "numpy" not in sys.modules
assert threading.active_count() == 1
assert [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)] == before
assert set(keras_transformer.__all__) <= set(dir(keras_transformer))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_every_public_name_is_there():
    import keras_transformer

    for name in keras_transformer.__all__:
        assert getattr(keras_transformer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        keras_transformer.nothing  # noqa: B018


def test_a_saved_model_is_loaded_after_a_plain_import(tmp_path):
    import keras

    import keras_transformer as kt

    inputs = keras.Input((None,), dtype="int32")
    outputs = kt.layers.PositionalEmbedding(7, 4)(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    code = f"""
import keras
import keras_transformer
keras.saving.load_model({str(tmp_path / "model.keras")!r})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
