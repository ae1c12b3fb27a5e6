"""Write a trained model for engines that do not need this package.

  keras-transformer export runs/en-de --format ctranslate2 --quantization int8 --output exports/ct2
  keras-transformer export runs/en-de --format saved_model --output exports/en-de/1
  keras-transformer export runs/en-de --format onnx --output exports/en-de-onnx

ctranslate2: for the C++ engine CTranslate2, fast on CPUs, with 8-bit weights if you like; its
search takes its options at each call. saved_model: strings in, strings out, for TensorFlow and
TensorFlow Serving; the search is inside, with the beam size, the length penalty and what a
translation must hold, as given here. onnx, litert: for ONNX Runtime and LiteRT, with a script that
translates greedily.

FOLDER/README.txt then says how to translate with it. An existing FOLDER is never overwritten."""

import argparse
from typing import Any

from keras_transformer.cli.ends import command, say_next
from keras_transformer.cli.options import (
    CONSTRAINTS,
    add_constraint_arguments,
    add_model_arguments,
    named,
    penalty,
    positive,
    refuse_ignored,
    translator_of,
)
from keras_transformer.progress import say

# The options that only one format has.
FORMATS = {
    "ctranslate2": ["quantization"],
    "saved_model": ["beam_size", "length_penalty"],
    "onnx": [],
    "litert": [],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument(
        "--quantization",
        metavar="TYPE",
        help="ctranslate2: the type of the weights, such as int8 or float16; float32 by default",
    )
    parser.add_argument(
        "--beam-size", type=positive, help="saved_model: 1 is greedy search; 4 by default"
    )
    parser.add_argument(
        "--length-penalty",
        type=penalty,
        metavar="ALPHA",
        help="saved_model: alpha of the GNMT penalty, or 'average', as in translate; 0.6 by "
        "default",
    )
    add_constraint_arguments(parser)
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the model in the format that was asked for."""
    from keras_transformer import interop
    from keras_transformer.files import refuse_existing

    write: dict[str, Any] = {
        "ctranslate2": interop.to_ctranslate2,
        "saved_model": interop.to_saved_model,
        "onnx": interop.to_onnx,
        "litert": interop.to_litert,
    }
    names = FORMATS[args.format]
    options: dict[str, Any] = {}
    for name in ("quantization", "beam_size", "length_penalty"):
        if (value := getattr(args, name)) is None:
            continue
        if name not in names:
            option = name.replace("_", "-")
            raise ValueError(f"--format {args.format} has no --{option}: leave it out.")
        options[name] = value
    held = ("prefix", *CONSTRAINTS)
    if args.format == "saved_model":
        options |= {name: getattr(args, name) for name in held}
    else:
        refuse_ignored(args, held, "--format saved_model")
    if args.quantization not in (None, *interop.QUANTIZATIONS):
        raise ValueError(
            f"--quantization {args.quantization}: expected one of "
            f"{', '.join(interop.QUANTIZATIONS)}. Choose one."
        )
    refuse_existing(args.output)
    translator = translator_of(args.run, args)
    write[args.format](translator, args.output, **options)
    say(f"wrote {args.output} (weights: {named(translator.weights)})")
    say_next({"How to use it": command("cat", f"{args.output}/README.txt")})
