"""Damaged and hostile files: an error that names the file, or the same content; nothing else.

No code from a file runs, nothing outside a run is written, and what can be made again is.
"""

import io
import json
import os
import shutil
import sys
import tracemalloc
import zipfile

import keras
import numpy as np
import pytest
from mutations import mutations
from noisy_line import Lines, build
from older_runs import forget_checksums

import keras_transformer as kt
from keras_transformer import files, progress
from keras_transformer.cli.ends import program
from keras_transformer.runs import RunDirectory, architecture
from keras_transformer.runs.checkpoints import complete, read_arrays, write_arrays
from keras_transformer.text import Seen

pytestmark = pytest.mark.tensorflow_only  # no law of these depends on the backend
SETTINGS = {"seed": 1, "name": "noisy points"}


def train(path, settings=SETTINGS, updates=4, **options):
    with RunDirectory.start(path, settings) as run:
        (run.path / "tokenizer.model").write_bytes(b"pieces")
        options = {"updates": updates, "validate_every": 1, "log_every": 1, "average": 3} | options
        run.fit(build(), Lines(), **options)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


# --- a run


# Fails if: a record is believed without its SHA-256, or a structure is taken for granted.
def test_a_damaged_state_is_never_a_checkpoint(run, capsys):
    folder = run / "checkpoints" / "update-00000004"
    [checkpoint] = complete([folder])
    path = folder / "state.json"
    data = path.read_bytes()
    for number, mutated in enumerate([b"", b"[]", b"{}", b"null", *mutations(data, 200)]):
        path.write_bytes(mutated)
        found = list(complete([folder]))
        assert found in ([], [checkpoint]), number
        if mutated.strip() != data.strip() and not found:
            assert f"skipping damaged checkpoint {folder}: " in capsys.readouterr().err
    record = json.loads(data)
    record["files"] = {}
    path.write_text(json.dumps(record))
    assert not list(complete([folder]))


# Fails if: a file is opened because state.json names it.
def test_a_state_names_no_other_file(run, tmp_path):
    folder = run / "checkpoints" / "update-00000004"
    os.mkfifo(tmp_path / "pipe")
    forget_checksums(run)
    record = json.loads((folder / "state.json").read_bytes())
    record["files"][str(tmp_path / "pipe")] = {"size": 0, "sha256": ""}
    (folder / "state.json").write_text(json.dumps(record))
    assert [each.update for each in complete([folder])] == [4]  # did not wait for the pipe


# Fails if: only the file itself is checked.
@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "dangling"])
@pytest.mark.parametrize("name", ["lock", "log.jsonl", "averaged.npz", "checkpoints/more", "show"])
def test_a_link_in_a_run_is_refused_and_not_followed(run, tmp_path, kind, name):
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
    (run / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(target)
    before = sorted(run.rglob("*"))
    for begin in (lambda: RunDirectory.start(run, SETTINGS), lambda: RunDirectory.open(run)):
        with pytest.raises(ValueError, match=f"{name} is a link or no plain file"):
            begin()
    assert sorted(run.rglob("*")) == before
    assert (target.read_text() == "mine") if kind == "file" else not list(tmp_path.glob("target/*"))


def test_a_run_may_itself_be_reached_by_a_link(run, tmp_path):
    (tmp_path / "latest").symlink_to(run)
    assert RunDirectory.open(tmp_path / "latest").latest_checkpoint().update == 4


def test_a_temporary_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f"a.json.{os.getpid()}.tmp").symlink_to(tmp_path / "mine")
    files.write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "mine").read_text() == "mine" and files.read_json(tmp_path / "a.json") == 1


# Fails if: weights are taken for those of a run because they lie in its folder.
def test_weights_of_another_run_are_refused(run, trained, tmp_path):
    other = train(tmp_path / "other", SETTINGS | {"seed": 2})
    for name in ("checkpoints/update-00000004", "averaged.npz"):
        mixed = shutil.copytree(trained, tmp_path / name.replace("/", "-"))
        if (mixed / name).is_dir():
            shutil.rmtree(mixed / name)
            shutil.copytree(other / name, mixed / name)
        else:
            shutil.copy(other / name, mixed / name)
        with pytest.raises(ValueError, match=f"{name} was saved beside another settings.json"):
            RunDirectory.open(mixed).load_model("average" if "npz" in name else "last")
    before = sorted((tmp_path / "checkpoints-update-00000004").rglob("*"))
    with pytest.raises(ValueError, match="belongs to another run"):
        train(tmp_path / "checkpoints-update-00000004", updates=5)
    assert sorted((tmp_path / "checkpoints-update-00000004").rglob("*")) == before


