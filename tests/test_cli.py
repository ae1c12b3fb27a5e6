"""Tests of what the verbs share: options, streams, and errors of one line."""

import inspect
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading

import pytest
from command_line import assert_one_line, main, path_of, pipe, status_and_err, write

from keras_transformer import cli
from keras_transformer.cli import evaluate as evaluate_verb
from keras_transformer.cli import translate as translate_verb
from keras_transformer.decoding.translator import Hypothesis

pytestmark = pytest.mark.tensorflow_only


def test_reading_a_run_says_in_one_line_what_is_wrong(run, parallel, tmp_path, monkeypatch, capsys):
    pipe(monkeypatch, b"ba\n")
    source, reference = (path_of(parallel, f"valid-{side}") for side in ("source", "target"))
    longer = path_of(parallel, "train-target")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "settings.json").write_text('{"seed": ')
    (tmp_path / "untrained").mkdir()
    (tmp_path / "untrained" / "settings.json").write_text("{}")
    (tmp_path / "other").mkdir()
    for verb in (
        ("translate",),
        ("evaluate", "--source", source, "--reference", reference),
        ("score", "--source", source, "--target", reference),
        ("average",),
    ):
        for name, part in (
            ("absent", "there is no such folder"),
            ("other", "is not a run"),
            ("broken", "settings.json"),
            ("untrained", "train it first"),
        ):
            arguments = (verb[0], tmp_path / name, *verb[1:])
            assert_one_line(*status_and_err(capsys, *arguments), part)
    evaluate = ("evaluate", run, "--source", source, "--reference", reference)
    only_reference = ("evaluate", "--reference", reference)
    score = ("score", run, "--source", source)
    for arguments, part in (
        (("translate", run, "--n-best", 5), "--n-best 5 is more than --beam-size 4"),
        (("translate", run, "--weights", "worst"), "no weights 'worst'"),
        (("translate", run, "--weights", "best"), "'best'"),
        (("translate", run, "--weights", "4"), "4"),
        ((*evaluate, "--tokenize", "nope"), "Unknown tokenizer 'nope'"),
        ((*evaluate, "--reference", longer), "need the same number of lines"),
        ((*evaluate, "--reference", reference, longer), "need the same number of lines"),
        ((*evaluate, "--reference", reference, reference, "--error-rate"), "one --reference"),
        ((*evaluate, "--hypotheses", longer), "need the same number of lines"),
        ((*evaluate, "--hypotheses", source, source), "is given twice"),
        (("evaluate", run, *evaluate[1:]), "is given twice"),
        (
            ("evaluate", tmp_path, *evaluate[1:], "--output", tmp_path / "o"),
            "goes with one RUN, got 2",
        ),
        (only_reference, "Nothing to evaluate"),
        ((*only_reference, "--source", source, "--hypotheses", source), "leave it out"),
        (("evaluate", run, "--reference", reference), "give --source FILE"),
        (score, "Nothing to score"),
        ((*score, "--tsv", source), "Give either --tsv, or"),
        ((*score, "--n-best", source), "line 1: expected number ||| hypothesis ||| score"),
        ((*score, "--n-best", source, "--tokens"), "neither --target nor --tokens"),
        ((*score, "--target", longer), "need the same number of lines"),
        ((*evaluate, "--reference", tmp_path / "absent"), "no such file"),
        (("average", run, "--last", 3), "has 2 checkpoints"),
        ((*only_reference, "--hypotheses", source, "--weights", "last"), "--weights has an effect"),
        ((*only_reference, "--hypotheses", source, "--beam-size", 8), "--beam-size has an effect"),
        ((*score, "--target", source, "--target-column", 2), "--target-column has an effect"),
        (("show", run, "ba", "--target", "do", "--beam-size", 2), "--beam-size has an effect"),
    ):
        assert_one_line(*status_and_err(capsys, *arguments), part)


