"""Average the weights of a run's checkpoints.

Writes RUN/averaged.npz and compares it with the last weights on the validation text, whose ids the
run keeps. `translate`, `evaluate` and the other verbs then use the better of the two, unless
--weights is given. The paper's results come from the average of the last checkpoints (section 6.1).
`train` makes it at its end."""

import argparse

from keras_transformer.cli.options import positive

VALIDATION = "ids/valid.npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--last", type=positive, metavar="K", help="average the last K checkpoints; all by default"
    )


def run(args: argparse.Namespace) -> None:
    """Averages the checkpoints, and compares the average with the last weights."""
    from keras_transformer.cli.ends import say_next, verb
    from keras_transformer.progress import say
    from keras_transformer.runs.run_directory import RunDirectory

    run = RunDirectory.open(args.run)
    checkpoints = run.checkpoints()
    if not checkpoints:
        raise ValueError(f"{args.run} has no complete checkpoint: train it first.")
    if args.last is not None and args.last > len(checkpoints):
        raise ValueError(
            f"--last {args.last}: {args.run} has {len(checkpoints)} checkpoints, so 1 to "
            f"{len(checkpoints)} can be averaged."
        )
    chosen = checkpoints[-(args.last or len(checkpoints)) :]
    compared = _validation(run)
    run.save_average(chosen, *compared)
    updates = ", ".join(str(checkpoint.update) for checkpoint in chosen)
    say(f"averaged updates {updates} into {run.path / 'averaged.npz'}")
    if not compared:
        say(
            f"{run.path / VALIDATION} is missing, so the average was not compared with the last "
            "weights. It is the default of `translate` and the other verbs."
        )
    say_next(
        {
            "Evaluate": verb("evaluate", args.run, rest="--source F --reference F"),
            "The last": verb("evaluate", args.run, rest="--weights last --source F --reference F"),
        }
    )


def _validation(run):
    """Returns the model and the validation data for `save_average`; () without them."""
    from keras_transformer import data, losses, metrics

    encoded = data.read_encoded(run.path / VALIDATION)
    if encoded is None:
        return ()
    model = run.load_model("last")
    model.compile(loss=losses.SmoothedCrossentropy(), weighted_metrics=[metrics.NatsPerToken()])
    plan = data.BatchPlan(encoded, max(4096, encoded.max_length))
    return model, plan.evaluation(encoded)
