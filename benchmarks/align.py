"""How often the words that cross-attention links belong together: alignment error rates.

    python recipes/translate_ko_en.py                   # trains runs/demo
    python benchmarks/align.py runs/demo                # a table of all layers and heads

The bundled grammar knows which words belong together: if one word of a meaning is exchanged, the
words that change in Korean and those that change in English translate each other. A word changes
where it begins otherwise, in three quarters of the exchanges, so that particles and agreement
(is, are) do not count.

    AER = 1 - 2 |found and known| / (|found| + |known|)        (Och and Ney, 2003)

Only links of known English words are counted, because the grammar links no articles.
"""

import argparse
import collections
import itertools
import random

import keras_transformer as kt
from keras_transformer.cli import program, without_notices
from keras_transformer.datasets.korean_english import drawing, in_english, in_korean, lexicon
from keras_transformer.datasets.korean_english.meaning import Clause
from keras_transformer.datasets.korean_english.splits import levels

with without_notices():
    from keras_transformer.decoding import alignment, scoring

WORDS = (lexicon.Noun, lexicon.Person, lexicon.Verb, lexicon.Adjective, lexicon.Place)
WORDS += (lexicon.Time, lexicon.Spot)
EXCHANGES = 8
SHARE = 0.75  # of the exchanges that change a word, so that it counts


def places(meaning, path=()):
    """Yields the path of each word in a meaning, and the word."""
    if isinstance(meaning, WORDS):
        yield path, meaning
    elif isinstance(meaning, tuple):
        for number, part in enumerate(meaning):
            if isinstance(meaning, Clause) and number == 0 and not meaning.said:
                continue  # a subject that Korean leaves out
            yield from places(part, (*path, number))


def exchanged(meaning, path, word):
    """Returns a meaning with another word at a path."""
    if not path:
        return word
    parts = list(meaning)
    parts[path[0]] = exchanged(parts[path[0]], path[1:], word)
    return type(meaning)(*parts) if hasattr(meaning, "_fields") else tuple(parts)


def changed(text, other):
    """Returns which words of a text begin otherwise in another of as many words, else None."""
    ours, theirs = text.lower().split(), other.lower().split()
    if len(ours) != len(theirs):
        return None
    return {i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a[0] != b[0]}


def known_links(meaning, level, words, rng):
    """Returns the Korean and the English of a meaning, and the set of links that it knows."""
    texts, links = said(meaning, level), set()
    for path, word in places(meaning):
        counts, tried = (collections.Counter(), collections.Counter()), 0
        others = [other for other in words[type(word)] if other != word]
        for other in rng.sample(others, min(EXCHANGES, len(others))):
            try:
                exchange = said(exchanged(meaning, path, other), level)
            except (KeyError, IndexError, AttributeError, ValueError):
                continue  # the grammar has no such sentence
            sides = list(map(changed, texts, exchange))
            if all(sides):
                tried += 1
                for count, side in zip(counts, sides, strict=True):
                    count.update(side)
        sides = [{i for i, n in count.items() if n >= SHARE * tried} for count in counts]
        if tried >= 3:
            links |= set(itertools.product(*sides))
    return texts, links


def said(meaning, level):
    """Returns a meaning in Korean and in English."""
    return in_korean.korean(meaning, level), in_english.english(meaning)


def sentences(count, seed=2):
    """Returns pairs of texts and the links of each, which the grammar knows."""
    rng, drawn = random.Random(seed), []
    meanings = [drawing.draw(rng) for _ in range(10 * count)]
    words = {kind: set() for kind in WORDS}
    for meaning in meanings:
        for _, word in places(meaning):
            words[type(word)].add(word)
    words = {kind: sorted(some, key=repr) for kind, some in words.items()}
    for meaning in meanings:
        texts, links = known_links(meaning, rng.choice(levels(meaning)), words, rng)
        if len({en for _, en in links}) >= 2:
            drawn.append((texts, links))
        if len(drawn) == count:
            break
    return drawn


def error_rate(found, known):
    """AER over all sentences, of the English words that are linked in `known`."""
    both = total = 0
    for links, right in zip(found, known, strict=True):
        targets = {en for _, en in right}
        links = {(ko, en) for ko, en in links if en in targets}
        both, total = both + 2 * len(links & right), total + len(links) + len(right)
    return 1 - both / total


@program("align")
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", metavar="RUN", help="a run of recipes/translate_ko_en.py, from Korean"
    )
    parser.add_argument("--sentences", type=int, default=500)
    args = parser.parse_args()
    translator = kt.load_translator(args.run)
    pairs, known = zip(*sentences(args.sentences), strict=True)
    ids = scoring.encode_pairs(pairs, translator.encode_sources, translator.tokenizer)
    decode = translator.tokenizer.decode
    numbers = [[alignment.word_numbers(side, decode) for side in pair] for pair in ids]
    print(f"{len(pairs)} sentences, {sum(map(len, known)):,} known links")
    ends = [[max(side) for side in pair] for pair in numbers]
    in_order = [[(round(i * ko / max(en, 1)), i) for i in range(en + 1)] for ko, en in ends]
    print(f"in the order of the source: {error_rate(in_order, known):.1%}\n")
    print(f"{'layer':>5} {'head':>5} {'reading':>8} {'predicting':>11}")
    decoder = translator.models[0].decoder
    for layer in range(decoder.num_layers):
        for head in [None, *range(decoder.layers[0].num_heads)]:
            chosen = None if head is None else [head]
            weights = dict(alignment.token_weights(translator, ids, layer, chosen, 64))
            rates = []
            for first in (1, 0):
                places = range(len(ids))
                found = [alignment.links(weights[i][first:], *numbers[i]) for i in places]
                rates.append(error_rate(found, known))
            print(f"{layer:>5} {'mean' if head is None else head:>5}", end=" ")
            print("{:>8.1%} {:>11.1%}".format(*rates), flush=True)


if __name__ == "__main__":
    main()
