"""Sentiment of Korean film reviews (NSMC), pre-trained on the reviews' own text and from scratch.

    python recipes/pretrain_and_classify.py                # downloads NSMC, 20 MB
    python recipes/pretrain_and_classify.py --data FOLDER  # ratings_train.txt, ratings_test.txt
    python recipes/pretrain_and_classify.py --text TSV     # your own: text, tab, class
    python recipes/pretrain_and_classify.py --from-keras-hub PRESET --finetune-rates 2e-5 5e-5
    python recipes/pretrain_and_classify.py --classify "배우들 연기가 아깝다"

An encoder first learns to fill in hidden tokens of the training reviews, like BERT. The model then
learns to classify, once from there and once from random weights. Both have equal budgets: as many
learning rates, and as many updates at each. The rate is chosen on held-out training reviews. The
test reviews are used once, at the end.

With `--from-keras-hub` a BERT or RoBERTa of KerasHub takes the place of the first step. Its sizes
and its vocabulary are used by both classifiers.
"""

import argparse
import collections
import hashlib
import sys
from pathlib import Path

import accuracy
import labelled_text
import numpy as np

import keras_transformer as kt
from keras_transformer.cli import INTERRUPTED, command, program, say_next, without_notices

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options

NAMES = {"scratch": "from scratch", "finetune": "pre-trained"}


@program("pretrain_and_classify", INTERRUPTED)
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with NSMC; downloaded unless given")
    parser.add_argument("--text", type=Path, help="instead: text, tab, class; any classes")
    parser.add_argument("--test-text", type=Path, help="to test on; a tenth of TEXT unless given")
    parser.add_argument("--unlabelled", type=Path, help="more text to pre-train on, one per line")
    parser.add_argument(
        "--from-keras-hub",
        metavar="PRESET",
        help="instead of pre-training: the name of a preset of KerasHub, which it downloads, or a "
        "folder of its save_to_preset; --vocabulary-size, the sizes and --dropout are the preset's",
    )
    parser.add_argument("--run-dir", type=Path, default=Path("runs/classify"))
    parser.add_argument("--classify", nargs="+", metavar="TEXT", help="train nothing")
    parser.add_argument("--vocabulary-size", type=int, default=8000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--max-length", type=int, default=128, help="tokens; the rest is cut off")
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    parser.add_argument("--pretrain-updates", type=int, default=18_000)
    parser.add_argument("--pretrain-rate", type=float, default=0.001)
    parser.add_argument("--updates", type=int, default=2000, help="of classification, per rate")
    parser.add_argument("--scratch-rates", type=float, nargs="+", default=[0.0005, 0.001])
    parser.add_argument("--finetune-rates", type=float, nargs="+", default=[0.0005, 0.001])
    parser.add_argument(
        "--validate-every", type=int, default=1000, help="updates; and a checkpoint"
    )
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the training text")
    parser.add_argument("--seed", type=int, default=1)
    options.add_precision(parser)
    options.add_devices(parser)
    args = parser.parse_args()
    if args.from_keras_hub and args.unlabelled:
        parser.error("--unlabelled is for pre-training, which --from-keras-hub replaces")
    if len(args.scratch_rates) != len(args.finetune_rates):
        parser.error("equal budgets: give as many --scratch-rates as --finetune-rates")
    for updates in (args.pretrain_updates, args.updates):
        if updates % min(updates, args.validate_every):
            parser.error(f"{updates} updates are no multiple of --validate-every")
    kt.runs.set_precision(args.precision)
    if args.classify:
        classify(args.run_dir, args.classify)
        return
    if args.text is None:
        folder = args.data or labelled_text.download(Path("runs/data/nsmc"))
        train, test, classes, note = labelled_text.nsmc(folder)
    else:
        train, test, classes, note = labelled_text.own(args.text, args.test_text, args.seed)
    run, tokenizer = start(args, train, test, classes)
    counts = collections.Counter(classes[label] for _, label in train)
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(20))
    print(f"{len(train):,} training texts of {len(classes)} classes: {listed}", file=sys.stderr)
    with run:
        if not (run.path / "results.json").exists():
            devices, scope = options.share_batches(args)
            with scope:
                results = learn(args, run, tokenizer, train, test, devices)
            kt.files.write_json(run.path / "results.json", results)
        show(kt.files.read_json(run.path / "results.json"), note)
    again = command("python", sys.argv[0], "--run-dir", args.run_dir)
    say_next(
        {
            "Classify": f'{again} --classify "배우들 연기가 아깝다"',
            "TensorBoard": command("tensorboard", "--logdir", args.run_dir),
        }
    )


