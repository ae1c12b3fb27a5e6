"""Multi30k (task 1, lower-cased and tokenised), English to German or any pair of its languages.

    python recipes/translate_multi30k.py                  # downloads the text, 4 MB
    python recipes/translate_multi30k.py --data FOLDER    # train.en, train.de, val.*, test2016.*
    python recipes/translate_multi30k.py --source de --target fr
    python recipes/translate_multi30k.py --distilled FILE # also learn from translations by others

English-German, beam 5, score / length, 35.5 million target tokens, the mean of three seeds: 41.49
BLEU on the test text and 41.93 on the validation text, tokenised and lower-cased, with `--precision
bfloat16`: see docs/results.md.
"""

import argparse
from pathlib import Path

from downloads import download_missing

import keras_transformer as kt
from keras_transformer.cli import INTERRUPTED, command, program, say_next, without_notices

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options

HOME = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/tok"


@program("translate_multi30k", INTERRUPTED)
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with the text; downloaded unless given")
    parser.add_argument("--source", default="en", help="language: en, de, fr, cs")
    parser.add_argument("--target", default="de")
    parser.add_argument("--run-dir", default=None, help="runs/multi30k-SOURCE-TARGET by default")
    parser.add_argument("--vocabulary-size", type=int, default=6000)
    parser.add_argument("--updates", type=int, default=9500)
    parser.add_argument("--validate-every", type=int, default=250, help="in updates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--distilled",
        metavar="FILE",
        help="translations of the training sources, such as an ensemble's: trained on as well",
    )
    options.add_precision(parser)
    options.add_devices(parser)
    args = parser.parse_args()
    run_dir = args.run_dir or f"runs/multi30k-{args.source}-{args.target}"

    # Text -> ids, once.
    folder = args.data or download(args.source, args.target, Path("runs/data/multi30k"))
    train, valid, test = (
        kt.data.read_parallel(f"{folder}/{name}.{args.source}", f"{folder}/{name}.{args.target}")
        for name in ("train", "val", "test2016")
    )
    distilled = []
    if args.distilled:
        distilled = kt.data.read_parallel(f"{folder}/train.{args.source}", args.distilled)
    tokenizer = kt.text.train_tokenizer(train, args.vocabulary_size)
    train += distilled
    encoded = kt.data.encode_pairs(train, tokenizer)
    print(kt.data.report(train, encoded, valid))

    # A batch is a pure function of the seed and the update. Each epoch cuts a few words into other
    # pieces (BPE-dropout).
    devices, scope = options.share_batches(args)
    sampling = kt.data.SubwordSampling(encoded, tokenizer, alpha=0.03)
    plan = kt.data.BatchPlan(
        encoded, tokens_per_batch=4096, seed=args.seed, sampling=sampling, devices=devices
    )
    print(plan.summary())

    # The model, the paper's objective, Adam with warm-up.
    kt.runs.set_precision(args.precision)
    keras.utils.set_random_seed(args.seed)
    with scope:
        model = kt.models.Transformer.from_preset(
            "tiny", tokenizer.vocabulary_size, d_ff=512, norm="pre", dropout=0.2
        )
        schedule = kt.optimizers.schedules.PaperSchedule.with_peak(0.003, warmup_steps=1500)
        optimizer = kt.optimizers.PaperAdam(learning_rate=schedule)
        objective.compile_for_tokens(model, optimizer, devices=devices)

    # The run directory: made, or resumed from its last checkpoint.
    settings = {"recipe": "multi30k", **vars(args), "run_dir": run_dir}
    del settings["distilled"]  # part of the text
    settings["text_sha256"] = kt.data.text_sha256(train, valid)
    changeable = ("updates", "data", "devices", "run_dir")
    with kt.RunDirectory.start(run_dir, settings, changeable) as run:
        tokenizer.save(run.path / "tokenizer.model")  # an error if an earlier start saved another
        cache = run.path / "ids" / "valid.npz"  # `keras-transformer average` compares with it
        validation = plan.evaluation(kt.data.encode_pairs(valid, tokenizer, cache=cache))
        translator, scored = kt.Translator(model, tokenizer), kt.data.kept_pairs(valid, tokenizer)
        probes = kt.callbacks.Probes(scored[:2], tokenizer)
        run.fit(
            model,
            plan,
            updates=args.updates,
            validate_every=args.validate_every,
            validation=validation,
            average=10,
            callbacks=[
                kt.runs.translation_score(translator, scored, tokenize="none", every=4),
                kt.callbacks.TensorBoard(run_dir, probes=probes),
            ],
        )

    # The weights are the mean of the last ten checkpoints, unless that is worse in validation. Beam
    # 5 and score / length are those of the published figure.
    translator = kt.load_translator(run_dir)
    sources, references = zip(*test, strict=True)
    hypotheses = translator.translate(sources, beam_size=5, length_penalty="average")
    bleu = kt.evaluation.bleu(hypotheses, references, tokenize="none")
    print(f"test2016 BLEU {bleu.value:.2f}  {bleu.signature}")
    say_next(
        {
            "Translate": command("keras-transformer", "translate", run_dir, rest="< source.txt"),
            "Look at one": command("keras-transformer", "show", run_dir, test[0][0]),
            "TensorBoard": command("tensorboard", "--logdir", run_dir),
        }
    )


def download(source, target, folder):
    """Downloads the three sets in both languages that do not exist yet."""
    # The text is tokenised and lower-cased: train.lc.norm.tok.en and so on.
    names = {"train": "train", "val": "val", "test2016": "test_2016_flickr"}
    download_missing(
        {
            folder / f"{name}.{language}": f"{HOME}/{there}.lc.norm.tok.{language}"
            for name, there in names.items()
            for language in (source, target)
        }
    )
    return folder


if __name__ == "__main__":
    main()
