"""Tests how long jobs report progress and how programs end, with a fake clock and fake streams."""

import contextlib
import io
import os
import re
import shlex
import sys
import threading
import time

import numpy as np
import pytest

import keras_transformer as kt
from keras_transformer import cli, progress
from keras_transformer.cli import ends
from keras_transformer.cli import score as score_verb
from keras_transformer.cli import translate as translate_verb
from keras_transformer.datasets import korean_english as corpus
from keras_transformer.runs import loading

pytestmark = pytest.mark.tensorflow_only  # needs no backend


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """A clock that a test moves on. It then calls the functions that run at intervals."""

    def __init__(self):
        self.now, self.functions = 100.0, []

    def __call__(self):
        return self.now

    def every(self, seconds, function):
        self.functions.append(function)
        return lambda: self.functions.remove(function)

    def wait(self, seconds):
        self.now += seconds
        for function in self.functions:
            function()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "_clock", clock)
    monkeypatch.setattr(progress, "_every", clock.every)
    return clock


def run(clock, stream, seconds_each, steps, total=None, unit="pairs"):
    with progress.shown(stream), progress.work("encoding", total, unit) as done:
        for _ in range(steps):
            done(10)
            clock.wait(seconds_each)
    assert not clock.functions
    return stream.getvalue()


# --- one job


# Fails if: the time left belongs to the work done instead of the work left.
def test_a_terminal_rewrites_one_line_and_ends_with_what_was_done(clock):
    assert run(clock, Terminal(), 1.0, 4, total=40) == (
        "\rencoding: 20 of 40 pairs  left 0:00:02\x1b[K"
        "\rencoding: 30 of 40 pairs  left 0:00:01\x1b[K"
        "\rencoding: 40 of 40 pairs  left 0:00:00\x1b[K"
        "\rencoding: 40 pairs in 4.0 s\x1b[K\n"
    )


def test_a_log_gets_a_plain_line_now_and_then(clock):
    assert run(clock, io.StringIO(), 10.0, 7, total=100) == (
        "encoding: 30 of 100 pairs  left 0:01:10\n"
        "encoding: 60 of 100 pairs  left 0:00:40\n"
        "encoding: 70 pairs in 70.0 s\n"
    )


def test_what_is_not_known_is_not_said(clock):
    assert run(clock, io.StringIO(), 31.0, 1).startswith("encoding: 10 pairs  0:00:31\n")
    assert run(clock, io.StringIO(), 31.0, 1, unit="") == (
        "encoding  0:00:31\nencoding in 31.0 s\n"
    )
    stream = io.StringIO()
    with progress.shown(stream), progress.work("encoding", 10, "pairs"):
        clock.wait(31)  # nothing is done yet
    assert stream.getvalue().startswith("encoding: 0 of 10 pairs  0:00:31\n")


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_a_short_job_says_nothing(clock, stream):
    assert run(clock, stream, 0.1, 9, total=90) == ""


# Fails if: a long line is not cut.
def test_a_line_is_cut_to_the_width_of_the_terminal(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert "\rencoding: 10 of 40 \x1b[K" in run(clock, Terminal(), 3.0, 1, total=40)


# Fails if: an interrupted line is left open.
def test_an_interrupted_line_is_ended(clock):
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), progress.shown(stream):
        with progress.work("encoding", 100, "pairs"):
            clock.wait(5)
            raise KeyboardInterrupt
    assert stream.getvalue() == "\rencoding: 0 of 100 pairs  0:00:05\x1b[K\n"
    assert not clock.functions


# Fails if: jobs of other threads are shown.
def test_nothing_is_said_unless_asked(clock, capsys):
    def job():
        with progress.work("encoding", 10, "pairs") as done, done.part(10):
            clock.wait(100)

    job()
    with progress.shown(), progress.hidden():
        job()
    with progress.shown():  # the work of other threads is no job of this program
        thread = threading.Thread(target=job)
        thread.start()
        thread.join()
    assert capsys.readouterr() == ("", "")


def test_a_passing_job_leaves_nothing_behind(clock):
    with progress.passing():
        assert run(clock, io.StringIO(), 40.0, 2) == ""
        terminal = run(clock, Terminal(), 40.0, 1)
    assert terminal == "\rencoding: 10 pairs  0:00:40\x1b[K\r\x1b[K"


