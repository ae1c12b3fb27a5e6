"""The command line: `keras-transformer train | translate | evaluate | score | ...`."""

import argparse
import sys
import textwrap
from collections.abc import Sequence

from keras_transformer import __version__
from keras_transformer.cli.ends import INTERRUPTED, command, program, say_next
from keras_transformer.cli.start_up import without_notices
from keras_transformer.runs.options import positive

__all__ = ["INTERRUPTED", "command", "main", "positive", "program", "say_next", "without_notices"]

DESCRIPTION = """\
Train Transformers on your own parallel text, and translate with them.

  keras-transformer train --train-source a.en --train-target a.de \\
                          --valid-source b.en --valid-target b.de --run-dir runs/en-de
  keras-transformer translate runs/en-de < source.txt > hypotheses.txt
  keras-transformer evaluate runs/en-de --source test.en --reference test.de

`keras-transformer VERB --help` explains each. The backend is Keras': KERAS_BACKEND=tensorflow (the
default), jax or torch."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Paragraphs as written, every default shown, and no name broken at its hyphens."""

    def _split_lines(self, text, width):
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _get_help_string(self, action):
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Imports nothing heavy, so that `--help` is quick."""
    from keras_transformer.cli import (
        average,
        evaluate,
        export,
        import_,
        quantize,
        score,
        serve,
        show,
        train,
        translate,
    )

    parser = argparse.ArgumentParser(
        prog="keras-transformer", description=DESCRIPTION, formatter_class=HelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    modules = (train, translate, evaluate, score, average, import_, quantize, export, show, serve)
    for module in modules:
        name = module.__name__.rpartition(".")[2].rstrip("_")
        summary, _, rest = (module.__doc__ or "").partition("\n\n")
        verb = verbs.add_parser(
            name,
            help=summary[0].lower() + summary[1:].rstrip("."),
            description=f"{summary}\n\n{rest}".strip(),
            formatter_class=HelpFormatter,
        )
        module.add_arguments(verb)
        # `run` is the option RUN.
        verb.set_defaults(command=module.run, default_of=verb.get_default)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status.

    An error that the user can mend is one line on stderr and status 1; bad usage is status 2,
    Ctrl-C 130.
    """
    args = build_parser().parse_args(argv)
    interrupted = INTERRUPTED if args.verb == "train" else "interrupted"
    try:
        with program(f"keras-transformer {args.verb}", interrupted):
            with without_notices():
                import keras  # noqa: F401
            if getattr(args, "compile_cache", False):
                from keras_transformer.runs.cache import keep_compiled

                keep_compiled()
            args.command(args)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    return 0
