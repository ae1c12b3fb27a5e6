"""How long jobs say how far they are: with a clock and streams of our own."""

import io

import pytest

import keras_transformer as kt
from keras_transformer import progress

pytestmark = pytest.mark.tensorflow_only  # it needs no backend


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(stream, seconds_each, steps, total=None):
    clock = Clock()
    with progress.shown(stream), progress.work("encoding", total, "pairs", clock) as done:
        for _ in range(steps):
            clock.now += seconds_each
            done(10)
    return stream.getvalue()


def test_a_terminal_rewrites_one_line_and_ends_with_what_was_done():
    text = run(Terminal(), 1.0, 4, total=40)
    assert text == (
        "\rencoding: 20 of 40 pairs  left 0:00:02\x1b[K"
        "\rencoding: 30 of 40 pairs  left 0:00:01\x1b[K"
        "\rencoding: 40 of 40 pairs  left 0:00:00\x1b[K"
        "\r\x1b[Kencoding: 40 pairs in 4.0 s\n"
    )


def test_a_log_gets_a_plain_line_now_and_then():
    text = run(io.StringIO(), 10.0, 7, total=100)
    assert text.split("\n") == [
        "encoding: 30 of 100 pairs  left 0:01:10",
        "encoding: 60 of 100 pairs  left 0:00:40",
        "encoding: 70 pairs in 70.0 s",
        "",
    ]
    assert "\r" not in text and "\x1b" not in text


def test_without_a_total_the_time_so_far_is_said():
    assert run(io.StringIO(), 31.0, 1).startswith("encoding: 10 pairs  0:00:31\n")


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_a_short_job_says_nothing(stream):
    assert run(stream, 0.1, 9, total=90) == ""


def test_an_interrupted_line_is_ended():
    stream, clock = Terminal(), Clock()
    with pytest.raises(KeyboardInterrupt), progress.shown(stream):
        with progress.work("encoding", 100, "pairs", clock) as done:
            clock.now += 5
            done(10)
            raise KeyboardInterrupt
    assert stream.getvalue().endswith("\x1b[K\n")


def test_nothing_is_said_unless_asked(capsys):
    clock = Clock()
    with progress.work("encoding", 10, "pairs", clock) as done:
        clock.now += 100
        done(10)
    assert capsys.readouterr() == ("", "")


def test_encoding_and_translating_count_all_of_their_work(monkeypatch, uncompiled):
    jobs = []
    real = progress.work

    def recorded(what, total=None, unit="", **options):
        jobs.append([what, total, 0])
        job = jobs[-1]

        class Recording:
            def __enter__(self):
                self.inner = real(what, total, unit, **options)
                inner = self.inner.__enter__()

                def done(n=1):
                    job[2] += n
                    inner(n)

                return done

            def __exit__(self, *error):
                return self.inner.__exit__(*error)

        return Recording()

    monkeypatch.setattr(progress, "work", recorded)
    pairs = [("a b c", "x y"), ("", "z"), ("b c", "y")] * 3
    tokenizer = kt.text.train_tokenizer(pairs, 270)
    kt.data.encode_pairs(pairs, tokenizer)
    model = kt.models.Transformer(270, num_layers=1, d_model=8, num_heads=2, d_ff=8)
    translator = kt.Translator(model, tokenizer)
    translator.EXTRA_LENGTH = 10
    monkeypatch.setattr("keras_transformer.translator.ROOM", 1)  # some are tried again
    translator.translate(["a b", "", "c"], beam_size=1, batch_size=1)
    translator.score([("a b", "x"), ("c", "y z")])
    assert [job[0] for job in jobs] == [
        "training a vocabulary", "encoding", "translating", "scoring",
    ]  # fmt: skip
    for what, total, done in jobs[1:]:
        assert total == done > 0, what
