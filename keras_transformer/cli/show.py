"""Look at one sentence in the model: attention, beam tree, probabilities, shapes.

  keras-transformer show runs/en-de "A man rides a horse ."
  keras-transformer show runs/en-de "A man rides a horse ." --target "Ein Mann reitet ein Pferd ."

Writes a new folder with a page for any browser, which needs no network, and its pictures as PNG:
the tokens, what each layer and head attends to (over pieces or words), the alignment, the decoding
step by step, the beam search as a tree, and the shape of every tensor."""

import argparse
import sys
from pathlib import Path

from keras_transformer.cli.options import SEARCH, add_beam_arguments, named, refuse_ignored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("sentence", help="the source sentence, in quotes")
    parser.add_argument("--target", metavar="TEXT", help="look at this translation; no search")
    parser.add_argument(
        "--output", metavar="FOLDER", help="a new folder; by default RUN/show/1, 2, ..."
    )
    add_beam_arguments(parser)
    parser.add_argument(
        "--weights", metavar="WHICH", help="average, best, last, or an update; as in `translate`"
    )


def run(args: argparse.Namespace) -> None:
    """Explains one sentence, and writes the page and its pictures."""
    from keras_transformer import visualization
    from keras_transformer.files import refuse_existing
    from keras_transformer.progress import say
    from keras_transformer.runs.loading import load_translator

    if args.target is not None:
        refuse_ignored(args, SEARCH, "a search, and --target has none")
    if args.output is not None:
        refuse_existing(args.output)  # before the work
    translator = load_translator(args.run, args.weights)
    folder = Path(args.output) if args.output is not None else _next(Path(args.run) / "show")
    refuse_existing(folder)
    found = visualization.explain(
        translator, args.sentence, args.target, args.beam_size, args.length_penalty
    )
    print(found.target)
    sys.stdout.flush()
    names = visualization.write(found, folder)
    say(
        f"\n{folder}: {len(names)} files, {names[0]} and {len(names) - 1} pictures "
        f"(weights: {named(translator.weights)})\n"
        f"Open:  {(folder / 'index.html').absolute().as_uri()}"
    )


def _next(folder):
    """Returns the first number that no folder has."""
    folder.mkdir(exist_ok=True)
    taken = [int(each.name) for each in folder.iterdir() if each.name.isdigit()]
    return folder / str(max(taken, default=0) + 1)
