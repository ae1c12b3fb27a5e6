"""Options that several recipes have."""

import argparse
import contextlib

import keras_transformer as kt
from keras_transformer.cli import positive


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--precision`, for `kt.runs.set_precision`."""
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="bfloat16 is faster on GPUs, and on CPUs that multiply in it (AVX-512 BF16, AMX)",
    )


def add_devices(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Adds the option `--devices`, for `share_batches`; `note` is added to its help."""
    parser.add_argument(
        "--devices",
        default="all",
        type=lambda text: text if text == "all" else positive(text),
        metavar="N",
        help="how many share each batch; by default all that the backend sees. What is learned "
        f"does not depend on it{note}",
    )


def share_batches(
    args: argparse.Namespace, accumulate: int = 1
) -> tuple[int, contextlib.AbstractContextManager]:
    """Returns the number of devices, and the context in which to make and compile a model."""
    wanted = None if args.devices == "all" else args.devices
    devices, scope = kt.runs.share_batches(wanted, accumulate)
    if devices > 1:
        kt.progress.say(f"{devices} devices share each batch")
    return devices, scope


def require_whole_validations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program unless `--updates` is a multiple of `--validate-every`.

    A checkpoint is written at each validation, so the updates after the last one would be lost.
    """
    if args.updates % args.validate_every or args.updates < 1:
        parser.error(
            f"--updates {args.updates} is no multiple of --validate-every {args.validate_every}"
        )
