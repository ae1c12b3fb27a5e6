"""Several processes train as one: the same curve and weights, also killed and resumed.

Each process runs this file as a script, which runs the command after setting a trap, if asked to.
"""

import os
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from random_pairs import random_pairs

import keras_transformer as kt
from keras_transformer import cli
from keras_transformer.datasets import korean_english as corpus
from keras_transformer.ops import processes
from keras_transformer.runs.checkpoints import read_arrays

ON_JAX = keras.backend.backend() == "jax"
UPDATES = 4
COMMAND = """train --hold-out 20 --validate-every 2 --log-every 1 --num-layers 1 --d-model 16
--num-heads 2 --d-ff 16 --dropout 0 --attention-dropout 0 --tokens-per-batch 300 --bleu-every 1
--average 2 --warmup-steps 5""".split()


def by_options(number, count, port):
    options = f"--processes {count} --coordinator 127.0.0.1:{port} --process {number}"
    return options.split(), {}


def by_kubernetes(number, count, port):
    options = f"--processes {count} --coordinator 127.0.0.1:{port}"
    return options.split(), {"JOB_COMPLETION_INDEX": str(number)}


def by_slurm(number, count, port):
    """JAX takes one of the last 4,096 ports by the number of the job."""
    job = {"JOB_ID": port, "STEP_NODELIST": "localhost", "NTASKS": count}
    job |= {"PROCID": number, "LOCALID": number}
    return ["--processes", "auto"], {f"SLURM_{name}": str(job[name]) for name in job}


