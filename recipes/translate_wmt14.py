"""The paper's base and big models on WMT14, English to German or French (sections 5 and 6.1).

    python recipes/translate_wmt14.py --data FOLDER --download          # base, English-German
    python recipes/translate_wmt14.py --data FOLDER --model big --pair en-fr
    python recipes/translate_wmt14.py --data FOLDER --model tiny --updates 2500   # a first look

Needs the `wmt` extra (`pip install -c constraints.txt '.[wmt]'`). Use `--precision bfloat16` on an
accelerator; all accelerators of the machine share each batch.

As in the paper: sizes, dropout, schedule, objective, 25,000 tokens a side and update, 100,000 or
300,000 updates, the average of the last 5 or 20 checkpoints, beam 4, alpha 0.6, newstest2013 for
development and newstest2014 for the result. Different from the paper: the vocabulary is lossless
byte-pair pieces of the raw text; pairs over 256 tokens are dropped; English-French is the whole
distribution of about 41 million pairs (the paper has 36 million, and does not say which). Batches
count positions with their padding, so 25,000 positions hold fewer tokens. Each set gets two scores:
sacreBLEU's, to compare with other work, and that of the paper's script, on Moses tokens with
compounds split.

Space: a checkpoint takes 0.8 GB (base) or 2.6 GB (big) on disk, and the last 5 or 20 are kept. The
ids of English-French take about 10 GB of memory, and 15 GB while they are made.

Time and cost: not run here; the following is arithmetic. A target token with its source token costs
3 (6 (24 D^2 + 8 D F + 12 D S) + 2 D V) operations at S tokens a side: 381 million (base) or 1,291
million (big) for S = 30 and V = 37,000. (XLA counts 0.5 % more for base.) With 25,000 tokens per
update that makes 9.5e17 and 9.7e18 in all, and

    hours = operations / (accelerators x peak x utilisation x 3600)

Assume a utilisation of 40 % of an A100's published bfloat16 peak of 312e12 a second: 2.1 hours
(base) or 22 hours (big) on one, 16 minutes or 2.7 hours on eight that lose nothing; at an assumed 2
dollars an hour each, 4 or 43 dollars. The paper's 12 hours and 3.5 days on eight P100 are 29 % and
42 % of 9.5e12 by the same count. Measured: one CPU core (AVX-512) runs the forward and backward
pass of base at 270 target tokens a second, 65 % of its rate at multiplying large matrices.
"""

import argparse
import itertools
import sys
from pathlib import Path

import wmt14_data
from downloads import download
from wmt14_bleu import compound_split_bleu

import keras_transformer as kt
from keras_transformer.cli import INTERRUPTED, command, program, say_next, without_notices

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options

# Updates, updates between checkpoints, and how many checkpoints are averaged. The paper saved every
# 10 minutes: 1,500 of its updates of 0.4 s (base), 600 of 1 s (big). 1,250 divides 100,000.
LENGTH = {"tiny": (100_000, 1250, 5), "base": (100_000, 1250, 5), "big": (300_000, 600, 20)}
# Pieces, and every how many pairs one is read to find them: about 9 million lines for either pair.
VOCABULARY = {"en-de": (37_000, 1), "en-fr": (32_000, 9)}
MAX_LENGTH = 256  # tokens a side; the paper names no limit, tensor2tensor's was this one
ROWS = 8  # the rows of a batch are a multiple of it: 1, 2, 4 and 8 devices need no more


