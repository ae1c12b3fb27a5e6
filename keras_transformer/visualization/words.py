"""From pieces to words: people read words between spaces (in Korean eojeol), models read pieces."""

from collections.abc import Sequence

MARK = "▁"  # SentencePiece's mark of a space


def words_of(pieces: Sequence[str]) -> tuple[list[str], list[int]]:
    """Returns the words of a sentence, and for each piece the number of its word.

    A piece that begins with "▁" begins a word. Special pieces such as `</s>` are words of their
    own.

    Example:

    >>> words_of(["▁나는", "▁집", "에", "▁간다", "</s>"])
    (['나는', '집에', '간다', '</s>'], [0, 1, 1, 2, 3])
    """
    words: list[str] = []
    numbers: list[int] = []
    special = True
    for piece in pieces:
        earlier, special = special, piece.startswith("<") and piece.endswith(">")
        if not words or special or earlier or piece.startswith(MARK):
            words.append("")
        words[-1] += piece
        numbers.append(len(words) - 1)
    return [word.replace(MARK, " ").strip() or MARK for word in words], numbers