class Started:
    """The processes of one training, which write into pipes."""

    def __init__(self, arguments, count, joined=by_options, traps=None, flags=""):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.each = []
        for number in range(count):
            options, variables = joined(number, count, port) if count > 1 else ([], {})
            environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
            environment["PYTHONPATH"] = os.pathsep.join(sys.path)
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
            trap = (traps or {}).get(number, "")
            self.each.append(
                subprocess.Popen(
                    [sys.executable, __file__, trap, *arguments, *options],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

    def end(self):
        """Returns the exit status and the output of every process."""
        try:
            outputs = [each.communicate(timeout=240)[0] for each in self.each]
        finally:
            for each in self.each:
                each.kill()
        return [(each.returncode, out) for each, out in zip(self.each, outputs, strict=True)]

    def succeed(self):
        ends = self.end()
        assert [status for status, _ in ends] == [0] * len(ends), "\n".join(out for _, out in ends)
        return [out for _, out in ends]


def command(folder, name, updates=UPDATES):
    files = ["--train-tsv", f"{folder}/pairs.tsv", "--run-dir", f"{folder}/{name}"]
    return [*COMMAND, *files, "--updates", str(updates)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with text and the run of one process."""
    folder = tmp_path_factory.mktemp("processes")
    pairs = corpus.generate(1, 200, 10)["train"]
    lines = (f"{source}\t{target}" for source, target in pairs)
    kt.files.write_lines(folder / "pairs.tsv", lines)
    Started(command(folder, "one"), 1).succeed()
    return folder


def curve(run):
    keys = "nats_per_token", "gradient_norm", "val_bleu", "val_nats_per_token", "validation_bleu"
    return [
        ((record["event"], record["update"], key), record[key])
        for record in run.read_log()
        for key in keys
        if key in record
    ]


def assert_same_curve(one, many):
    (expected, values), (found, others) = (zip(*curve(run), strict=True) for run in (one, many))
    assert found == expected and len(found) > 5
    np.testing.assert_allclose(others, values, rtol=1e-4)


def assert_equals_one_process(folder, name):
    one, many = (kt.RunDirectory.open(folder / each) for each in ("one", name))
    assert_same_curve(one, many)
    for file in ("weights.npz", "state.npz"):
        both = [read_arrays(run.latest_checkpoint().path / file) for run in (one, many)]
        for (_, a), (_, b) in zip(*both, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5)
    starts = kt.files.read_json(folder / name / "versions.json")
    events = list((folder / name).glob("events.out.*"))
    assert len(events) <= 2 * len(starts)  # of one process: its curves, and its HParams


def join(*arguments):
    with processes.join_processes(*arguments):
        pass


# Fails if: one process alone starts JAX's runtime; a number is not checked before processes wait.
def test_one_process_starts_nothing_and_wrong_arguments_are_refused(monkeypatch):
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    for alone in ((), (1,)):
        join(*alone)
    assert not processes.several() and processes.is_first()
    assert processes.from_first(7) == 7 and processes.own_rows("batch") == "batch"
    with pytest.raises(ValueError, match="an effect only with processes"):
        join(None, "host:1")
    if not ON_JAX:
        with pytest.raises(ValueError, match="no multi-worker strategy .* KERAS_BACKEND=jax"):
            join(2, "host:1", 0)
        return
    for arguments, message in (
        ((2,), "coordinator=HOST:PORT"),
        ((2, "host"), "coordinator=HOST:PORT .* got 'host'"),
        ((2, "host:1"), "from 0 to 1 .*JOB_COMPLETION_INDEX"),
        ((2, "host:1", 2), "process=2 of processes=2"),
    ):
        with pytest.raises(ValueError, match=message):
            join(*arguments)


# Fails if: the number that Kubernetes sets is not read, or a given one is ignored.
@pytest.mark.skipif(not ON_JAX, reason="Keras trains in several processes on JAX only")
def test_jax_gets_what_options_and_kubernetes_say(monkeypatch):
    import jax

    def initialize(*arguments, **_):
        asked.append(arguments)
        raise RuntimeError("UNAVAILABLE: nobody there\nand more")

    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(processes, "_on_abort", lambda handler: None)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    for arguments in ((4, "host:1"), (4, "host:1", 2), ("auto",)):
        with pytest.raises(ConnectionError, match="cannot be reached.*nobody there\\)$"):
            join(*arguments)
    assert asked == [("host:1", 4, 3), ("host:1", 4, 2), (None, None, None)]


@pytest.mark.slow
@pytest.mark.skipif(not ON_JAX, reason="Keras trains in several processes on JAX only")
class TestTogether:
    # Fails if: a process feeds all rows, or another one's; another process writes into the run.
    def test_four_processes_train_as_one(self, folder):
        first, *others = Started(command(folder, "four"), 4).succeed()
        assert "validation BLEU" in first
        for out in others:
            assert not any(word in out for word in ("update", "BLEU", "report", "Translate"))
        assert_equals_one_process(folder, "four")

    # Fails if: the line is missing; a process waits for one that has ended; one resumes alone.
    def test_a_lost_process_ends_all_and_the_same_command_resumes(self, folder):
        arguments = command(folder, "lost")
        for lost in (1, 0):
            ends = Started(arguments, 2, by_kubernetes, traps={lost: "SIGKILL"}).end()
            assert [ends[lost][0], ends[1 - lost][0]] == [-signal.SIGKILL, 1], ends
            last = ends[1 - lost][1].strip().splitlines()[-1]
            assert "another process of this training ended" in last
            assert kt.RunDirectory.open(folder / "lost").latest_checkpoint().update == 2
        first, _ = Started(arguments, 2, by_kubernetes).succeed()
        assert "resuming at update 2" in first
        assert_equals_one_process(folder, "lost")

    # Fails if: only the process that got the signal ends; they end before the update is saved.
    def test_sigterm_of_one_process_saves_and_ends_all(self, folder):
        ends = Started(command(folder, "term", 2000), 2, by_slurm, traps={1: "SIGTERM"}).end()
        assert [status for status, _ in ends] == [143, 143], ends
        saved = kt.RunDirectory.open(folder / "term").newest().update
        assert f"SIGTERM: saved update {saved:,}" in ends[0][1]
        more = saved - saved % 2 + 2
        first, _ = Started(command(folder, "term", more), 2, by_slurm).succeed()
        assert f"resuming at update {saved:,}" in first
        assert kt.RunDirectory.open(folder / "term").latest_checkpoint().update == more

    # Fails if: only the parts of a weight that process 0 holds are saved, averaged or restored.
    def test_weights_that_are_split_over_processes_train_as_one(self, tmp_path):
        Started(["split", str(tmp_path / "one"), "4"], 1).succeed()
        for updates in ("2", "4"):
            arguments = ["split", str(tmp_path / "two"), updates]
            flags = "--xla_force_host_platform_device_count=2"
            Started(arguments, 2, flags=flags).succeed()
        one, two = (kt.RunDirectory.open(tmp_path / name) for name in ("one", "two"))
        assert_same_curve(one, two)
        for file in ("checkpoints/update-00000004/state.npz", "averaged.npz"):
            both = [read_arrays(run.path / file) for run in (one, two)]
            for (_, a), (_, b) in zip(*both, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def train_split(path, updates, *options):
    """Trains on one device, or on two in each of two processes, which hold halves of weights."""
    asked = dict(zip(options[::2], options[1::2], strict=True))
    names = ("--processes", "--coordinator", "--process")
    count, coordinator, number = map(asked.get, names)
    with processes.join_processes(count and int(count), coordinator, number and int(number)):
        devices = np.array(keras.distribution.list_devices())
        if count:
            mesh = keras.distribution.DeviceMesh(
                (2, 2), ("batch", "model"), devices.reshape(2, 2).T
            )
            parallel = keras.distribution.ModelParallel(
                layout_map=kt.models.layout_map(mesh),
                batch_dim_name="batch",
                auto_shard_dataset=False,
            )
            keras.distribution.set_distribution(parallel)
        keras.utils.set_random_seed(3)
        sizes = {"num_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 32, "dropout": 0.0}
        model = kt.models.Transformer(24, **sizes)
        value = model.target_embedding.token.embeddings.value
        assert value.is_fully_addressable == (not count)
        model.compile(
            kt.optimizers.PaperAdam(learning_rate=0.01),
            kt.losses.SmoothedCrossentropy(0.1),
            weighted_metrics=[kt.metrics.NatsPerToken()],
        )
        plan = kt.data.BatchPlan(random_pairs(61, 24), 13 * 8, shapes="static", devices=2)
        valid = plan.evaluation(random_pairs(17, 24, seed=1))
        with kt.RunDirectory.start(path, {}) as run:
            of = {"updates": int(updates), "validate_every": 2, "log_every": 1, "average": 2}
            run.fit(model, plan, validation=valid, **of)


def set_trap(name):
    """Before update 3 this process sends itself a signal."""
    asked_to_stop = processes.asked_to_stop

    def trapped(update):
        if update == 3:
            os.kill(os.getpid(), getattr(signal, name))
        return asked_to_stop(update)

    processes.asked_to_stop = trapped


if __name__ == "__main__":
    if sys.argv[1]:
        set_trap(sys.argv[1])
    if sys.argv[2] == "split":
        sys.exit(train_split(*sys.argv[3:]))
    sys.exit(cli.main(sys.argv[2:]))
