"""What several recipes share: two options, the cosine schedule, and the objective of tokens."""

import argparse

import keras

import keras_transformer as kt


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--precision`, for `kt.runs.set_precision`."""
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="bfloat16 is faster on GPUs, and on CPUs that multiply in it (AVX-512 BF16, AMX)",
    )


def require_whole_validations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program unless `--updates` is a multiple of `--validate-every`.

    A checkpoint is written at each validation, so the updates after the last one would be lost.
    """
    if args.updates % args.validate_every or args.updates < 1:
        parser.error(
            f"--updates {args.updates} is no multiple of --validate-every {args.validate_every}"
        )


def cosine(
    updates: int, peak: float, warmup: int, alpha: float = 0.0
) -> keras.optimizers.schedules.CosineDecay:
    """Returns a rate that rises to `peak` for `warmup` updates, and falls to `alpha` times that."""
    return keras.optimizers.schedules.CosineDecay(
        0.0, updates - warmup, alpha=alpha, warmup_target=peak, warmup_steps=warmup
    )


def compile_for_tokens(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    label_smoothing: float = 0.1,
    ignore_class: int | None = 0,
) -> None:
    """Compiles a model of logits: smoothed cross-entropy, and nats and accuracy per token."""
    model.compile(
        optimizer=optimizer,
        loss=kt.losses.SmoothedCrossentropy(label_smoothing, ignore_class=ignore_class),
        weighted_metrics=[
            kt.metrics.NatsPerToken(ignore_class=ignore_class),
            kt.metrics.TokenAccuracy(ignore_class=ignore_class),
        ],
    )
