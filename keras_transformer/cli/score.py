"""Score given translations by their log-probability.

  keras-transformer score runs/en-de --source a.en --target a.de > scores.tsv
  keras-transformer score runs/en-de --tsv pairs.tsv --mean
  zcat web.tsv.gz | keras-transformer score runs/en-de --tsv - > scores.tsv
  keras-transformer translate runs/en-de --n-best 8 --beam-size 8 < a.en |
    keras-transformer score runs/big --source a.en --n-best -

To filter parallel text, or to rank translations from elsewhere. One file may be -, standard input.
Each pair gives one line, in the same order: log-probability TAB tokens. The log-probability of the
target given the source is in nats, at most 0, summed over the target's tokens with the end; tokens
is their number. There is no length penalty. An empty side is only its end token; training never
sees such pairs, so their scores say little.

With --n-best the hypotheses of each list are ranked anew by this log-probability, which replaces
the score of each; further fields stay with their hypothesis.

At the end stderr gets nats per token and perplexity of all pairs without an empty side. For the
validation text, the former is what training calls nats_per_token."""

import argparse
import itertools
import math
import sys

from keras_transformer.cli import n_best
from keras_transformer.cli.written import scored_tokens

# Pairs scored between two writes: enough to sort by length, few enough to show progress.
PAIRS_AT_ONCE = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    from keras_transformer.cli.options import add_model_arguments, count, positive

    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--source", metavar="FILE", help="one sentence per line")
    parser.add_argument("--target", metavar="FILE", help="its translations, line by line")
    parser.add_argument("--tsv", metavar="FILE", help="instead of these two: both in one TSV file")
    parser.add_argument(
        "--n-best",
        metavar="FILE",
        help="instead of --target: lists of number ||| hypothesis ||| score to rank",
    )
    parser.add_argument("--source-column", type=count, default=0, help="of the TSV, from 0")
    parser.add_argument("--target-column", type=count, default=1, help="of the TSV, from 0")
    parser.add_argument(
        "--mean", action="store_true", help="log-probability per token instead of the sum"
    )
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="a third column: each token:log-probability, separated by spaces, the end last",
    )
    parser.add_argument("--batch-size", type=positive, default=64, help="pairs at once")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the score of each pair, or their mean."""
    from keras_transformer.callbacks import perplexity
    from keras_transformer.cli.ends import beside_results, say_next
    from keras_transformer.cli.options import named, translator_of
    from keras_transformer.progress import say, work

    entries, pairs = _read(args)
    totals: list[float] = []
    translator = translator_of(args.run, args)
    nats, tokens, empty = 0.0, 0, 0
    size = _characters(pairs)
    with beside_results(), work("scoring", size, "characters", ends=False) as done:
        for first in range(0, len(pairs), PAIRS_AT_ONCE):
            some = pairs[first : first + PAIRS_AT_ONCE]
            with done.part(_characters(some)):
                found = translator.token_log_probabilities(some, args.batch_size)
            if not all(map(math.isfinite, itertools.chain.from_iterable(found))):
                raise ValueError(
                    f"the weights {named(translator.weights)} of {args.run} give log-probabilities "
                    "that are no numbers: choose others by --weights."
                )
            for (source, target), each in zip(some, found, strict=True):
                if entries:
                    totals.append(_total(args, each))
                else:
                    print("\t".join(_columns(args, translator.target_tokenizer, target, each)))
                if source.strip() and target.strip():
                    nats, tokens = nats - math.fsum(each), tokens + len(each)
                else:
                    empty += 1
            sys.stdout.flush()
        for line in n_best.ranked(entries, totals):
            print(line)
        sys.stdout.flush()
    summary = f"{len(pairs) - empty:,} pairs, {tokens:,} target tokens"
    if tokens:
        mean = nats / tokens
        summary += f", {mean:.6f} nats per token, perplexity {perplexity(mean):.4f}"
    if empty:
        summary += f"; left out: {empty:,} with an empty side"
    say(f"{summary} (weights: {named(translator.weights)})")
    if not args.n_best:
        say_next({"Worst first": "paste SCORES F F | sort -g | head"})


def _read(args):
    """Returns the entries of n-best lists, if there are any, and the pairs to score."""
    from keras_transformer import data
    from keras_transformer.cli.options import refuse_ignored
    from keras_transformer.data.lines import STDIN, given_lines

    if [args.source, args.target, args.n_best].count(STDIN) > 1:
        raise ValueError("Only one file can be -, standard input: give the others by name.")
    if args.tsv and (args.source or args.target or args.n_best):
        raise ValueError("Give either --tsv, or --source and --target or --n-best.")
    if args.tsv:
        return [], data.read_tsv(args.tsv, args.source_column, args.target_column)
    refuse_ignored(args, ("source_column", "target_column"), "--tsv")
    if args.n_best and args.source:
        if args.target or args.tokens:
            raise ValueError("--n-best takes neither --target nor --tokens: leave them out.")
        sources = list(given_lines(args.source))
        entries = n_best.read(args.n_best, len(sources))
        return entries, [(sources[entry.number], entry.text) for entry in entries]
    if not (args.source and args.target):
        raise ValueError(
            "Nothing to score: give --source, and --target or --n-best; or give --tsv."
        )
    return [], data.read_parallel(args.source, args.target)


def _total(args, log_probabilities):
    total = math.fsum(log_probabilities)
    return total / len(log_probabilities) if args.mean else total


def _columns(args, tokenizer, target, log_probabilities):
    columns = [f"{_total(args, log_probabilities):.6f}", str(len(log_probabilities))]
    if args.tokens:
        ids = tokenizer.encode(target if target.strip() else "")
        columns.append(scored_tokens(tokenizer, ids, log_probabilities))
    return columns


def _characters(pairs):
    return sum(len(source) + len(target) for source, target in pairs)