@program("translate_wmt14", INTERRUPTED)
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pair", default="en-de", choices=VOCABULARY)
    parser.add_argument("--model", default="base", choices=LENGTH)
    parser.add_argument("--data", type=Path, required=True, help="folder with the archives")
    parser.add_argument(
        "--download", action="store_true", help="fetch what it lacks; 2 GB, en-fr 7 GB"
    )
    parser.add_argument("--run-dir", default=None, help="runs/wmt14-PAIR-MODEL by default")
    parser.add_argument("--tokens-per-batch", type=int, default=25_000, help="on either side")
    parser.add_argument(
        "--accumulate",
        type=int,
        default=1,
        help="batches of an update: --tokens-per-batch 6250 --accumulate 4 is the paper's update "
        "in a quarter of the memory",
    )
    options.add_precision(parser)
    options.add_devices(parser, "; on TensorFlow --accumulate needs one device")
    parser.add_argument("--updates", type=int, default=None, help="base 100,000, big 300,000")
    parser.add_argument("--validate-every", type=int, default=None, help="base 1,250, big 600")
    parser.add_argument("--vocabulary-size", type=int, default=None, help="37,000, en-fr 32,000")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    target = args.pair.removeprefix("en-")
    pieces, every_nth = VOCABULARY[args.pair]
    updates, every, averaged = LENGTH[args.model]
    args.run_dir = args.run_dir or f"runs/wmt14-{args.pair}-{args.model}"
    args.updates = args.updates or updates
    args.validate_every = args.validate_every or every
    args.vocabulary_size = args.vocabulary_size or pieces
    options.require_whole_validations(parser, args)

    # The archives, and all that would otherwise fail after days of training.
    archives = wmt14_data.archives(args.data, target)
    missing = [url for url, path in archives.items() if not path.exists()]
    if missing and not args.download:
        sys.exit(  # several lines, because it lists the URLs
            f"{args.data} lacks {len(missing)} of the {len(archives)} archives of {args.pair}: "
            "fetch them into it, or give --download.\n" + "\n".join(missing)
        )
    for url in missing:
        download(url, archives[url])
    valid, test = (wmt14_data.newstest(args.data, target, year) for year in (2013, 2014))
    compound_split_bleu(["a"], ["a"], target)
    devices, scope = options.share_batches(args, args.accumulate)

    # The run directory: made, or resumed from its last checkpoint.
    sizes = {path.name: path.stat().st_size for path in archives.values()}
    settings = {"recipe": "wmt14", **vars(args), "archives": sizes}
    changeable = ("updates", "data", "download", "devices", "run_dir")
    with kt.RunDirectory.start(args.run_dir, settings, changeable) as run:
        # Text -> ids, once; both in the run directory.
        text = wmt14_data.TrainingText(args.data, target)
        vocabulary = run.path / "tokenizer.model"
        if not vocabulary.exists():
            print(f"training a vocabulary of {args.vocabulary_size:,} pieces ...", flush=True)
            sample = itertools.islice(text, 0, None, every_nth)
            kt.text.train_tokenizer(sample, args.vocabulary_size).save(vocabulary)
        tokenizer = kt.text.Tokenizer.load(vocabulary)
        cache = run.path / "ids" / "train.npz"
        encoded = kt.data.encode_pairs(text, tokenizer, max_length=MAX_LENGTH, cache=cache)
        print(f"dropped {encoded.dropped_empty:,} empty and {encoded.dropped_long:,} long pairs")
        plan = kt.data.BatchPlan(
            encoded,
            args.tokens_per_batch,
            seed=args.seed,
            accumulate=args.accumulate,
            rows_multiple=ROWS,
            devices=devices,
        )
        print(f"{plan.summary()}, {devices} device(s)")

        # The model, the paper's objective and optimizer (sections 5.3 and 5.4).
        kt.runs.set_precision(args.precision)
        keras.utils.set_random_seed(args.seed)
        with scope:
            model = kt.models.Transformer.from_preset(
                args.model, tokenizer.vocabulary_size, dropout=dropout(args.model, args.pair)
            )
            optimizer = kt.optimizers.PaperAdam(
                d_model=model.target_embedding.d_model,
                warmup_steps=4000,
                # Keras takes None for no accumulation, or at least 2.
                gradient_accumulation_steps=args.accumulate if args.accumulate > 1 else None,
            )
            objective.compile_for_tokens(model, optimizer, devices=devices)
        cache = run.path / "ids" / "valid.npz"  # `keras-transformer average` compares with it
        validation = plan.evaluation(
            kt.data.encode_pairs(valid, tokenizer, max_length=MAX_LENGTH, cache=cache)
        )
        translator = kt.Translator(model, tokenizer)
        scored = kt.data.kept_pairs(valid, tokenizer, max_length=MAX_LENGTH)
        every = max(1, args.updates // args.validate_every // 20)
        probes = kt.callbacks.Probes(scored[:2], tokenizer)
        run.fit(
            model,
            plan,
            updates=args.updates,
            validate_every=args.validate_every,
            validation=validation,
            average=averaged,
            keep_checkpoints=averaged,
            callbacks=[
                kt.runs.translation_score(translator, scored, every=every, batch_size=256),
                kt.callbacks.TensorBoard(args.run_dir, probes=probes),
            ],
        )

    # Beam 4, alpha 0.6, at most source length + 50 (section 6.1): the translator's defaults.
    translator = kt.load_translator(args.run_dir)
    for year, pairs in ((2013, valid), (2014, test)):
        sources, references = zip(*pairs, strict=True)
        hypotheses = translator.translate(sources, batch_size=256)
        for bleu in (
            kt.evaluation.bleu(hypotheses, references),
            compound_split_bleu(hypotheses, references, target),
        ):
            print(f"newstest{year} BLEU {bleu.value:.2f}  {bleu.signature}")
    run = args.run_dir
    say_next(
        {
            "Translate": command("keras-transformer", "translate", run, rest="< source.txt"),
            "Export": command(
                "keras-transformer", "export", run, rest="--format ctranslate2 --output FOLDER"
            ),
            "TensorBoard": command("tensorboard", "--logdir", run),
        }
    )


def dropout(model, pair):
    """Returns the paper's rate: 0.1, or 0.3 for big (Table 3) unless it is French (sec. 6.1)."""
    return 0.3 if model == "big" and pair != "en-fr" else 0.1


if __name__ == "__main__":
    main()
