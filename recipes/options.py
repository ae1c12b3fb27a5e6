"""Options that several recipes have."""

import argparse


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
