"""Tests of the floor plan: few names at the top, one training loop, type hints, light imports."""

import ast
import graphlib
import importlib
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


def test_there_are_at_most_21_doors():
    doors = {path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert len({door for door in doors if not door.startswith("__")}) <= 21, sorted(doors)


def test_the_package_stays_small():
    lines = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in MODULES
        if "datasets" not in path.parts
    )
    assert lines <= 27_700


# Fails if: a layer grows by ten lines; README leaves out a file; its number is not the limit.
def test_the_papers_own_part_is_as_short_as_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## The paper's own part")[2].partition("\n## ")[0]
    found = {}
    for cell in re.findall(r"^\| (.*?) \|", section, re.M)[1:]:
        if path := re.search(r"\]\((keras_transformer/.+?)\)", cell):
            function = re.search(r"`(\w+)` in", cell)
            found[path[1]] = lines_of(ROOT / path[1], function and function[1])
    rooms = ("layers", "models/transformer.py", "models/functional.py", "losses.py")
    rooms += ("ops/crossentropy.py", "optimizers/schedules.py", "decoding/search.py")
    rooms += ("ops/attention.py", "ops/masks.py")
    assert set(found) == {f"keras_transformer/{room}" for room in rooms}
    assert re.search(r"at most ([\d,]+) lines", section)[1] == "2,500"
    assert sum(found.values()) <= 2_500, found


def lines_of(path, function=None):
    """The number of lines of a file, of all files in a folder, or of one function."""
    files = path.glob("*.py") if path.is_dir() else [path]
    texts = [each.read_text(encoding="utf-8") for each in files]
    if function is None:
        return sum(len(text.splitlines()) for text in texts)
    [node] = [node for node in ast.parse(texts[0]).body if getattr(node, "name", None) == function]
    return node.end_lineno - node.lineno + 1


def floors():
    """{room: its floor, counted from the top} by the table in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    plan = text.partition("## The floor plan")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [a-z ]+ \| (`.*?`) \|", plan, re.M)
    return {
        room.removesuffix("/").removesuffix(".py"): floor
        for floor, row in enumerate(rows)
        for room in re.findall(r"`(.+?)`", row)
    }


def imports():
    """{module of the package: the modules of the package that it imports, also in functions}."""
    paths = {}
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        paths[name.removesuffix(".__init__")] = path
    graph = {}
    for module, path in paths.items():
        named = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []  # never runs
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path} imports relatively"
                full = {f"{node.module}.{each.name}" for each in node.names}
                named |= {name if name in paths else node.module for name in full}
        graph[module] = named & set(paths) - {module, "keras_transformer"}
    del graph["keras_transformer"]  # it loads every room when that is first used
    return graph


def room_of(module):
    return "cli" if module.endswith("__main__") else module.split(".")[1]


# Fails if: ops/ imports a layer inside a function; two modules import each other; a room is not in
# the table.
def test_imports_run_downwards_and_never_in_a_circle():
    floor, graph = floors(), imports()
    assert set(floor) == {room_of(module) for module in graph}
    upwards = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if floor[room_of(other)] < floor[room_of(module)]
    ]
    assert not upwards, "\n".join(upwards)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
    rooms = {room: set() for room in floor}
    for module, others in graph.items():
        rooms[room_of(module)] |= {room_of(each) for each in others} - {room_of(module)}
    graphlib.TopologicalSorter(rooms).prepare()


# These make a TensorFlow graph, whatever the backend.
NEED_TENSORFLOW = {"interop/saved_model.py", "text/in_graph.py"}


# Fails if: a layer asks Keras for its backend, or imports TensorFlow inside a function.
def test_only_ops_names_a_backend():
    found = []
    for path in MODULES:
        place = path.relative_to(PACKAGE).as_posix()
        if place.startswith("ops/") or place in NEED_TENSORFLOW:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                asks = isinstance(node, ast.Attribute) and node.attr == "backend"
                names = [ast.unparse(node)] if asks else []
            for name in names:
                libraries = ("tensorflow", "tensorflow_text", "jax", "torch")
                asked = ("keras.backend.backend", "keras.config.backend", "backend.backend")
                if name.split(".")[0] in libraries or name in asked:
                    found.append(f"{place}:{node.lineno} {name}")
    assert not found, "\n".join(found)


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


# Fails if: a recipe imports from a file inside a room, or a name that its room does not export.
def test_recipes_use_public_names_only():
    # Keras has no gradients of a function that are the same on every backend.
    allowed = {"keras_transformer.ops.gradients", "keras_transformer.datasets"}
    for path in (ROOT / "recipes").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bkt(\.\w+)*\._", text), path
        for node in ast.walk(ast.parse(text)):
            module = getattr(node, "module", None) or ""
            if not module.startswith("keras_transformer") or module in allowed:
                continue
            public = getattr(importlib.import_module(module), "__all__", None)
            names = [each.name for each in node.names]
            if public is None:  # one file is a whole room
                assert module.count(".") == 1, (path, module)
            assert public is None or set(names) <= set(public), (path, module, names)
            assert not [name for name in names if name.startswith("_")], (path, names)


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