@pytest.mark.parametrize("name", ["tokenizer.model", "model.json", "settings.json"])
@pytest.mark.parametrize("weights", ["last", "average"])
def test_a_changed_file_of_the_run_is_noticed(run, name, weights):
    data = (run / name).read_bytes()
    (run / name).write_bytes(data.replace(b"e", b"E", 1))
    with pytest.raises(ValueError, match=name):
        RunDirectory.open(run).load_model(weights)


# Fails if: what is pruned depends on when a process was killed.
def test_killed_before_pruning_a_run_ends_as_if_never_stopped(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", keep_checkpoints=2)
    with monkeypatch.context() as patch:

        def killed(run, keep, **_):
            if RunDirectory.latest_checkpoint(run).update == 4:
                raise KeyboardInterrupt
            RunDirectory._prune(run, keep)

        patch.setattr(RunDirectory, "_prune", RunDirectory.prune, raising=False)
        patch.setattr(RunDirectory, "prune", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", keep_checkpoints=2)
    left_over = tmp_path / "killed" / "checkpoints" / ".tmp-removed-update-00000001"
    left_over.mkdir()
    (tmp_path / "killed" / "settings.json.77.tmp").write_text("{")
    again = train(tmp_path / "killed", keep_checkpoints=2)
    names = [sorted(p.name for p in (path / "checkpoints").iterdir()) for path in (whole, again)]
    assert names[0] == names[1] == ["update-00000003", "update-00000004"]
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    averages = [read_arrays(path / "averaged.npz") for path in (whole, again)]
    for (_, one), (_, other) in zip(*averages, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_folders_among_the_checkpoints_are_left_alone(run):
    shutil.copytree(
        run / "checkpoints" / "update-00000004", run / "checkpoints" / "update-00000004 (copy)"
    )
    shutil.copytree(
        run / "checkpoints" / "update-00000004", run / "checkpoints" / "update-00000009"
    )
    # The copy under 9 says that it is of update 4.
    assert RunDirectory.open(run).latest_checkpoint().path.name == "update-00000004"
    train(run, updates=6, keep_checkpoints=1)
    assert (run / "checkpoints" / "update-00000004 (copy)" / "state.json").exists()


# --- the architecture


def test_sizes_that_the_weights_cannot_have_are_refused_before_building(tmp_path):
    sizes = {"num_layers": 1, "d_model": 8, "num_heads": 2, "d_ff": 8, "vocabulary_size": 20}
    with open(tmp_path / "weights.npz", "wb") as file:
        write_arrays(file, [(f"w{n}", np.zeros((20, 8), "float32")) for n in range(30)])
    record = keras.saving.serialize_keras_object(kt.models.Transformer(**sizes))
    for change in ({"num_layers": 10**7}, {"d_ff": 10**9}, {"vocabulary_size": 10**12}):
        files.write_json(tmp_path / "model.json", record | {"config": record["config"] | change})
        with pytest.raises(ValueError, match="too small for the model that model.json describes"):
            architecture.build(architecture.load(tmp_path), tmp_path / "weights.npz")


# Fails if: an exception of Keras or of a constructor reaches the user as it is.
def test_a_damaged_architecture_is_an_error_or_the_same_model(run):
    data = (run / "model.json").read_bytes()
    weights = run / "averaged.npz"
    for mutated in [b"", b"[]", b"{}", b'{"config": 3}', *mutations(data, 60)]:
        (run / "model.json").write_bytes(mutated)
        try:
            model = architecture.build(architecture.load(run), weights)
        except ValueError as error:
            assert "model.json" in str(error) or "weights" in str(error) or "fit" in str(error)
        else:
            assert model.count_params() == 4


# --- .npz files


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_a_damaged_npz_is_an_error_that_names_it_or_the_same_arrays(tmp_path):
    arrays = {"a": np.arange(30).reshape(5, 6), "b": np.float32(3)}
    path = npz(tmp_path / "a.npz", **arrays)
    data = path.read_bytes()
    errors = 0
    for mutated in [b"", b"PK", *mutations(data, 400)]:
        path.write_bytes(mutated)
        try:
            found = files.read_npz(path)
        except ValueError as error:
            errors += str(path) in str(error)
        else:
            for name in found.keys() & arrays.keys():
                np.testing.assert_array_equal(found[name], arrays[name])
            errors += found.keys() != arrays.keys()
    assert errors > 200


# Fails if: what a file says of itself is allocated before it is compared with the file's size.
@pytest.mark.parametrize("kind", ["compressed", "header", "overlap", "pickle"])
def test_an_npz_needs_no_more_memory_than_its_size_and_runs_nothing(kind, tmp_path):
    path = tmp_path / "a.npz"
    if kind == "compressed":
        np.savez_compressed(path, a=np.zeros(10**6))
    elif kind == "pickle":
        np.savez(path, a=np.array([object()], dtype=object))
    else:
        buffer = io.BytesIO()
        shape = (10**8,) if kind == "header" else (10,)
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "<f8", "fortran_order": False, "shape": shape}
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", buffer.getvalue() + bytes(80))
            if kind == "overlap":
                archive.filelist = archive.filelist * 50
    tracemalloc.start()
    with pytest.raises(ValueError, match="a.npz is damaged, or no .npz file of plain arrays"):
        files.read_npz(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


# --- what can be made again


class Letters:
    pad_id, start_id, end_id, model_proto = 0, 1, 2, b"letters"

    def encode(self, texts):
        return [[ord(letter) - 90 for letter in text] for text in texts]


# Fails if: damage in a cache ends the start of a run, or is read as ids.
def test_a_damaged_cache_is_made_anew(tmp_path, capsys):
    pairs, path = [("abc", "de"), ("a", "bcd")], tmp_path / "ids.npz"
    expected = kt.data.encode_pairs(pairs, Letters(), cache=path)
    data, warned = path.read_bytes(), 0
    for mutated in [b"", *mutations(data, 300)]:
        path.write_bytes(mutated)
        found = kt.data.encode_pairs(pairs, Letters(), cache=path)
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), value)
        warned += "It is made anew." in capsys.readouterr().err
    assert warned > 100 and path.read_bytes() == data
    path.write_bytes(b"my own text")
    with pytest.raises(ValueError, match="is not a cache of encoded pairs"):
        kt.data.encode_pairs(pairs, Letters(), cache=path)
    assert path.read_bytes() == b"my own text"


@pytest.mark.parametrize("name", ["seen_ids.npy", "seen.json", "seen_words.txt"])
def test_what_training_saw_is_only_for_warnings(name, tmp_path, capsys):
    Seen(np.ones(9, bool), {"나는", "a"}, {"\u3000"}, 3).save(tmp_path)
    for mutated in [b"", b"\xff", *mutations((tmp_path / name).read_bytes(), 60)]:
        (tmp_path / name).write_bytes(mutated)
        seen = Seen.load(tmp_path, 9)
        assert (seen is None) == ("is damaged" in capsys.readouterr().err)
        assert seen is None or len(seen.ids) == 9
    assert Seen.load(tmp_path.parent) is None


# --- the terminal


# Fails if: control characters of a sentence, a file name or an array reach the terminal.
def test_a_terminal_obeys_nobody_else(capsys):
    progress.say("never seen: \x1b]0;title\x07 나는\tz\n\x9b2J")
    assert capsys.readouterr().err == "never seen: \\x1b]0;title\\x07 나는\tz\n\\x9b2J\n"
    with pytest.raises(SystemExit, match=r"^it: error: no \\x1b\[2Jfile$"), program("it"):
        raise ValueError("no \x1b[2Jfile")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_is_one_line(name, monkeypatch):
    monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit, match="it: error: standard output or standard error is closed"):
        with program("it"):
            print("never")
