"""Korean spelling to pronunciation: the words of SIGMORPHON 2021, task 1, medium, to phonemes.

    python recipes/pronounce_korean.py                    # downloads the words, 0.3 MB
    python recipes/pronounce_korean.py --data FOLDER      # train.tsv, dev.tsv, test.tsv
    python recipes/pronounce_korean.py --members 5        # five seeds, and all of them as one
    python recipes/pronounce_korean.py --words 값이 닭     # what the trained members say

A syllable is split into its first, middle and last letters, which differ from each other (각 is
ᄀ ᅡ ᆨ). So a new syllable is read from letters that are well known.
"""

import argparse
import sys
import unicodedata
from pathlib import Path

import numpy as np
from downloads import download_missing

import keras_transformer as kt
from keras_transformer.cli import INTERRUPTED, command, program, say_next, without_notices

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options

HOME = "https://raw.githubusercontent.com/sigmorphon/2021-task1/main/data/medium"


@program("pronounce_korean", INTERRUPTED)
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with the words; downloaded unless given")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/pronounce-korean"))
    parser.add_argument("--members", type=int, default=1, help="models, of seeds 1, 2, ...")
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--validate-every", type=int, default=250, help="in updates")
    options.add_precision(parser)
    options.add_devices(parser)
    parser.add_argument("--words", nargs="+", help="pronounce these, train nothing")
    args = parser.parse_args()
    runs = [args.run_dir / f"seed-{seed}" for seed in range(1, args.members + 1)]
    if args.words:
        for word, phonemes in zip(args.words, pronounce(runs, args.words), strict=True):
            print(f"{word}\t{phonemes}")
        return

    folder = args.data or download(Path("runs/data/g2p_kor"))
    train, dev, test = (read(folder / f"{name}.tsv") for name in ("train", "dev", "test"))
    for seed, run_dir in enumerate(runs, start=1):
        fit(run_dir, seed, args, train, dev)

    # Each model by itself, and all as an ensemble: the mean of their probabilities.
    heads = ("dev: words", "phonemes", "test: words", "phonemes")
    print("\n% wrong   " + "".join(f"{head:>13}" for head in heads))
    systems = {run_dir.name: [run_dir] for run_dir in runs}
    if len(runs) > 1:
        systems["ensemble"] = runs
    rows = {}
    for name, members in systems.items():
        translator = kt.load_translator(members)
        rows[name] = [*error_rates(translator, dev), *error_rates(translator, test)]
        print(f"{name:<10}{row(rows[name])}")
    if len(runs) > 1:
        alone = np.array([rows[run_dir.name] for run_dir in runs])
        print(f"{'mean':<10}{row(alone.mean(axis=0))}")
        print(f"{'deviation':<10}{row(alone.std(axis=0, ddof=1))}")
    members = ("--run-dir", args.run_dir, "--members", args.members)
    say_next(
        {
            "Pronounce": command("python", sys.argv[0], *members, rest="--words 값이 닭"),
            "TensorBoard": command("tensorboard", "--logdir", args.run_dir),
        }
    )


def letters(word):
    """구름 -> ᄀ ᅮ ᄅ ᅳ ᆷ, as a text of five tokens."""
    return " ".join(unicodedata.normalize("NFD", word))


def read(path):
    """Reads (letters, phonemes) of every word."""
    return [(letters(word), phonemes) for word, phonemes in kt.data.read_tsv(path)]


def fit(run_dir, seed, args, train, dev):
    """Trains one model, or continues its training."""
    tokens = {token for pair in train for text in pair for token in text.split()}
    tokenizer = kt.text.train_tokenizer(train, len(tokens) + 4, model_type="word")
    encoded = kt.data.encode_pairs(train, tokenizer)
    devices, scope = options.share_batches(args)
    plan = kt.data.BatchPlan(encoded, tokens_per_batch=2048, seed=seed, devices=devices)
    print(plan.summary())

    kt.runs.set_precision(args.precision)
    keras.utils.set_random_seed(seed)
    with scope:
        model = kt.models.Transformer.from_preset(
            "tiny", tokenizer.vocabulary_size, d_ff=512, norm="pre"
        )
        schedule = kt.optimizers.schedules.PaperSchedule.with_peak(0.002, warmup_steps=500)
        optimizer = kt.optimizers.PaperAdam(learning_rate=schedule)
        objective.compile_for_tokens(model, optimizer, devices=devices)

    settings = {
        "recipe": "pronounce_korean",
        "seed": seed,
        "updates": args.updates,
        "validate_every": args.validate_every,
        "precision": args.precision,
        "text_sha256": kt.data.text_sha256(train, dev),
    }
    with kt.RunDirectory.start(run_dir, settings, changeable=("updates",)) as run:
        tokenizer.save(run.path / "tokenizer.model")
        cache = run.path / "ids" / "valid.npz"  # `keras-transformer average` compares with it
        validation = plan.evaluation(kt.data.encode_pairs(dev, tokenizer, cache=cache))
        probes = kt.callbacks.Probes(dev[:2], tokenizer)
        run.fit(
            model,
            plan,
            updates=args.updates,
            validate_every=args.validate_every,
            validation=validation,
            average=4,
            keep_checkpoints=4,
            callbacks=[kt.callbacks.TensorBoard(str(run_dir), probes=probes)],
        )


def pronounce(runs, words):
    """Returns the phonemes of each word, by the models of these runs as an ensemble."""
    return kt.load_translator(runs).translate([letters(word) for word in words], beam_size=5)


def error_rates(translator, pairs):
    """Returns the shares of wrong words and wrong phonemes, in percent."""
    sources, references = zip(*pairs, strict=True)
    hypotheses = translator.translate(sources, beam_size=5, batch_size=256)
    return (
        kt.evaluation.line_error_rate(hypotheses, references),
        kt.evaluation.token_error_rate(hypotheses, references),
    )


def row(figures):
    return "".join(f"{figure:>13.2f}" for figure in figures)


def download(folder):
    """Downloads the three lists of words that do not exist yet."""
    names = ("train", "dev", "test")
    download_missing({folder / f"{name}.tsv": f"{HOME}/kor_{name}.tsv" for name in names})
    return folder


if __name__ == "__main__":
    main()
