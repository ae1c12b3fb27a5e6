"""Make a smaller copy of a run: its matrices in 8 or 4 bits.

  keras-transformer quantize runs/en-de --to int8 --run-dir runs/en-de-int8

The copy is a run like any other: `translate`, `evaluate`, `score`, `show` and `export` read it. It
cannot be trained on. Compare its BLEU with that of RUN before you use it, above all in int4.

CTranslate2 has its own 8 bits, which are faster on CPUs: `export --quantization int8` of RUN."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--to", required=True, choices=("int8", "int4"), help="type of the numbers")
    parser.add_argument("--run-dir", required=True, metavar="NEW", help="folder of the new run")
    parser.add_argument(
        "--weights",
        metavar="WHICH",
        help="average, best, last, or an update; by default the average, or the last if there is "
        "none or the last were better in validation",
    )


def run(args: argparse.Namespace) -> None:
    """Writes the copy, and says how much smaller it is."""
    from keras_transformer.cli.ends import say_next, verb
    from keras_transformer.progress import say
    from keras_transformer.runs.run_directory import RunDirectory
    from keras_transformer.runs.writing import quantize

    new = quantize(args.run, args.to, args.run_dir, args.weights)
    old = RunDirectory.open(args.run)
    weights = new.settings["quantized_weights"]
    before = old.weights_file(weights).stat().st_size
    after = (new.path / "averaged.npz").stat().st_size
    say(
        f"wrote {args.run_dir} (weights: {weights}): {after / 1e6:,.1f} MB in {args.to}, "
        f"{after / before:.0%} of {before / 1e6:,.1f} MB"
    )
    rest = "--source F --reference F"
    say_next(
        {
            "Evaluate": verb("evaluate", args.run_dir, rest=rest),
            "As before": verb("evaluate", args.run, rest=rest),
        }
    )