def start(args, train, test, classes):
    """Makes or reopens the run directory. Returns it and its vocabulary."""
    digest = hashlib.sha256(repr((train, test)).encode())
    if args.unlabelled:
        digest.update(args.unlabelled.read_bytes())
    outside = ("data", "text", "test_text", "unlabelled", "devices", "run_dir", "classify")
    settings = {"recipe": "pretrain_and_classify", "text_sha256": digest.hexdigest()}
    settings |= {name: value for name, value in vars(args).items() if name not in outside}
    run = kt.RunDirectory.start(args.run_dir, settings)
    if args.from_keras_hub and not (run.path / "hub_tokenizer").exists():
        import keras_hub

        theirs = keras_hub.models.Tokenizer.from_preset(args.from_keras_hub)
        vocabulary = kt.interop.keras_hub.HubTokenizer(theirs)
        if vocabulary.mask_id is None:
            raise ValueError(
                f"--from-keras-hub {args.from_keras_hub} has a {type(theirs).__name__} without a "
                "mask, so it is no encoder of text. Choose a BERT or a RoBERTa."
            )
        vocabulary.save_to_folder(run.path / "hub_tokenizer")
    elif not args.from_keras_hub and not (run.path / "tokenizer.model").exists():
        texts = [text for text, _ in train]
        vocabulary = kt.text.train_tokenizer(texts, args.vocabulary_size, mask=True)
        vocabulary.save(run.path / "tokenizer.model")
    kt.files.write_json(run.path / "classes.json", classes)
    return run, load_tokenizer(run)


def load_tokenizer(run):
    """The vocabulary of a run: its own, or that of a preset of KerasHub."""
    if (run.path / "hub_tokenizer").exists():
        return kt.interop.keras_hub.HubTokenizer.from_folder(run.path / "hub_tokenizer")
    return kt.text.Tokenizer.load(run.path / "tokenizer.model")


# --- training


