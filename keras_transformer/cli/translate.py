"""Translate lines from standard input to standard output.

Each line gives one line, in the same order; an empty line stays empty. Lines are translated as they
arrive, so a slow pipe gets its answers without waiting for the end.

  keras-transformer translate runs/en-de < source.txt > hypotheses.txt
  echo "A man rides a horse ." | keras-transformer translate runs/en-de --n-best 4

With --n-best above 1 each line gives up to N lines, best first: number ||| hypothesis ||| score.
Numbers start at 0; the score is the log-probability in nats divided by the length penalty."""

import argparse
import os
import stat
import sys
import time

from keras_transformer.cli.options import add_search_arguments, named, positive, translator_of

# How many lines are taken at once: enough to sort by length, few enough to answer soon.
LINES_AT_ONCE = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    add_search_arguments(parser)
    parser.add_argument("--n-best", type=positive, default=1, help="hypotheses for each line")


def run(args: argparse.Namespace) -> None:
    """Translates the lines of stdin as they arrive."""
    from keras_transformer.cli.ends import beside_results, say_next, verb
    from keras_transformer.data.lines import arriving_lines
    from keras_transformer.progress import say, work

    if args.n_best > args.beam_size:
        raise ValueError(
            f"--n-best {args.n_best} is more than --beam-size {args.beam_size}: raise the latter."
        )
    translator = translator_of(args.run, args)
    out = sys.stdout
    number, seconds, first = 0, 0.0, None
    total = _bytes_left(sys.stdin.buffer)
    unit = "lines" if total is None else "bytes"
    with beside_results(), work("translating", total, unit, ends=False) as done:
        for lines, size in arriving_lines(sys.stdin.buffer, LINES_AT_ONCE):
            begin = time.perf_counter()
            first = first or next((line for line in lines if line.strip()), None)
            with done.part(len(lines) if total is None else size):
                found = translator.n_best(
                    lines, args.n_best, args.beam_size, args.length_penalty, args.batch_size
                )
            for hypotheses in found:
                for hypothesis in hypotheses:
                    text = hypothesis.text.replace("\n", " ")  # one line in, one line out
                    if args.n_best > 1:
                        text = f"{number} ||| {text} ||| {hypothesis.score:.6f}"
                    out.write(text + "\n")
                number += 1
            out.flush()
            seconds += time.perf_counter() - begin
    say(
        f"{number:,} line(s) in {seconds:.1f} s (weights: {named(translator.weights)}), with the "
        f"compilation of {translator.compiled_shapes} shape(s)"
    )
    if first is not None:
        say_next({"Look at one": verb("show", args.run, first)})


def _bytes_left(stream):
    """Returns how many bytes of a file are left to read; None for a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a stream of Python's
        return None
    return status.st_size - stream.tell() if stat.S_ISREG(status.st_mode) else None
