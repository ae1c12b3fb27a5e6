"""From pieces to words: Korean reads by words between spaces (eojeol), models by pieces."""

import numpy as np

MARK = "▁"  # SentencePiece's for a space


def words_of(pieces):
    """The word that each piece belongs to.

    A piece that begins with "▁" begins a word; special pieces such as `</s>` are words of their
    own.

    Args:
        pieces: strings.

    Returns:
        The words, and the number of its word for each piece.

    Example:

    >>> words_of(["▁나는", "▁집", "에", "▁간다", "</s>"])
    (['나는', '집에', '간다', '</s>'], [0, 1, 1, 2, 3])
    """
    words, numbers = [], []
    special = True
    for piece in pieces:
        earlier, special = special, piece.startswith("<") and piece.endswith(">")
        if not words or special or earlier or piece.startswith(MARK):
            words.append("")
        words[-1] += piece
        numbers.append(len(words) - 1)
    return [word.replace(MARK, " ").strip() or MARK for word in words], numbers


def over_words(weights, queries, keys):
    """Attention between words from attention between pieces.

    ```
    a(word, word') = mean over the query's pieces of (sum over the key's pieces of a(piece, piece'))
    ```

    So every row still sums to 1.

    Args:
        weights: [..., T, S].
        queries: the number of its word for each of the T pieces, from `words_of`.
        keys: the same for the S pieces.

    Returns:
        [..., words of the queries, words of the keys].
    """
    queries, keys = (np.eye(max(numbers) + 1)[numbers] for numbers in (queries, keys))
    return np.einsum("...ts,tq,sk->...qk", weights, queries / queries.sum(axis=0), keys)
