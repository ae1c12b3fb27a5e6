"""Prints the corpus: `python -m keras_transformer.datasets.korean_english [--words]`."""

import argparse
import random
import sys

from keras_transformer.cli.ends import program
from keras_transformer.datasets import korean_english as corpus


@program("corpus")
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m keras_transformer.datasets.korean_english",
        description="Prints the bundled corpus, one pair per line: Korean, tab, English.",
    )
    parser.add_argument("--words", action="store_true", help="words instead of sentences")
    parser.add_argument("--split", default="train", choices=("train", "valid", *corpus.TESTS))
    parser.add_argument("--size", type=int, default=corpus.SIZE, help="sentences to train on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, drawn at random")
    args = parser.parse_args()
    pairs = corpus.words() if args.words else corpus.generate(args.seed, args.size)[args.split]
    if args.sample:
        pairs = random.Random(args.seed).sample(pairs, args.sample)
    sys.stdout.writelines(f"{ko}\t{en}\n" for ko, en in pairs)


if __name__ == "__main__":
    main()
