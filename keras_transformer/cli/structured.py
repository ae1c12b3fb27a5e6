"""`translate` for documents of several sentences, and for text with tags and placeholders."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from keras_transformer.cli.options import refuse_ignored

# What belongs to a single sentence, or to a text without tags.
NOT_OF_DOCUMENTS = "prefix", "prefixes", "terminology"
NOT_OF_BOTH = "n_best", "token_scores", "json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of documents and of tags."""
    group = parser.add_argument_group("documents and tags")
    group.add_argument(
        "--split",
        choices=("sentences",),
        help="sentences: each line is a paragraph or a document; its sentences are translated one "
        "by one and joined again",
    )
    group.add_argument(
        "--source-language", metavar="CODE", help="of the source, such as en: how it is split"
    )
    group.add_argument(
        "--tags",
        action="store_true",
        help="take tags (<b>, <br/>) and placeholders ({name}, %%s) out, and put them back beside "
        "the words that belong to those of the source",
    )


def asked(args: argparse.Namespace) -> bool:
    """Whether lines are documents, or have tags."""
    return bool(args.split or args.tags)


def check(args: argparse.Namespace) -> None:
    """Refuses options that do not go together, and a missing package, before a model is loaded."""
    from keras_transformer.decoding.sentences import split_sentences

    if not args.split:
        refuse_ignored(args, ["source_language"], "--split sentences")
    elif not args.source_language:
        raise ValueError("--split sentences needs --source-language CODE, such as en.")
    else:
        split_sentences("", args.source_language)
        _refuse(args, NOT_OF_DOCUMENTS, "--split")
    if asked(args):
        _refuse(args, NOT_OF_BOTH, "--split" if args.split else "--tags")
    if args.tags and args.engine == "ctranslate2":
        raise ValueError(
            "--tags needs the links between words, which ctranslate2 does not give: leave "
            "--engine out."
        )


def _refuse(args, names, beside):
    for name in names:
        if getattr(args, name) != args.default_of(name):
            raise ValueError(f"--{name.replace('_', '-')} does not go with {beside}: leave it out.")


def lines_of(
    translator: Any, args: argparse.Namespace, lines: Sequence[str], content: dict[str, Any]
) -> Iterator[str]:
    """Yields the line of each document: its translation, and its alignment if asked for.

    Args:
        translator: A `Translator`.
        args: The options of `translate`.
        lines: The documents.
        content: More arguments of `Translator.translate`.
    """
    from keras_transformer.decoding import translate_structured
    from keras_transformer.decoding.alignment import pharaoh

    found = translate_structured(
        translator,
        lines,
        split=args.source_language,
        tags=args.tags,
        align=args.alignments,
        layer=args.alignment_layer,
        heads=args.alignment_heads,
        beam_size=args.beam_size,
        length_penalty=args.length_penalty,
        batch_size=args.batch_size,
        **content,
    )
    for text, links in found:
        fields = [text.replace("\n", " "), *([pharaoh(links or [])] if args.alignments else [])]
        yield " ||| ".join(fields)
