"""Translate a source file and score it against a reference: one JSON line.

  keras-transformer evaluate runs/en-de --source test.en --reference test.de

prints BLEU and chrF with their sacreBLEU signatures, the share of exact matches, and the search's
settings. References are scored as they are, against detokenised hypotheses; where the files are
tokenised already (Multi30k, WMT's old sets), pass --tokenize none."""

import json

from keras_transformer.cli.translate import add_search_arguments, load_translator


def add_arguments(parser):
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--source", required=True, metavar="FILE", help="one sentence a line")
    parser.add_argument("--reference", required=True, metavar="FILE", help="one line a source")
    parser.add_argument(
        "--tokenize",
        default="13a",
        metavar="NAME",
        help="sacreBLEU's tokenizer: 13a, none, intl, char, zh, ja-mecab, ko-mecab, ...",
    )
    parser.add_argument("--lowercase", action="store_true", help="ignore case in BLEU")
    parser.add_argument("--output", metavar="FILE", help="also write the hypotheses here")
    add_search_arguments(parser)


def run(args):
    from pathlib import Path

    from keras_transformer import data, evaluation

    if args.output and Path(args.output).exists():
        raise ValueError(f"--output {args.output} exists already: name another file, or remove it.")
    evaluation.bleu(["a"], ["a"], tokenize=args.tokenize)  # fails now, not after translating
    pairs = data.read_parallel(args.source, args.reference)
    translator = load_translator(args)
    hypotheses = translator.translate(
        [source for source, _ in pairs], args.beam_size, args.length_penalty, args.batch_size
    )
    if args.output:
        Path(args.output).write_text("".join(f"{h}\n" for h in hypotheses), encoding="utf-8")
    scores = evaluation.evaluate(
        hypotheses,
        [reference for _, reference in pairs],
        tokenize=args.tokenize,
        lowercase=args.lowercase,
    )
    settings = {
        "run": args.run,
        "ensemble": args.ensemble,
        "weights": translator.weights,
        "beam_size": args.beam_size,
        "length_penalty": args.length_penalty,
    }
    print(json.dumps({**scores, **settings}, ensure_ascii=False))
