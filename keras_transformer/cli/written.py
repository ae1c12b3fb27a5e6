"""How `translate` writes what it found: plain text, n-best lists, or lines of JSON."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from keras_transformer.cli.options import count, refuse_ignored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of what comes with a translation."""
    group = parser.add_argument_group("what comes with a translation, after |||")
    group.add_argument(
        "--alignments",
        action="store_true",
        help="which words belong together, source-translation, counted from 0: 0-0 1-2",
    )
    group.add_argument(
        "--alignment-layer",
        type=int,
        default=-1,
        metavar="L",
        help="of the decoder, whose cross-attention is read; -1 is the last",
    )
    group.add_argument(
        "--alignment-heads",
        type=count,
        nargs="+",
        metavar="H",
        help="the heads to read, from 0; by default the mean of all",
    )
    group.add_argument(
        "--token-scores",
        action="store_true",
        help="each token:log-probability, separated by spaces, the end last",
    )
    group.add_argument(
        "--json", action="store_true", help="one JSON object for each line, with all of these"
    )


def check(args: argparse.Namespace) -> None:
    """Refuses options that have no effect beside the others."""
    if not (args.alignments or args.json or args.tags):
        needed = "--alignments, --json or --tags"
        refuse_ignored(args, ("alignment_layer", "alignment_heads"), needed)


def lines_of(
    translator: Any,
    args: argparse.Namespace,
    sources: Sequence[str],
    found: Sequence[Sequence[Any]],
    first: int,
) -> Iterator[str]:
    """Yields the lines that say what was found for each source.

    Args:
        translator: What found it.
        args: The options of `add_arguments`, and n_best.
        sources: The texts.
        found: The hypotheses of each.
        first: The number of the first source.
    """
    pairs = [
        (source, each.ids)
        for source, hypotheses in zip(sources, found, strict=True)
        for each in hypotheses
    ]
    scores = links = None
    if args.token_scores or args.json:
        scores = iter(translator.token_log_probabilities(pairs, args.batch_size))
    if args.alignments or args.json:
        chosen = {"layer": args.alignment_layer, "heads": args.alignment_heads}
        links = iter(translator.align(pairs, args.batch_size, **chosen))
    for number, (source, hypotheses) in enumerate(zip(sources, found, strict=True), start=first):
        entries = [(each, scores and next(scores), links and next(links)) for each in hypotheses]
        if args.json:
            yield _json(translator, number, source, entries)
        else:
            # One line in, one line out, also where the options allow no translation.
            none = [""] if args.n_best == 1 else []
            yield from [_line(translator, args, number, *each) for each in entries] or none


def _line(translator, args, number, hypothesis, scores, links):
    from keras_transformer.decoding.alignment import pharaoh

    fields = [hypothesis.text.replace("\n", " ")]
    if args.n_best > 1:
        fields = [str(number), *fields, f"{hypothesis.score:.6f}"]
    if links is not None:
        fields.append(pharaoh(links))
    if scores is not None:
        fields.append(scored_tokens(translator.target_tokenizer, hypothesis.ids, scores))
    return " ||| ".join(fields)


def _json(translator, number, source, entries):
    """Returns one line: the best hypothesis, and all of them as "n_best"."""
    from keras_transformer.files import to_json

    n_best = []
    for hypothesis, scores, links in entries:
        pieces = _pieces(translator.target_tokenizer, hypothesis.ids)
        n_best.append(
            {
                "text": hypothesis.text,
                "score": round(hypothesis.score, 6),
                "tokens": pieces,
                "token_scores": [round(each, 6) for each in scores],
                "alignments": links,
            }
        )
    best = n_best[0] if n_best else {"text": ""}
    return to_json({"number": number, "source": source, **best, "n_best": n_best})


def scored_tokens(tokenizer: Any, ids: Sequence[int], scores: Sequence[float]) -> str:
    """Returns `token:log-probability` of each token and of the end, separated by spaces."""
    pairs = zip(_pieces(tokenizer, ids), scores, strict=True)
    return " ".join(f"{piece}:{score:.4f}" for piece, score in pairs)


def _pieces(tokenizer, ids):
    return [tokenizer.id_to_piece(id) for id in (*ids, tokenizer.end_id)]
