"""Translate lines from standard input to standard output.

Each line gives one line, in the same order; an empty line stays empty. Lines are translated as they
arrive, so a slow pipe gets its answers without waiting for the end.

  keras-transformer translate runs/en-de < source.txt > hypotheses.txt
  echo "A man rides a horse ." | keras-transformer translate runs/en-de --n-best 4

  keras-transformer translate runs/en-de --prefix "Sehr geehrte" --no-repeat-ngram 3 < letters.txt
  keras-transformer translate runs/en-de --sample --top-p 0.9 --n-best 5 < source.txt
  keras-transformer translate runs/en-de --input source.txt --output found.jsonl --json

With --n-best above 1 each line gives up to N lines, best first: number ||| hypothesis ||| score.
Numbers start at 0; the score is the log-probability in nats divided by the length penalty. What
--alignments and --token-scores ask for follows, in this order. --json writes an object for each
line instead: the best translation with its score, tokens, token_scores and alignments, and n_best,
a list of such objects.

  keras-transformer translate runs/en-de --split sentences --source-language en < documents.txt
  keras-transformer translate runs/en-de --tags < page.html

--split sentences translates each line sentence by sentence. --tags keeps tags and placeholders."""

import argparse
import dataclasses
import io
import os
import stat
import sys
import time
from typing import Any

from keras_transformer.cli import structured, written
from keras_transformer.cli.options import (
    add_content_arguments,
    add_search_arguments,
    content_of,
    named,
    positive,
    translator_of,
)

# How many lines are taken at once: enough to sort by length, few enough to answer soon.
LINES_AT_ONCE = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--input", metavar="FILE", help="instead of stdin; .gz and .zst too")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="instead of stdout: a new file, which is written whole or not at all",
    )
    add_search_arguments(parser)
    parser.add_argument(
        "--tokens-per-batch",
        type=positive,
        metavar="N",
        help="source tokens at once, padding counted: bounds the memory of long lines",
    )
    parser.add_argument("--n-best", type=positive, default=1, help="hypotheses for each line")
    add_content_arguments(parser)
    structured.add_arguments(parser)
    written.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Translates the lines of stdin as they arrive, or those of a file."""
    from keras_transformer.cli.ends import beside_results, say_next, verb
    from keras_transformer.files import refuse_existing, write_new_file
    from keras_transformer.progress import say, work

    _check(args)
    if args.output:  # fail now rather than after translating
        refuse_existing(args.output)
    options, beside = {**content_of(args), **_limit(args)}, _beside(args)
    chunks, total, unit = _input(args)
    translator = translator_of(args.run, args)
    search = args.n_best, args.beam_size, args.length_penalty, args.batch_size
    out: Any = io.StringIO() if args.output else sys.stdout
    number, seconds, first = 0, 0.0, None
    with beside_results(), work("translating", total, unit, ends=False) as done:
        for lines, size in chunks:
            begin = time.perf_counter()
            first = first or next((line for line in lines if line.strip()), None)
            begins, terms = _of_lines(args, beside, number, len(lines))
            content = {"prefix": begins, "terminology": terms, **options}
            if args.sample:  # what is drawn depends on a line's number in the whole input
                content["sampling"] = dataclasses.replace(options["sampling"], first=number)
            with done.part(size):
                if structured.asked(args):
                    texts = list(structured.lines_of(translator, args, lines, content))
                else:
                    found = translator.n_best(lines, *search, **content)
                    texts = list(written.lines_of(translator, args, lines, found, number))
            out.writelines(f"{text}\n" for text in texts)
            number += len(lines)
            out.flush()
            seconds += time.perf_counter() - begin
    if args.output:
        write_new_file(args.output, out.getvalue())
    say(
        f"{number:,} line(s) in {seconds:.1f} s (weights: {named(translator.weights)}), with the "
        f"compilation of {translator.compiled_shapes} shape(s)"
    )
    if first is not None:
        say_next({"Look at one": verb("show", args.run, first)})


def _check(args):
    if args.n_best > args.beam_size and not args.sample:
        raise ValueError(
            f"--n-best {args.n_best} is more than --beam-size {args.beam_size}: raise the latter."
        )
    written.check(args)
    structured.check(args)


def _limit(args):
    return {"tokens_per_batch": args.tokens_per_batch} if args.tokens_per_batch else {}


def _input(args):
    """Returns lists of lines with their sizes, the sum of the sizes or None, and their unit."""
    from keras_transformer.data import read_lines
    from keras_transformer.data.lines import arriving_lines

    if args.input is not None:
        lines = read_lines(args.input)
        starts = range(0, len(lines), LINES_AT_ONCE)
        chunks = (lines[start : start + LINES_AT_ONCE] for start in starts)
        return ((some, len(some)) for some in chunks), len(lines), "lines"
    arriving = arriving_lines(sys.stdin.buffer, LINES_AT_ONCE)
    total = _bytes_left(sys.stdin.buffer)
    if total is None:
        return ((some, len(some)) for some, _ in arriving), None, "lines"
    return arriving, total, "bytes"


def _beside(args):
    """The lines of --prefixes and --terminology, or None for each."""
    from keras_transformer.data import read_lines

    if None not in (args.prefix, args.prefixes):
        raise ValueError("Give either --prefix or --prefixes, not both.")
    return [path and read_lines(path) for path in (args.prefixes, args.terminology)]


def _of_lines(args, beside, begin, count):
    """The prefix and the terminology of lines of the input."""
    found: list[Any] = []
    for path, lines in zip((args.prefixes, args.terminology), beside, strict=True):
        if lines is not None and begin + count > len(lines):
            raise ValueError(
                f"{path} has {len(lines)} lines, and the input has more: give one for each line "
                "of input."
            )
        found.append(lines and lines[begin : begin + count])
    prefixes, terminology = found
    if terminology:
        terminology = [[each for each in line.split("\t") if each] for line in terminology]
    return prefixes or args.prefix, terminology


def _bytes_left(stream):
    """Returns how many bytes of a file are left to read; None for a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a stream of Python's
        return None
    return status.st_size - stream.tell() if stat.S_ISREG(status.st_mode) else None
