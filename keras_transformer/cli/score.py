"""Score given translations by their log-probability.

  keras-transformer score runs/en-de --source a.en --target a.de > scores.tsv
  keras-transformer score runs/en-de --tsv pairs.tsv --mean

To filter parallel text, or to rank translations from elsewhere. Each pair gives one line, in the
same order: log-probability TAB tokens. The log-probability of the target given the source is in
nats, at most 0, summed over the target's tokens with the end; tokens is their number. There is no
length penalty. An empty side is only its end token; training never sees such pairs, so their scores
say little.

At the end stderr gets nats per token and perplexity of all pairs without an empty side. For the
validation text, the former is what training calls nats_per_token."""

import argparse
import itertools
import math
import sys

# Pairs scored between two writes: enough to sort by length, few enough to show progress.
PAIRS_AT_ONCE = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    from keras_transformer.cli.options import add_model_arguments, count, positive

    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--source", metavar="FILE", help="one sentence per line")
    parser.add_argument("--target", metavar="FILE", help="its translations, line by line")
    parser.add_argument("--tsv", metavar="FILE", help="instead of these two: both in one TSV file")
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

    pairs = _read(args)
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
                print("\t".join(_columns(args, translator.target_tokenizer, target, each)))
                if source.strip() and target.strip():
                    nats, tokens = nats - math.fsum(each), tokens + len(each)
                else:
                    empty += 1
            sys.stdout.flush()
    summary = f"{len(pairs) - empty:,} pairs, {tokens:,} target tokens"
    if tokens:
        mean = nats / tokens
        summary += f", {mean:.6f} nats per token, perplexity {perplexity(mean):.4f}"
    if empty:
        summary += f"; left out: {empty:,} with an empty side"
    say(f"{summary} (weights: {named(translator.weights)})")
    say_next({"Worst first": "paste SCORES F F | sort -g | head"})


def _read(args):
    from keras_transformer import data
    from keras_transformer.cli.options import refuse_ignored

    if args.tsv and (args.source or args.target):
        raise ValueError("Give either --tsv, or --source and --target.")
    if args.tsv:
        return data.read_tsv(args.tsv, args.source_column, args.target_column)
    refuse_ignored(args, ("source_column", "target_column"), "--tsv")
    if not (args.source and args.target):
        raise ValueError("Nothing to score: give --source and --target, or --tsv.")
    return data.read_parallel(args.source, args.target)


def _columns(args, tokenizer, target, log_probabilities):
    total, count = math.fsum(log_probabilities), len(log_probabilities)
    columns = [f"{total / count if args.mean else total:.6f}", str(count)]
    return [*columns, _tokens(tokenizer, target, log_probabilities)] if args.tokens else columns


def _tokens(tokenizer, target, log_probabilities):
    pieces = tokenizer.pieces(target if target.strip() else "")
    pieces = [*pieces, tokenizer.id_to_piece(tokenizer.end_id)]
    pairs = zip(pieces, log_probabilities, strict=True)
    return " ".join(f"{piece}:{log_probability:.4f}" for piece, log_probability in pairs)


def _characters(pairs):
    return sum(len(source) + len(target) for source, target in pairs)
