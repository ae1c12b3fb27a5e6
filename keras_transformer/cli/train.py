"""Train a Transformer on parallel text.

  keras-transformer train --train-source a.en --train-target a.de \\
                          --valid-source b.en --valid-target b.de --run-dir runs/en-de
  keras-transformer train --train-tsv pairs.tsv --hold-out 500 --run-dir runs/mine
  keras-transformer train --init-from runs/en-de --train-tsv ours.tsv --hold-out 100 \\
                          --run-dir runs/ours

The run directory gets all that is needed to translate, resume and reproduce. The same command
continues at the last checkpoint, even if the text has moved; --updates may be raised. Unless given,
vocabulary, updates and warm-up follow from the size of the text, and are printed first. Text may
be packed (.gz, .zst). Lengths and budgets are in tokens (sub-words), progress in updates, losses in
nats per target token."""

import argparse
import dataclasses
from typing import Any

from keras_transformer.cli.options import parsed
from keras_transformer.runs.settings import OPTIONS, TrainSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option for each field of `TrainSettings`."""
    defaults = {field.name: field.default for field in dataclasses.fields(TrainSettings)}
    groups: dict[str, Any] = {}
    for name, known in OPTIONS.items():
        if known.group not in groups:
            groups[known.group] = parser.add_argument_group(known.group)
        flag, text = f"--{name.replace('_', '-')}", known.help
        if known.unless_init_from:
            text += f" (default: {known.unless_init_from})"
        if known.parse is None:
            groups[known.group].add_argument(
                flag, action="store_true", default=defaults[name], help=text
            )
        elif defaults[name] is dataclasses.MISSING:
            groups[known.group].add_argument(flag, required=True, metavar=known.metavar, help=text)
        else:
            groups[known.group].add_argument(
                flag,
                type=known.parse if known.parse in (str, int, float) else parsed(known.parse),
                default=defaults[name],
                choices=known.choices or None,
                metavar=known.metavar,
                nargs="+" if known.many else None,
                help=text,
            )


def run(args: argparse.Namespace) -> None:
    """Trains, or with --dry-run says what would be trained."""
    from keras_transformer.cli.ends import command, say_next, verb
    from keras_transformer.runs import training

    settings = TrainSettings(**{name: getattr(args, name) for name in OPTIONS})
    if settings.dry_run:
        print(training.dry_run(settings))
        return
    run = training.train(settings)
    if not run.writes:  # one of several processes has said it
        return
    say_next(
        {
            "Translate": verb("translate", args.run_dir, rest="< source.txt"),
            "Evaluate": verb("evaluate", args.run_dir, rest="--source F --reference F"),
            "Look at one": verb("show", args.run_dir, rest='"A sentence"'),
            "TensorBoard": command("tensorboard", "--logdir", args.run_dir),
        }
    )
