"""Translate a source file and score it against a reference: one JSON line per system.

  keras-transformer evaluate runs/en-de --source test.en --reference test.de
  keras-transformer evaluate runs/base runs/big --source test.en --reference test.de
  keras-transformer evaluate --hypotheses ours.de theirs.de --reference test.de
  keras-transformer evaluate runs/en-de --source test.en --reference first.de second.de

prints BLEU, chrF and chrF++ with their sacreBLEU signatures, the share of exact matches, and the
search's settings. References are scored as they are, against detokenised hypotheses. If the files
are already tokenised (Multi30k, WMT's old sets), pass --tokenize none.

Several systems (runs first, then files of hypotheses) are compared with the first one by
sacreBLEU's paired bootstrap resampling. Every line then has each score's mean and 95 % interval,
and each line after the first the p-value of the difference. There are 1,000 samples; the
environment variable SACREBLEU_SEED is their seed, 12345 by default.

Korean: --tokenize ko-mecab counts morphemes (13a counts words between spaces, so one wrong ending
or space is a wrong word). It and chrF hardly see wrong spaces; chrF++ and exact_match do."""

import argparse
import json
import sys

from keras_transformer.cli.options import (
    MODEL,
    SEARCH,
    add_search_arguments,
    refuse_ignored,
    translator_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("run", nargs="*", metavar="RUN", help="folders of runs")
    parser.add_argument("--source", metavar="FILE", help="one sentence per line, for the runs")
    parser.add_argument(
        "--reference",
        required=True,
        nargs="+",
        metavar="FILE",
        help="one line per source; several files are several references for each",
    )
    parser.add_argument(
        "--hypotheses",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="translations of other systems, one line per reference; name runs before them",
    )
    parser.add_argument(
        "--tokenize",
        default="13a",
        metavar="NAME",
        help="sacreBLEU's tokenizer: 13a, none, intl, char, zh, ja-mecab, ko-mecab, ...",
    )
    parser.add_argument("--lowercase", action="store_true", help="ignore case in BLEU")
    parser.add_argument(
        "--error-rate",
        action="store_true",
        help="also the percentage of lines with an error and of wrong tokens between spaces: WER "
        "and PER of grapheme-to-phoneme conversion",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="also write the hypotheses of the run here"
    )
    add_search_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Translates for each run, and prints one JSON line of scores per run or file."""
    from keras_transformer import data, evaluation
    from keras_transformer.evaluation.lines import checked_with_more
    from keras_transformer.files import refuse_existing, write_new_file

    _check(args)
    # Fail now rather than after translating.
    if args.output:
        refuse_existing(args.output)
    evaluation.bleu(["a"], ["a"], tokenize=args.tokenize)
    files = {}
    for file in args.hypotheses:
        pairs = data.read_parallel(file, args.reference[0])
        files[file] = [hypothesis for hypothesis, _ in pairs], {"hypotheses": file}
    if args.run:
        pairs = data.read_parallel(args.source, args.reference[0])
    sources, references = zip(*pairs, strict=True)
    more = [_aligned(args.reference[0], file) for file in args.reference[1:]]
    checked_with_more(references, references, more)
    translators = {run: translator_of(run, args) for run in args.run}
    runs = {run: _translate(args, run, each, sources) for run, each in translators.items()}
    systems = runs | files  # name -> (hypotheses, settings)
    hypotheses = {name: lines for name, (lines, _) in systems.items()}
    if args.output:
        lines = (line.replace("\n", " ") for line in hypotheses[args.run[0]])  # one per source
        text = "".join(f"{line}\n" for line in lines)
        write_new_file(args.output, text)
    options = {
        "tokenize": args.tokenize,
        "lowercase": args.lowercase,
        "error_rates": args.error_rate,
        "more_references": more,
    }
    if len(systems) == 1:
        [only] = hypotheses.values()
        results = [evaluation.evaluate(only, references, **options)]
    else:
        results = evaluation.compare(hypotheses, references, **options)
    for scores, (_, settings) in zip(results, systems.values(), strict=True):
        print(json.dumps({**scores, **settings}, ensure_ascii=False))
    _say_end(args, sources)


def _aligned(first, file):
    """Returns the lines of a file that has as many as the first."""
    from keras_transformer import data

    return [line for _, line in data.read_parallel(first, file)]


def _say_end(args, sources):
    from keras_transformer.cli.ends import say_next, verb
    from keras_transformer.progress import say

    sys.stdout.flush()
    if args.output:
        say(f"wrote the translations to {args.output}")
    if args.run:
        first = next((text for text in sources if text.strip()), "A sentence")
        say_next({"Look at one": verb("show", args.run[0], first)})


def _translate(args, run, translator, sources):
    """Returns a run's translations, and the settings that made them."""
    search = {"beam_size": args.beam_size, "length_penalty": args.length_penalty}
    lines = translator.translate(sources, *search.values(), args.batch_size)
    return lines, {"run": run, "ensemble": args.ensemble, "weights": translator.weights, **search}


def _check(args):
    if args.error_rate and len(args.reference) > 1:
        raise ValueError("--error-rate is defined for one --reference: give one, or leave it out.")
    names = args.run + args.hypotheses
    if not names:
        raise ValueError("Nothing to evaluate: name a RUN, or files by --hypotheses.")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise ValueError(
            f"{twice[0]} is given twice: to compare two searches or weights of one run, write the "
            "translations of each to a file and give both by --hypotheses."
        )
    if args.run and not args.source:
        raise ValueError("A run needs something to translate: give --source FILE.")
    if not args.run:
        refuse_ignored(args, ("source", "batch_size", *SEARCH, *MODEL), "a RUN that translates")
    for option in ("output", "ensemble"):
        if getattr(args, option) and len(args.run) != 1:
            raise ValueError(f"--{option} goes with one RUN, got {len(args.run)} of them.")
