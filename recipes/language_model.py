"""A language model of characters: a decoder-only Transformer on one text file.

    python recipes/language_model.py --text input.txt          # any text; 90 % of it to train on
    python recipes/language_model.py --write "ROMEO:" --top-k 40

The defaults are nanoGPT's for a CPU: 4 layers, 4 heads, width 128, 64 characters of context,
batches of 12, 2,000 updates, no dropout, and AdamW with a rate that peaks after 100 updates and
falls along a cosine to a tenth. The peak is 0.002, the best here of 0.001 (nanoGPT's), 0.0015 and
0.002. nanoGPT's readme gives a validation loss of 1.88 nats per character on tinyshakespeare, and
1.47 for its setting for a GPU, which is:

    python recipes/language_model.py --text input.txt --layers 6 --heads 6 --width 384 \\
        --context 256 --batch 64 --updates 5000 --dropout 0.2 --learning-rate 0.001 \\
        --precision bfloat16
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import keras_transformer as kt
from keras_transformer.cli import INTERRUPTED, command, program, say_next, without_notices

with without_notices():  # TensorFlow's
    import keras
    import objective
    import options


@program("language_model", INTERRUPTED)
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="a UTF-8 text file")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/language-model"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--context", type=int, default=64, help="characters")
    parser.add_argument("--batch", type=int, default=12, help="windows of a batch")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--validate-every", type=int, default=500, help="updates")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--learning-rate", type=float, default=0.002, help="at its peak")
    parser.add_argument("--seed", type=int, default=1)
    options.add_precision(parser)
    options.add_devices(parser)
    parser.add_argument("--write", metavar="BEGINNING", help="continue this text, train nothing")
    parser.add_argument("--characters", type=int, default=300, help="how many to write")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    args = parser.parse_args()
    if args.write is not None:
        print(write(args))
        return
    if args.text is None:
        parser.error("--text names the text file to learn from, or --write continues a text")
    options.require_whole_validations(parser, args)

    text = read(args.text)
    characters = sorted(set(text))
    ids = to_ids(text, characters)
    train, valid = np.split(ids, [int(0.9 * len(ids))])
    devices, scope = options.share_batches(args)
    plan = kt.data.WindowPlan(train, args.context, args.batch, args.seed, devices)
    valid = plan.evaluation(valid)

    kt.runs.set_precision(args.precision)
    keras.utils.set_random_seed(args.seed)
    with scope:
        model = kt.models.CausalLanguageModel(
            len(characters) + 1,
            num_layers=args.layers,
            d_model=args.width,
            num_heads=args.heads,
            dropout=args.dropout,
            max_length=args.context,
        )
        warmup = min(100, args.updates // 2)
        rate = objective.cosine(args.updates, args.learning_rate, warmup, alpha=0.1)
        optimizer = kt.optimizers.PaperAdam(
            learning_rate=rate, beta_2=0.99, epsilon=1e-8, weight_decay=0.1, global_clipnorm=1.0
        )
        objective.compile_for_tokens(model, optimizer, label_smoothing=0.0, devices=devices)
    settings = {"recipe": "language_model", "characters": characters}
    settings |= {k: v for k, v in vars(args).items() if k in TRAINING}
    settings["text_sha256"] = kt.data.text_sha256(text)
    with kt.RunDirectory.start(args.run_dir, settings, changeable=("updates",)) as run:
        kt.files.write_json(run.path / "characters.json", characters)
        state = run.fit(
            model,
            plan,
            updates=args.updates,
            validate_every=args.validate_every,
            validation=valid,
            keep_checkpoints=2,
        )
        nats = model.evaluate(valid, verbose=0, return_dict=True)["nats_per_token"]
    seconds = state["seconds"]
    print(f"{nats:.4f} nats per character of the validation text, {seconds:.0f} s of training")
    again = command("python", sys.argv[0], "--run-dir", args.run_dir)
    say_next(
        {
            "Write": f'{again} --write "A beginning"',
            "TensorBoard": command("tensorboard", "--logdir", args.run_dir),
        }
    )


TRAINING = (
    *("layers", "heads", "width", "context", "batch", "updates", "validate_every", "dropout"),
    *("learning_rate", "seed", "precision"),
)


def read(path):
    """Returns the whole text."""
    return "".join(f"{line}\n" for line in kt.data.read_lines(path))


def to_ids(text, characters):
    """Returns ids from 1, in the order of the characters. 0 is padding."""
    number = {character: i for i, character in enumerate(characters, start=1)}
    unknown = sorted(set(text) - set(characters))
    if unknown:
        raise ValueError(f"never seen in training: {unknown}; begin with other characters")
    return np.array([number[character] for character in text], "int32")


def write(args):
    """Returns the beginning and the trained model's continuation of it."""
    run = kt.RunDirectory.open(args.run_dir)
    characters = kt.files.read_json(run.path / "characters.json")
    prompt = to_ids(args.write or "\n", characters).tolist()
    [ids] = kt.decoding.Sampler(run.load_model()).generate(
        [prompt],
        args.characters,
        args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
    )
    return "".join(characters[i - 1] for i in ids)


if __name__ == "__main__":
    main()