def learn(args, run, tokenizer, train, test, devices):
    """Pre-trains, trains classifiers of both kinds at each rate, and tests the best of each."""
    texts, labels = zip(*train, strict=True)
    encoded = kt.data.encode_texts(texts, tokenizer, labels, args.max_length)
    order = np.random.default_rng(args.seed).permutation(len(encoded))
    held_out, rest = np.split(order, [max(1, int(args.held_out * len(order)))])
    train, valid = encoded.select(rest), encoded.select(held_out)
    classes = kt.files.read_json(run.path / "classes.json")
    if args.from_keras_hub:
        pretrained, sizes = from_keras_hub(args, tokenizer)
    else:
        unlabelled = train
        if args.unlabelled:
            lines = kt.data.read_lines(args.unlabelled) + [texts[i] for i in rest]
            unlabelled = kt.data.encode_texts(lines, tokenizer, max_length=args.max_length)
        pretrained, sizes = pretrain(args, run, tokenizer, unlabelled, valid, devices)

    batches = {"seed": args.seed, "devices": devices}
    plan = kt.data.LabelledPlan(train, args.tokens_per_batch, **batches)
    texts, labels = zip(*test, strict=True)
    tested = kt.data.encode_texts(texts, tokenizer, labels, args.max_length)
    results, right = {}, {}
    for name, rates in (("scratch", args.scratch_rates), ("finetune", args.finetune_rates)):
        accuracies = {}  # on the held-out reviews
        for rate in rates:
            keras.utils.set_random_seed(args.seed)
            model = kt.models.TextClassifier(num_classes=len(classes), **sizes)
            if name == "finetune":
                model.take_encoder(pretrained)
            crossentropy = keras.losses.SparseCategoricalCrossentropy
            compiled_with = {
                "loss": crossentropy(from_logits=True, reduction="sum"),  # the weights sum to 1
                "weighted_metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            }
            folder = run.path / name / f"rate-{rate:g}"
            fit(args, folder, model, compiled_with, plan, valid, args.updates, rate)
            found = probabilities(model, valid, devices).argmax(axis=1)
            accuracies[rate] = float((found == valid.labels).mean())
        best = max(rates, key=accuracies.get)
        model = kt.RunDirectory.open(run.path / name / f"rate-{best:g}").load_model()
        right[name] = probabilities(model, tested, devices).argmax(axis=1) == tested.labels
        results[name] = {"rate": best, "right": int(right[name].sum()), "held_out": accuracies}
    commonest = collections.Counter(train.labels.tolist()).most_common(1)[0][0]
    return results | {
        "tested": len(tested),
        "held_out": len(valid),
        "commonest": float((tested.labels == commonest).mean()),
        "mcnemar": accuracy.mcnemar(right["finetune"], right["scratch"]),
    }


def pretrain(args, run, tokenizer, unlabelled, valid, devices):
    """Trains a masked language model. Returns it and its sizes."""
    sizes = {
        "vocabulary_size": tokenizer.vocabulary_size,
        "num_layers": args.layers,
        "d_model": args.width,
        "num_heads": args.heads,
        "dropout": args.dropout,
        "positions": "sinusoidal",
        "norm": "pre",
    }
    keras.utils.set_random_seed(args.seed)
    model = kt.models.MaskedLanguageModel(**sizes)
    batches = {"seed": args.seed, "devices": devices}
    plan = kt.data.MaskedPlan(unlabelled, tokenizer, args.tokens_per_batch, **batches)
    compiled_with = {
        "loss": kt.losses.SmoothedCrossentropy(label_smoothing=0.0),
        "weighted_metrics": [kt.metrics.NatsPerToken(), kt.metrics.TokenAccuracy()],
    }
    folder, rate = run.path / "pretrain", args.pretrain_rate
    fit(args, folder, model, compiled_with, plan, valid, args.pretrain_updates, rate)
    return model, sizes


def from_keras_hub(args, tokenizer):
    """Returns the masked language model of a preset of KerasHub, and its sizes."""
    import keras_hub

    policy = keras.config.dtype_policy().name
    backbone = keras_hub.models.Backbone.from_preset(args.from_keras_hub, dtype=policy)
    model = kt.interop.keras_hub.load(backbone, pad_id=tokenizer.tokenizer.pad_token_id)
    if args.max_length > model.embedding.max_length:
        raise ValueError(
            f"--max-length {args.max_length}: the preset has {model.embedding.max_length} "
            "positions. Give at most that many."
        )
    own = ("name", "trainable")
    return model, {k: v for k, v in model.get_config().items() if k not in own}


def fit(args, folder, model, compiled_with, plan, valid, updates, rate):
    """Trains a model to the end of its schedule, from its last checkpoint if there is one."""
    every = min(args.validate_every, updates)
    schedule = objective.cosine(updates, rate, warmup=max(1, updates // 10))
    optimizer = kt.optimizers.PaperAdam(
        learning_rate=schedule, epsilon=1e-8, weight_decay=0.01, global_clipnorm=1.0
    )
    jit = objective.jit(plan.devices)
    model.compile(optimizer=optimizer, jit_compile=jit, **compiled_with)
    with kt.RunDirectory.start(folder, {"updates": updates, "rate": rate}) as run:
        print(f"{folder}\n{plan.summary()}", file=sys.stderr)
        run.fit(
            model,
            plan,
            updates=updates,
            validate_every=every,
            validation=plan.evaluation(valid),
            keep_checkpoints=1,
        )


def probabilities(model, encoded, devices=1):
    """Returns the probability of each class: [texts, classes]."""
    dataset, order = encoded.prediction(devices=devices)
    found = keras.ops.softmax(model.predict(dataset, verbose=0), axis=-1)
    shares = np.empty((len(encoded), found.shape[-1]))
    shares[order] = keras.ops.convert_to_numpy(found)
    return shares


# --- results


def show(results, note):
    """Prints the table of both classifiers, and whether they differ."""
    count = results["tested"]
    print(f"\n{count:,} test texts: {note}")
    print(f"always the commonest class: {results['commonest']:.2%}\n")
    print(f"{'':<12}{'rate':>9}{'held out':>10}{'test':>9}   95 % interval")
    for name, title in NAMES.items():
        row = results[name]
        low, high = accuracy.binomial_interval(row["right"], count)
        held_out = row["held_out"][str(row["rate"])]
        print(
            f"{title:<12}{row['rate']:>9g}{held_out:>10.2%}{row['right'] / count:>9.2%}"
            f"   {low:.2%} to {high:.2%}"
        )
    alone, other, p = results["mcnemar"]
    print(
        f"\nright by the pre-trained one alone {alone:,}, by the other alone {other:,}: "
        f"p = {p:.2g} (McNemar, exact)"
    )
    print(f"\nrates tried, accuracy on {results['held_out']:,} held-out training texts:")
    for name, title in NAMES.items():
        tried = "  ".join(
            f"{rate} {share:.2%}" for rate, share in results[name]["held_out"].items()
        )
        print(f"{title:<12}{tried}")


def classify(run_dir, texts):
    """Prints the class of each text and its probability, by the pre-trained classifier."""
    run = kt.RunDirectory.open(run_dir)
    if not (run.path / "results.json").exists():
        raise ValueError(f"{run_dir} is not finished: the command that began it continues it")
    tokenizer = load_tokenizer(run)
    classes, results = (
        kt.files.read_json(run.path / f"{name}.json") for name in ("classes", "results")
    )
    folder = run.path / "finetune" / f"rate-{results['finetune']['rate']:g}"
    model = kt.RunDirectory.open(folder).load_model()
    encoded = kt.data.encode_texts(texts, tokenizer, max_length=run.settings["max_length"])
    for text, shares in zip(texts, probabilities(model, encoded), strict=True):
        best = int(shares.argmax())
        print(f"{text}\t{classes[best]}\t{shares[best]:.1%}")


if __name__ == "__main__":
    main()
