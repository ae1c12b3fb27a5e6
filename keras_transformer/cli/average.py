"""Average the weights of a run's checkpoints.

Writes RUN/averaged.npz, which `translate` and `evaluate` then use. The paper reports its results
with the average of the last checkpoints (section 6.1). `train` makes it by itself at its end."""


def add_arguments(parser):
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--last", type=int, metavar="K", help="average the last K checkpoints; all by default"
    )


def run(args):
    from keras_transformer.checkpoints import RunDirectory
    from keras_transformer.cli.ends import command, say_next
    from keras_transformer.progress import say

    run = RunDirectory.open(args.run)
    checkpoints = run.checkpoints()
    if not checkpoints:
        raise ValueError(f"{args.run} has no complete checkpoint: train it first.")
    if args.last is not None and not 1 <= args.last <= len(checkpoints):
        raise ValueError(
            f"--last {args.last}: {args.run} has {len(checkpoints)} checkpoints, so 1 to "
            f"{len(checkpoints)} can be averaged."
        )
    chosen = checkpoints[-(args.last or len(checkpoints)) :]
    run.save_average(chosen)
    updates = ", ".join(str(checkpoint.update) for checkpoint in chosen)
    say(
        f"averaged updates {updates} into {run.path / 'averaged.npz'}, which is now translated with"
    )
    say_next(
        {
            "Evaluate": command(
                "keras-transformer", "evaluate", args.run, rest="--source F --reference F"
            ),
            "The last": command(
                "keras-transformer",
                "evaluate",
                args.run,
                rest="--weights last --source F --reference F",
            ),
        }
    )
