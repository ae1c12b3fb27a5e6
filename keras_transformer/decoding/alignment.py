"""Which words of a source and of its translation belong together, read from cross-attention.

The weights of the decoder's position that predicts a target token are read. Those of the position
that reads it (Chen et al., 2020, arXiv 2004.14837) link words worse here: docs/lab-notebook.md has
the error rates of both, by layer and head.
"""

import collections
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_transformer import arguments, progress
from keras_transformer.decoding import scoring
from keras_transformer.decoding.id_translator import IdTranslator

Links = list[tuple[int, int]]

# The decoder's layer that aligns best, counted from the end; see docs/lab-notebook.md.
LAYER = -1
UNKNOWN = re.compile("(^| )⁇( |$)")


def align_ids(
    translator: IdTranslator,
    ids: Sequence[tuple[list[int], list[int]]],
    layer: int = LAYER,
    heads: Sequence[int] | None = None,
    batch_size: int = 64,
) -> list[Links]:
    """Returns the links of each pair of ids; see `Translator.align`."""
    found: list[Links] = [[] for _ in ids]
    numbers = translator.tokenizer.decode, translator.target_tokenizer.decode
    for i, weights in token_weights(translator, ids, layer, heads, batch_size):
        sides = (word_numbers(side, decode) for side, decode in zip(ids[i], numbers, strict=True))
        found[i] = links(weights, *sides)
    return found


def token_weights(
    translator: IdTranslator,
    ids: Sequence[tuple[list[int], list[int]]],
    layer: int,
    heads: Sequence[int] | None,
    batch_size: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the place of each pair in `ids`, and its attention [1 + target, source tokens].

    Row 0 is of the position that reads the start, row t of the one that reads target token t and
    predicts the next. Pairs with an empty side have none.
    """
    check_heads(translator.models, layer, heads)
    weigh = translator._compiled(
        ("align", layer, None if heads is None else tuple(heads)),
        lambda *arrays: _mean_weights(translator.models, layer, heads, *arrays),
    )
    full = [i for i, pair in enumerate(ids) if all(pair)]
    with progress.work("aligning", sum(len(ids[i][1]) for i in full), "target tokens") as done:
        for chosen in scoring.in_batches([ids[i] for i in full], batch_size):
            batch = [ids[full[i]] for i in chosen]
            arrays = translator.arrays_of(batch)
            weights = ops.convert_to_numpy(weigh(*arrays))
            for i, (source, target), row in zip(chosen, batch, weights[: len(batch)], strict=True):
                yield full[i], row[: len(target) + 1, : len(source)]
                done(len(target))


def _mean_weights(models, layer, heads, source_ids, target_ids):
    """The mean over heads and models of a layer's cross-attention: [B, T, S]."""
    each = []
    for model in models:
        weights = model.attention_tensors(source_ids, target_ids)["cross"][layer]
        weights = ops.cast(weights, "float32")
        if heads is not None:
            weights = ops.take(weights, list(heads), axis=1)
        each.append(ops.mean(weights, axis=1))
    return sum(each) / len(each)


def check_heads(models: Sequence[Any], layer: int, heads: Sequence[int] | None) -> None:
    """Raises a ValueError unless every model has this layer and these heads."""
    if not models:
        raise ValueError("CTranslate2 gives no attention to align by: use the engine of Keras.")
    for model in models:
        if not hasattr(model, "attention_tensors"):
            raise ValueError(
                f"A {type(model).__name__} has no attention to align by. Use a Transformer."
            )
        layers, count = model.decoder.num_layers, model.decoder.layers[0].num_heads
        if not isinstance(layer, int) or not -layers <= layer < layers:
            raise ValueError(
                f"layer is an integer from {-layers} to {layers - 1}, because the decoder has "
                f"{layers} layer(s); got {layer!r}."
            )
        for head in () if heads is None else heads:
            if arguments.whole_number("A head", head, least=0) >= count:
                raise ValueError(f"A head is from 0 to {count - 1}, got {head}.")
        if heads is not None and not len(heads):
            raise ValueError("heads has no head. Pass None for the mean of all.")


def word_numbers(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """Returns for each id the number of its word: of `decode(ids).split()`.

    Every piece that adds no word of its own, such as a space, belongs to the word before it.
    """
    # SentencePiece decodes an unknown piece with spaces around it that are not in the text.
    words = (len(UNKNOWN.sub("⁇", decode(ids[: end + 1])).split()) for end in range(len(ids)))
    return [max(count - 1, 0) for count in words]


def links(weights: np.ndarray, source_words: Sequence[int], target_words: Sequence[int]) -> Links:
    """Links each target word to the source word that it attends to most.

    Args:
        weights: Attention between tokens [T, S], or [1 + T, S] with a last row that is left out.
        source_words, target_words: For each token the number of its word.

    Returns:
        Pairs (source word, target word), ordered by the source.

    Example:

    >>> links(np.array([[0.1, 0.9], [0.8, 0.2]]), [0, 1], [0, 1])
    [(0, 1), (1, 0)]
    """
    words = over_words(weights[: len(target_words)], target_words, source_words)
    return sorted((int(source), target) for target, source in enumerate(words.argmax(axis=1)))


def between_given(links: Links, source: str, target: Any, plain: Callable[[str], str]) -> Links:
    """Links whose words are counted in the texts as they were given, and not as they were read.

    A word of invisible characters that are new to the model is not read, nor is a lone "▁".

    Args:
        links: Those of the words that were read.
        source: The text.
        target: Its translation. The words of a list of ids are those that were read.
        plain: `Seen.plain`, which the source went through.
    """
    sources = _read(source, plain)
    targets = _read(target, str) if isinstance(target, str) else None
    return sorted((sources[i], j if targets is None else targets[j]) for i, j in links)


def _read(text, plain):
    """For each word that was read its number in the text; the last one for any further words."""
    words = text.split()
    read = [i for i, word in enumerate(words) for _ in plain(word).replace("▁", " ").split()]
    return collections.defaultdict(lambda: len(words) - 1, enumerate(read))


def pharaoh(links: Links) -> str:
    """Returns links as text, source before target, words counted from 0: `0-1 1-0`."""
    return " ".join(f"{source}-{target}" for source, target in links)


def over_words(weights: np.ndarray, queries: Sequence[int], keys: Sequence[int]) -> np.ndarray:
    """Returns the attention between words, from that between pieces.

    ```
    a(word, word') = mean over the query's pieces of (sum over the key's pieces of a(piece, piece'))
    ```

    So every row still sums to 1.

    Args:
        weights: Attention [..., T, S].
        queries: For each of the T pieces the number of its word.
        keys: The same for the S pieces.

    Returns:
        Attention [..., words of the queries, words of the keys].
    """
    of_query, of_key = (np.eye(max(numbers) + 1)[numbers] for numbers in (queries, keys))
    # A piece may hold several words. A word without a piece of its own is in the next one.
    present = np.unique(queries)
    of_query = of_query[:, present[np.searchsorted(present, np.arange(max(queries) + 1))]]
    return np.einsum("...ts,tq,sk->...qk", weights, of_query / of_query.sum(axis=0), of_key)
