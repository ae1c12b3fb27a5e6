"""Runs in 8 bits, and runs that train adapters only: what they hold, and what every verb makes."""

import json
import shutil

import keras
import numpy as np
import pytest
from keras import ops

from keras_transformer import cli, models
from keras_transformer.runs import RunDirectory, load_translator, quantize, write_run
from keras_transformer.runs.checkpoints import read_arrays
from keras_transformer.text import train_tokenizer

LINES = ["ba be bo", "da de", "do ba de be", "bo do"] * 3
IDS = {
    "source_ids": np.array([[5, 8, 6, 3], [7, 3, 0, 0]]),
    "target_ids": np.array([[2, 9], [2, 4]]),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns a run that was never trained, whose model is wide enough for 8 bits to pay."""
    tokenizer = train_tokenizer(LINES, vocabulary_size=30, model_type="char")
    keras.utils.set_random_seed(5)
    sizes = {"num_layers": 1, "d_model": 64, "num_heads": 2, "d_ff": 128}
    model = models.Transformer(tokenizer.vocabulary_size, **sizes)
    path = tmp_path_factory.mktemp("runs") / "run"
    write_run(path, {"tokenize": "13a"}, model, [tokenizer, tokenizer])
    return path


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def outputs(model):
    inputs = {name: ops.convert_to_tensor(ids) for name, ids in IDS.items()}
    return ops.convert_to_numpy(model(inputs))


def command(capsys, *arguments):
    capsys.readouterr()
    status = cli.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().err


# --- in 8 and 4 bits


# Fails if: integers are loaded in another order than they were saved; the float run is touched.
@pytest.mark.parametrize(("mode", "share"), [("int8", 0.4), ("int4", 0.35)])
def test_a_quantised_copy_is_a_run_that_computes_as_its_model_did(
    run, mode, share, uncompiled, tmp_path, capsys
):
    before, new = contents(run), tmp_path / "new"
    status, said = command(capsys, "quantize", run, "--to", mode, "--run-dir", new)
    assert status == 0 and f"in {mode}" in said
    assert contents(run) == before
    model = RunDirectory.open(run).load_model()
    model.quantize(mode)
    loaded = RunDirectory.open(new).load_model()
    np.testing.assert_array_equal(outputs(loaded), outputs(model))
    sizes = [(path / "averaged.npz").stat().st_size for path in (run, new)]
    assert sizes[1] <= share * sizes[0]
    pairs = [("ba de", "ed ab"), ("bo", "ob")]
    scores = [load_translator(path).score(pairs) for path in (run, new)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=0.1)
    assert len(load_translator(new).translate(["ba de"], beam_size=2)) == 1


def test_a_quantised_copy_is_never_written_over_or_quantised_or_trained_again(
    run, tmp_path, capsys
):
    new = tmp_path / "new"
    quantize(run, "int8", new)
    before = contents(new)
    cases = {
        ("quantize", run, "--to", "int8", "--run-dir", new): "holds a model already",
        ("quantize", run, "--to", "int4", "--run-dir", new): "holds a model already",
        ("quantize", new, "--to", "int4", "--run-dir", tmp_path / "x"): "holds integers already",
        (
            "quantize",
            tmp_path / "no",
            "--to",
            "int8",
            "--run-dir",
            tmp_path / "x",
        ): "no such folder",
        (
            "quantize",
            run,
            "--to",
            "int8",
            "--run-dir",
            tmp_path / "x",
            "--weights",
            "7",
        ): "no complete",
        (*training(tmp_path), "--init-from", new, "--run-dir", tmp_path / "x"): "cannot be trained",
    }
    for arguments, part in cases.items():
        status, said = command(capsys, *arguments)
        assert status == 1 and part in said and said.count("\n") == 1, said
    with pytest.raises(ValueError, match="--to int3: expected int8 or int4"):
        quantize(run, "int3", tmp_path / "x")
    assert contents(new) == before and not (tmp_path / "x").exists()


# --- adapters


def training(folder):
    """Returns a command that trains on the lines above."""
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{line}\t{line[::-1]}\n" for line in LINES), encoding="utf-8")
    options = (
        "--tokens-per-batch 128 --updates 4 --validate-every 2 --warmup-steps 2 --bleu-every 9"
    )
    return ["train", "--train-tsv", path, "--valid-tsv", path, *options.split()]


# Fails if: base weights train; the run's model is loaded without its adapters; a resumed training
# goes on from adapters at zero.
@pytest.mark.tensorflow_only
def test_a_run_with_adapters_trains_them_alone_and_translates_with_them(
    run, uncompiled, tmp_path, capsys
):
    new, stopped = tmp_path / "new", tmp_path / "stopped"
    adapted = [
        *training(tmp_path),
        "--init-from",
        run,
        "--lora-rank",
        "2",
        "--learning-rate",
        "0.1",
    ]
    status, said = command(capsys, *adapted, "--run-dir", new)
    assert status == 0 and "adapter.npz" in said, said
    # Six matrices of each kind: 64 x 2 and 2 x 64.
    assert "1,536 of them trained" in said

    base = dict(read_arrays(run / "averaged.npz"))
    after = dict(read_arrays(RunDirectory.open(new).checkpoints()[-1].path / "weights.npz"))
    assert {name for name in after if "lora" in name} == set(after) - set(base)
    for name in base:
        np.testing.assert_array_equal(after[name], base[name], err_msg=name)

    model = RunDirectory.open(new).load_model()
    adapter = RunDirectory.open(run).load_model()
    before = outputs(adapter)
    adapter.load_adapter(new / "adapter.npz")
    np.testing.assert_allclose(outputs(adapter), outputs(model), atol=1e-4)
    assert np.abs(outputs(model) - before).max() > 1e-2
    assert (new / "adapter.npz").stat().st_size < 0.2 * (run / "averaged.npz").stat().st_size

    assert command(capsys, *adapted, "--updates", "2", "--run-dir", stopped)[0] == 0
    status, said = command(capsys, *adapted, "--run-dir", stopped)
    assert status == 0 and "resuming at update 2" in said
    np.testing.assert_array_equal(outputs(RunDirectory.open(stopped).load_model()), outputs(model))

    # An adapted run is itself a beginning.
    again = [
        *training(tmp_path),
        "--updates=2",
        "--init-from",
        new,
        "--run-dir",
        tmp_path / "again",
    ]
    assert command(capsys, *again)[0] == 0


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("--lora-rank 2", "--lora-rank has an effect only with --init-from"),
        ("--lora-rank 2 --lora-targets keys --init-from {run}", "this model has no keys"),
    ],
)
def test_adapters_that_cannot_be_are_refused_and_nothing_is_written(
    run, tmp_path, capsys, options, part
):
    before, new = contents(run), tmp_path / "new"
    options = options.format(run=run).split()
    status, said = command(capsys, *training(tmp_path), *options, "--run-dir", new)
    assert status == 1 and part in said
    assert contents(run) == before and not (new / "checkpoints").exists()


def test_a_record_of_adapters_with_code_in_it_is_refused(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    record = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(record | {"lora": {"rank": 2, "run": "x"}}))
    with pytest.raises((TypeError, ValueError)):
        RunDirectory.open(copy).load_model()
