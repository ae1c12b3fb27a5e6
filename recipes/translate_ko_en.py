"""Korean to English (or English to Korean) on the bundled corpus: the whole job in minutes.

    python recipes/translate_ko_en.py                    # train, test, translate; `make demo`
    python recipes/translate_ko_en.py --to-korean        # the other direction

The corpus is a small grammar that writes its own sentences (keras_transformer/datasets). Each test
has combinations that training never had. So the tests say what was learnt rather than remembered.
"""

import argparse
import random

import numpy as np

import keras_transformer as kt
from keras_transformer.cli import INTERRUPTED, command, program, say_next, without_notices
from keras_transformer.datasets import korean_english as corpus

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options


@program("translate_ko_en", INTERRUPTED)
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to-korean", action="store_true", help="from English")
    parser.add_argument("--run-dir", default=None, help="runs/demo, or runs/demo-to-korean")
    parser.add_argument("--size", type=int, default=corpus.SIZE, help="sentences to train on")
    parser.add_argument("--test-size", type=int, default=corpus.TEST_SIZE, help="of each test")
    parser.add_argument("--vocabulary-size", type=int, default=2000)
    parser.add_argument("--updates", type=int, default=900)
    parser.add_argument("--validate-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options.add_devices(parser)
    args = parser.parse_args()
    run_dir = args.run_dir or ("runs/demo-to-korean" if args.to_korean else "runs/demo")

    # Sentences, split by meaning, with a test for each kind of combination.
    splits = corpus.generate(args.seed, args.size, args.test_size, args.to_korean)
    if args.to_korean:
        splits = {name: [pair[::-1] for pair in pairs] for name, pairs in splits.items()}
    train, valid = splits.pop("train"), splits.pop("valid")
    tokenize = "ko-mecab" if args.to_korean else "13a"  # sacreBLEU's
    kt.evaluation.bleu(["a"], ["a"], tokenize=tokenize)  # fails now, not after training
    tokenizer = kt.text.train_tokenizer(train, args.vocabulary_size, character_coverage=1.0)
    encoded = kt.data.encode_pairs(train, tokenizer)
    print(kt.data.report(train, encoded, valid))
    devices, scope = options.share_batches(args)
    plan = kt.data.BatchPlan(encoded, tokens_per_batch=4096, seed=args.seed, devices=devices)
    print(plan.summary())

    # A small Transformer, the paper's objective, Adam with warm-up.
    keras.utils.set_random_seed(args.seed)
    with scope:
        model = kt.models.Transformer.from_preset(
            "tiny", tokenizer.vocabulary_size, num_layers=2, norm="pre", dropout=0.1
        )
        schedule = kt.optimizers.schedules.PaperSchedule.with_peak(0.003, warmup_steps=200)
        optimizer = kt.optimizers.PaperAdam(learning_rate=schedule)
        objective.compile_for_tokens(model, optimizer, devices=devices)

    # The run directory: made, or resumed from its last checkpoint.
    settings = {"recipe": "ko_en", **vars(args), "run_dir": run_dir}
    changeable = ("updates", "devices", "run_dir")
    with kt.RunDirectory.start(run_dir, settings, changeable) as run:
        tokenizer.save(run.path / "tokenizer.model")  # an error if an earlier start saved another
        kt.text.Seen.of([source for source, _ in train], tokenizer).save(run.path)
        cache = run.path / "ids" / "valid.npz"  # `keras-transformer average` compares with it
        validation = plan.evaluation(kt.data.encode_pairs(valid, tokenizer, cache=cache))
        translator = kt.Translator(model, tokenizer)
        run.fit(
            model,
            plan,
            updates=args.updates,
            validate_every=args.validate_every,
            validation=validation,
            average=3,
            keep_checkpoints=5,
            callbacks=[
                kt.runs.translation_score(translator, valid[:50], tokenize),
                kt.callbacks.TensorBoard(run_dir, probes=kt.callbacks.Probes(valid[:2], tokenizer)),
            ],
        )

    # What was learnt: each test, and as a control the random test with its sources shuffled.
    translator = kt.Translator(kt.RunDirectory.open(run_dir).load_model(), tokenizer)
    print(f"\n{'test':<10} {'BLEU':>6} {'exact':>6}")
    tests = {**splits, "shuffled": shuffled(splits["random"], args.seed)}
    for name, pairs in tests.items():
        sources, references = zip(*pairs, strict=True)
        hypotheses = translator.translate(sources, batch_size=256)
        score = kt.evaluation.bleu(hypotheses, references, tokenize=tokenize)
        exact = np.mean([a == b for a, b in zip(hypotheses, references, strict=True)])
        print(f"{name:<10} {score.value:>6.1f} {exact:>6.0%}")
    print(f"({score.signature})\n")

    # What a learner would type first. No split has these meanings.
    probes = [pair[::-1] for pair in corpus.POLITE_PROBES] if args.to_korean else corpus.PROBES
    sources, references = zip(*probes, strict=True)
    found = translator.translate(sources)
    for source, reference, text in zip(sources, references, found, strict=True):
        print(f"{source} -> {text}" + ("" if text == reference else f"   (expected {reference})"))
    translating = command("keras-transformer", "translate", run_dir)
    own = "--train-tsv pairs.tsv --hold-out 500 --run-dir runs/mine"
    say_next(
        {
            "Translate": f"echo '{sources[0]}' | {translating}",
            "Look at one": command("keras-transformer", "show", run_dir, sources[0]),
            "TensorBoard": command("tensorboard", "--logdir", run_dir),
            "Its words": "python -m keras_transformer.datasets.korean_english --words",
            "Your text": f"keras-transformer train {own}",
        }
    )


def shuffled(pairs, seed):
    """Returns a control: with the wrong sources a model that reads its source must fail."""
    sources, references = map(list, zip(*pairs, strict=True))
    random.Random(seed).shuffle(sources)
    return list(zip(sources, references, strict=True))


if __name__ == "__main__":
    main()