# Fails if: a warning is written into the line.
def test_what_is_said_meanwhile_has_a_line_of_its_own(clock, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.shown(), progress.work("encoding", 10, "pairs", ends=False):
        progress.say("first")
        clock.wait(3)
        progress.say("warning")
    assert stream.getvalue() == ("first\n\rencoding: 0 of 10 pairs  0:00:03\x1b[K\r\x1b[Kwarning\n")


# Fails if: a part of a job is not counted, or is counted twice; a job within a job is shown too.
def test_a_job_within_another_counts_as_its_part(clock):
    stream = io.StringIO()
    with progress.shown(stream), progress.work("translating", 1000, "bytes") as done:
        with done.part(600), progress.work("searching", 4, "tokens") as inner:
            clock.wait(40)
            inner(3)
            clock.wait(50)
        with progress.work("reading", 4, "lines") as inner:  # does not count for the outer job
            inner(4)
        with done.part(400):
            clock.wait(90)
    assert stream.getvalue() == (
        "translating: 0 of 1,000 bytes  0:00:40\n"
        "translating: 450 of 1,000 bytes  left 0:01:50\n"
        "translating: 600 of 1,000 bytes  left 0:02:00\n"
        "translating: 1,000 bytes in 180.0 s\n"
    )


# Fails if: the thread continues after its job, or there is none.
def test_one_long_call_is_followed_by_a_thread_that_ends_with_it(monkeypatch):
    monkeypatch.setattr(progress, "QUIET", 0)
    monkeypatch.setattr(progress, "TERMINAL", 0.01)
    stream, threads = Terminal(), threading.active_count()
    with progress.shown(stream), progress.work("training a vocabulary"):
        limit = time.monotonic() + 20
        while stream.getvalue().count("\r") < 3 and time.monotonic() < limit:
            time.sleep(0.01)
    assert stream.getvalue().count("\rtraining a vocabulary  0:00:0") >= 3
    assert threading.active_count() == threads


# --- the jobs


# Fails if: work is counted twice, or in another unit.
def test_jobs_count_all_of_their_work(monkeypatch, uncompiled, tmp_path):
    jobs = {}
    real = progress.work

    @contextlib.contextmanager
    def recorded(what, total=None, unit="", **options):
        counts = jobs.setdefault(what, [0, 0])
        with real(what, total, unit, **options) as done:

            def counted(n=1):
                counts[1] += n
                done(n)

            yield counted
        counts[0] += total or 0

    monkeypatch.setattr(progress, "work", recorded)
    pairs = [("a b c", "x y"), ("", "z"), ("b c", "y")] * 3
    tokenizer = kt.text.train_tokenizer(pairs, 270)
    kt.data.encode_pairs(pairs, tokenizer, cache=tmp_path / "ids.npz")
    kt.data.encode_texts(["a b", "c"], tokenizer)
    model = kt.models.Transformer(270, num_layers=1, d_model=8, num_heads=2, d_ff=8)
    translator = kt.Translator(model, tokenizer)
    translator.EXTRA_LENGTH = 10
    # So little room that some translations are tried again.
    monkeypatch.setattr("keras_transformer.decoding.shapes.ROOM", 1)
    translator.translate(["a b", "", "c"], beam_size=1, batch_size=1)
    translator.score([("a b", "x"), ("c", "y z")])
    corpus.generate(size=20, test_size=2)
    a_run(tmp_path / "run", model, tokenizer, updates=(1, 2))
    directory = kt.RunDirectory.open(tmp_path / "run")
    directory.save_average(directory.checkpoints())
    assert {what: total for what, (total, _) in jobs.items()} == {
        "training a vocabulary": 0,  # one long call
        "comparing the text with what is kept": 0,
        "encoding": 9 + 4,  # pairs, and the characters of texts
        "translating": sum(map(len, tokenizer.encode(["a b", "c"]))),
        "scoring": sum(map(len, tokenizer.encode(["x", "y z"]))) + 2,
        "writing sentences": 20 + 8 * 2,
        "checking": 2,
        "averaging": 2,
    }
    assert jobs.pop("training a vocabulary")[1] == 15  # counts the lines that are not empty
    for what, (total, done) in jobs.items():
        assert total == done, what


def a_run(path, model, tokenizer, updates):
    model.compile(kt.optimizers.PaperAdam(8), kt.losses.SmoothedCrossentropy())
    with kt.RunDirectory.start(path, {"recipe": "test"}) as directory:
        tokenizer.save(directory.path / "tokenizer.model")
        for update in updates:
            directory.save_checkpoint(model, update, {"update": update})


class SlowTranslator:
    """A translator that takes a second per line."""

    compiled_shapes, target_tokenizer, weights = 1, None, "last"

    def __init__(self, clock):
        self.clock = clock

    def n_best(self, lines, n, *search, **options):
        with progress.work("translating", len(lines), "source tokens") as done:
            for _ in lines:
                done()
                self.clock.wait(1)
        return [[kt.decoding.Hypothesis(line.upper(), [], 0.0)] for line in lines]

    def token_log_probabilities(self, pairs, batch_size):
        with progress.work("scoring", len(pairs), "target tokens") as done:
            for _ in pairs:
                done()
                self.clock.wait(1)
        return [[-1.0] for _ in pairs]


@pytest.fixture
def slow(clock, monkeypatch):
    """Runs a verb with a slow translator, and returns what it writes to stderr, a terminal."""
    translator = SlowTranslator(clock)
    monkeypatch.setattr(loading, "load_translator", lambda *arguments: translator)
    monkeypatch.setattr(translate_verb, "LINES_AT_ONCE", 2)
    monkeypatch.setattr(score_verb, "PAIRS_AT_ONCE", 2)

    def main(*arguments):
        with contextlib.redirect_stderr(Terminal()) as stream:
            assert cli.main([str(argument) for argument in arguments]) == 0
        return stream.getvalue()

    return main


# Fails if: progress is written to stdout.
def test_translating_a_file_says_the_time_left_and_keeps_stdout_clean(
    slow, tmp_path, monkeypatch, capsys
):
    text = tmp_path / "source.txt"
    text.write_text("abc\n" * 4, encoding="utf-8")
    with open(text) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        err = slow("translate", "run")
    assert capsys.readouterr().out == "ABC\n" * 4
    assert re.sub(r"in \d+\.\d s", "in N s", err) == (
        "\rtranslating: 8 of 16 bytes  left 0:00:02\x1b[K"
        "\rtranslating: 12 of 16 bytes  left 0:00:01\x1b[K"
        "\rtranslating: 16 of 16 bytes  left 0:00:00\x1b[K\r\x1b[K"
        "4 line(s) in N s (weights: last), with the compilation of 1 shape(s)\n"
        "\nLook at one:  keras-transformer show run abc\n"
    )


def test_of_a_pipe_the_lines_so_far_are_said(slow, monkeypatch, capsys):
    read, write = os.pipe()
    with open(read) as stdin:
        os.write(write, b"abc\n" * 4)
        os.close(write)
        monkeypatch.setattr(sys, "stdin", stdin)
        assert "\rtranslating: 3 lines  0:00:03\x1b[K" in slow("translate", "run")
    assert capsys.readouterr().out == "ABC\n" * 4


# Fails if: progress is shown between results, or while lines are typed.
@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_where_results_come_to_the_same_terminal_nothing_else_does(
    slow, tmp_path, monkeypatch, name
):
    other = Terminal()
    other.buffer = io.BytesIO(b"abc\n" * 4)
    monkeypatch.setattr(sys, "stdin", other)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    if name == "stdout":
        other.isatty = lambda: False
        monkeypatch.setattr(sys, "stdout", Terminal())
    assert slow("translate", "run").startswith("4 line(s) in ")
    assert sys.stdout.getvalue() == "ABC\n" * 4


def test_scoring_a_file_says_the_time_left(slow, tmp_path, capsys):
    tsv = tmp_path / "pairs.tsv"
    tsv.write_text("abc\td\n" * 4, encoding="utf-8")
    err = slow("score", "run", "--tsv", tsv)
    assert capsys.readouterr().out == "-1.000000\t1\n" * 4
    assert err == (
        "\rscoring: 8 of 16 characters  left 0:00:02\x1b[K"
        "\rscoring: 12 of 16 characters  left 0:00:01\x1b[K"
        "\rscoring: 16 of 16 characters  left 0:00:00\x1b[K\r\x1b[K"
        "4 pairs, 4 target tokens, 1.000000 nats per token, perplexity 2.7183 "
        "(weights: last)\n\nWorst first:  paste SCORES F F | sort -g | head\n"
    )


# --- how programs end


# Fails if: the commands to type are left out.
def test_verbs_end_with_what_they_wrote_and_what_to_type(tmp_path, uncompiled, monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET", 1000)  # no line of a job on a slow machine
    lines = tmp_path / "lines"
    lines.write_text("a b\n", encoding="utf-8")
    tokenizer = kt.text.train_tokenizer(["a b c"], 265)
    model = kt.models.Transformer(265, num_layers=1, d_model=8, num_heads=2, d_ff=8)
    name = tmp_path / "a run"
    a_run(name, model, tokenizer, updates=(1, 2))
    quoted, output, export = f"'{name}'", tmp_path / "out", tmp_path / "export"

    def ending(*arguments):
        assert cli.main([str(argument) for argument in arguments]) == 0
        out, err = capsys.readouterr()
        return err

    assert ending("average", name) == (
        f"averaged updates 1, 2 into {name}/averaged.npz\n"
        f"{name}/ids/valid.npz is missing, so the average was not compared with the last weights. "
        "It is the default of `translate` and the other verbs.\n\n"
        f"Evaluate:  keras-transformer evaluate {quoted} --source F --reference F\n"
        f"The last:  keras-transformer evaluate {quoted} --weights last --source F --reference F\n"
    )
    files = ("--source", lines, "--reference", lines)
    assert ending("evaluate", name, *files, "--beam-size", 1, "--output", output) == (
        f"wrote the translations to {output}\n\n"
        f"Look at one:  keras-transformer show {quoted} 'a b'\n"
    )
    assert ending("evaluate", "--hypotheses", output, "--reference", lines) == ""
    pytest.importorskip("ctranslate2")
    assert ending("export", name, "--format", "ctranslate2", "--output", export) == (
        f"wrote {export} (weights: average)\n\nHow to use it:  cat {export}/README.txt\n"
    )


# Fails if: commands are not quoted.
def test_commands_to_type_are_quoted_where_a_shell_needs_it():
    text = ends.command("keras-transformer", "show", "a run", "it's", rest="< source.txt")
    assert text.endswith("< source.txt")
    assert shlex.split(text)[:4] == ["keras-transformer", "show", "a run", "it's"]


# Fails if: an error takes several lines.
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("two\nlines"), "recipe: error: two lines", ""),
        (OSError(2, "No such file", "x"), "recipe: error: [Errno 2] No such file: 'x'", ""),
        (KeyboardInterrupt(), 130, "recipe: interrupted; go on\n"),
    ],
)
def test_a_program_ends_in_one_line(error, status, said, capsys, monkeypatch):
    @ends.program("recipe", "interrupted; go on")
    def main():
        print("so far")
        raise error

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == status and capsys.readouterr() == ("so far\n", said)
    if isinstance(status, str):
        monkeypatch.setenv("KERAS_TRANSFORMER_TRACEBACK", "1")
        with pytest.raises(type(error)):
            main()


# Fails if: no new line follows ^C.
def test_in_a_terminal_the_line_of_an_interruption_is_its_own(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(SystemExit), ends.program("recipe"):
        raise KeyboardInterrupt
    assert sys.stderr.getvalue() == "\nrecipe: interrupted\n"


# Fails if: a bug loses its traceback.
def test_a_bug_keeps_its_traceback():
    with pytest.raises(TypeError), ends.program("recipe"):
        raise TypeError


# Fails if: a validation is shown as a job of its own.
def test_a_validation_within_training_leaves_the_epoch_its_line(clock):
    stream = io.StringIO()

    def translate(lines):
        with progress.work("translating", len(lines), "tokens") as done:
            clock.wait(100)
            done(len(lines))
        return lines

    score = kt.callbacks.TranslationScore(translate, ["a"], ["a"], lambda *_: 1.0)
    logs = {}
    with progress.shown(stream):
        score.on_epoch_end(0, logs)
    assert stream.getvalue() == "" and logs["val_bleu"] == np.float64(1.0)
