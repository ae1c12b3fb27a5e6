"""The tasks of `compare_seq2seq.py`: Multi30k, and made-up symbols to copy or to reverse."""

import random
import string
from typing import NamedTuple

import keras_transformer as kt


class Task(NamedTuple):
    """Pairs of text to train on, to validate with and to test, and their vocabulary."""

    train: list
    valid: list
    test: list
    tokenizer: object


def load(args):
    """Returns the task's text and vocabulary."""
    if args.task == "translate":
        train, valid, test = (
            kt.data.read_parallel(f"{args.data}/{name}.en", f"{args.data}/{name}.de")
            for name in ("train", "val", "test2016")
        )
        return Task(train, valid, test, kt.text.train_tokenizer(train, args.vocabulary_size))
    rng = random.Random(args.seed)
    every = max(1, args.train_length // 4)
    tested = range(every, args.test_length + 1, every)

    def pairs(lengths):
        for length in lengths:
            symbols = rng.choices(string.ascii_lowercase[: args.symbols], k=length)
            sides = symbols, symbols[::-1] if args.task == "reverse" else symbols
            yield tuple(" ".join(side) for side in sides)

    def any_lengths(count):
        return (rng.randint(1, args.train_length) for _ in range(count))

    train = list(pairs(any_lengths(args.size)))
    valid = list(pairs(any_lengths(min(500, max(1, args.size // 10)))))
    test = list(pairs(length for length in tested for _ in range(args.test_size)))
    tokenizer = kt.text.train_tokenizer(train[:2000], args.symbols + 4, model_type="word")
    return Task(train, valid, test, tokenizer)