class Echo:
    """A translator that returns its input."""

    compiled_shapes, weights = 0, "last"

    def n_best(self, texts, *search, **options):
        return [[Hypothesis(text, [], 0.0)] for text in texts]

    def translate(self, texts, *search):
        return list(texts)


@pytest.fixture
def echo(monkeypatch):
    for verb in (translate_verb, evaluate_verb):
        monkeypatch.setattr(verb, "translator_of", lambda run, args: Echo())


def test_lines_before_one_that_is_not_utf8_are_translated(echo, monkeypatch, capsys):
    pipe(monkeypatch, b"ba\n\xef\xbb\xbfdo\nf\xfcr\nde\n")
    status, out, err = main(capsys, "translate", "run")
    assert_one_line(status, err, "standard input, line 3: byte 0xfc is not UTF-8")
    assert out == "ba\ndo\n"  # without the byte order mark


# Fails if: a program that reads no standard input needs one (a shell closes it by `<&-`).
def test_standard_input_may_be_closed(echo, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    lines = write(tmp_path / "lines", ["ba", "do"])
    assert main(capsys, "translate", "run", "--input", lines)[:2] == (0, "ba\ndo\n")
    monkeypatch.setattr(sys, "stdin", None)
    assert main(capsys, "translate", "run")[:2] == (0, "")


# Fails if: a list without a hypothesis is a line that `score --n-best` cannot read.
@pytest.mark.parametrize(("n", "line"), [(1, "\n"), (2, "")])
def test_a_text_without_a_translation_has_an_empty_line_or_list(n, line, monkeypatch, capsys):
    monkeypatch.setattr(Echo, "n_best", lambda self, texts, *search, **options: [[] for _ in texts])
    monkeypatch.setattr(translate_verb, "translator_of", lambda run, args: Echo())
    pipe(monkeypatch, b"ba\n")
    assert main(capsys, "translate", "run", "--n-best", n)[:2] == (0, line)


def test_output_that_cannot_be_written_is_said_before_translating(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(evaluate_verb, "translator_of", lambda run, args: 1 / 0)
    source, blank = (write(tmp_path / name, [line]) for name, line in (("source", "a"), ("b", " ")))
    command = ["evaluate", "run", "--source", source, "--reference", source]
    output = tmp_path / "absent" / "x.txt"
    assert_one_line(*status_and_err(capsys, *command, "--output", output), "make it first")
    no_text = (*command[:-1], blank)
    assert_one_line(*status_and_err(capsys, *no_text), "references without any text")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    output = tmp_path / "x.txt"
    assert_one_line(*status_and_err(capsys, *command, "--output", output), "cannot be written to")


def test_what_was_translated_is_kept_where_its_file_cannot_be_written(
    echo, monkeypatch, tmp_path, capsys
):
    source, folder = write(tmp_path / "source", ["ba", "나는"]), tmp_path / "folder"
    folder.mkdir()

    def translate_and_lose(self, texts, *search):
        folder.rmdir()  # the folder disappears during the translation
        return list(texts)

    monkeypatch.setattr(Echo, "translate", translate_and_lose)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = ["evaluate", "run", "--source", source, "--reference", source]
    status, err = status_and_err(capsys, *command, "--output", folder / "x.txt")
    assert_one_line(status, err, "The text is in ")
    kept = re.search(r"The text is in (.*)\.$", err.strip())[1]
    assert open(kept, encoding="utf-8").read() == "ba\n나는\n"


def test_output_is_utf8_whatever_the_locale(echo, monkeypatch, tmp_path):
    source = write(tmp_path / "source", ["ba"])
    for command, expected in (
        (["translate", "run"], "한글\n"),
        (["evaluate", "런", "--source", source, "--reference", source], '"run": "런"'),
    ):
        pipe(monkeypatch, "한글\n".encode())
        streams = {name: io.TextIOWrapper(io.BytesIO(), "ascii") for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            assert cli.main(command) == 0
        assert expected in streams["stdout"].buffer.getvalue().decode("utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "fly run",
        "translate",
        "translate run --beam-size 0",
        "translate run --length-penalty -1",
        "translate run --n-best x",
        "evaluate run --source a",
        "train",
        "train --run-dir run --updates 0",
        "train --run-dir run --precision float8",
        "score",
        "score run --batch-size 0",
        "average run --last x",
        "average run --last 0",
        "score run --source-column -1",
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments.split())
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: keras-transformer")


OPTIONS = {
    "train": "train-source train-target train-tsv valid-source valid-target valid-tsv hold-out "
    "source-column target-column max-length vocabulary-size vocabulary-sample vocabulary-type "
    "normalization "
    "separate-vocabularies subword-sampling preset num-layers d-model num-heads d-ff dropout "
    "attention-dropout norm init-from init-weights lora-rank lora-targets run-dir updates devices "
    "processes coordinator process tokens-per-batch accumulate shapes warmup-steps learning-rate "
    "label-smoothing r-drop clip-norm seed precision jit deterministic dry-run validate-every "
    "tokenize keep-checkpoints average stop-early patience checkpoint-on-signal log-every",
    "translate": "beam-size length-penalty batch-size engine quantization weights ensemble n-best "
    "prefix prefixes terminology min-length max-length no-repeat-ngram repetition-penalty suppress "
    "sample temperature top-k top-p seed input output tokens-per-batch alignments alignment-layer "
    "alignment-heads token-scores json split source-language tags",
    "evaluate": "source reference hypotheses tokenize lowercase error-rate output beam-size "
    "length-penalty batch-size engine quantization weights ensemble",
    "score": "n-best source target tsv source-column target-column mean tokens batch-size weights "
    "ensemble",
    "average": "last",
    "quantize": "to run-dir weights",
    "import": "run-dir positions",
    "export": "format output quantization beam-size length-penalty weights ensemble",
    "serve": "host port beam-size length-penalty batch-size weights ensemble max-queue "
    "max-seconds max-bytes max-sentences max-tokens max-searches warm-up no-warm-up engine "
    "compile-cache quantization",
}


@pytest.mark.parametrize("verb", OPTIONS)
def test_help_names_every_option(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    named = set(re.findall(r"--([a-z][a-z-]*)", capsys.readouterr().out))
    assert set(OPTIONS[verb].split()) <= named
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert verb in capsys.readouterr().out


# --- fresh processes


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(run):
    command = [sys.executable, "-m", "keras_transformer", "translate", str(run), "--beam-size", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    process.stdout.close()
    process.stdin.write(b"ba\n" * 5000)
    process.stdin.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 141 and "Error" not in err


def test_ctrl_c_while_stdin_is_open_ends_with_130():
    """Fails if: a thread that reads stdin holds its lock when Python ends (SIGABRT, status 134)."""
    code = (
        # A parent that ignores Ctrl-C (a script in the background) passes this on to its children.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from keras_transformer import cli; from keras_transformer.cli import translate\n"
        "with cli.without_notices():\n"
        "    from keras_transformer.decoding import Hypothesis\n"
        f"{inspect.getsource(Echo)}\n"
        "translate.translator_of = lambda run, args: Echo()\n"
        'sys.exit(cli.main(["translate", "run"]))'
    )
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdin.write("나는\n".encode())
        process.stdin.flush()
        assert process.stdout.readline().decode() == "나는\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b"keras-transformer translate: interrupted\n"


def test_an_error_while_stdin_is_open_leaves_no_thread(echo, monkeypatch, capsys):
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as stdin, open(writing, "wb", buffering=0) as typed:
        monkeypatch.setattr(sys, "stdin", stdin)
        typed.write(b"ba\n\xff\nde\n")
        before = threading.enumerate()
        status, out, err = main(capsys, "translate", "run")
        assert_one_line(status, err, "line 2: byte 0xff is not UTF-8")
        assert out == "ba\n" and threading.enumerate() == before
