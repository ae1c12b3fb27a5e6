"""Make a run of a trained model of Marian or OPUS-MT.

  keras-transformer import opus-mt-en-fr --run-dir runs/en-fr
  echo "A man rides a horse ." | keras-transformer translate runs/en-fr --length-penalty average

FOLDER is a model of Hugging Face (config.json, model.safetensors, source.spm, target.spm,
vocab.json), or an OPUS-MT distribution (decoder.yml, a model .npz, a vocabulary .yml, source.spm,
target.spm). Nothing in it is executed, and nothing changes. The run is like any other: `translate`,
`evaluate`, `score`, `show`, `quantize`, `export` and `train --init-from` read it."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("folder", metavar="FOLDER", help="the model's folder")
    parser.add_argument("--run-dir", required=True, metavar="RUN", help="folder of the new run")
    parser.add_argument(
        "--positions",
        choices=("sinusoidal", "learned"),
        help="sinusoidal: no limit of length; learned: a table of 1,024 positions, which training "
        "may change; by default sinusoidal for Hugging Face, and learned for OPUS-MT, whose own "
        "sinusoids are in no formula of this package",
    )


def run(args: argparse.Namespace) -> None:
    """Writes the run, and says how to use it."""
    from keras_transformer.cli.ends import say_next, verb
    from keras_transformer.interop.marian import language_tags
    from keras_transformer.progress import say
    from keras_transformer.runs.importing import import_model
    from keras_transformer.runs.loading import load_tokenizers

    run = import_model(args.folder, args.run_dir, args.positions)
    source, target = load_tokenizers(run.path)
    say(
        f"wrote {args.run_dir}: vocabularies of {source.vocabulary_size:,} and "
        f"{target.vocabulary_size:,} pieces"
    )
    tags = language_tags(source)
    if tags:
        named = ", ".join(tags[:8]) + (", ..." if len(tags) > 8 else "")
        say(
            f"{len(tags)} tags name a target language. Begin each source with one: {named}, then a "
            "space."
        )
    average = "--length-penalty average"
    say_next(
        {
            "Translate": verb("translate", args.run_dir, rest=f"{average} < source.txt"),
            "Evaluate": verb("evaluate", args.run_dir, rest=f"{average} --source F --reference F"),
            "Fine-tune": verb(
                "train",
                rest=f"--init-from {args.run_dir} --train-tsv F --hold-out 100 --run-dir NEW",
            ),
        }
    )
