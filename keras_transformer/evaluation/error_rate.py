"""Error rates of sequences of symbols separated by spaces: phonemes, characters or words.

Two fields say "word error rate" for different things, so neither function here is called that:

| here | grapheme-to-phoneme (SIGMORPHON) | speech recognition |
|---|---|---|
| `line_error_rate` | word error rate, WER: a line is the word | sentence error rate |
| `token_error_rate` | phoneme error rate, PER: a token is a phoneme | word error rate, WER |
"""

from collections.abc import Sequence

from keras_transformer.evaluation.lines import checked


def line_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns the share of lines that are not exactly their reference, in percent.

    `100 * (lines with a wrong token) / lines`: the word error rate of the SIGMORPHON
    grapheme-to-phoneme task, where each line holds the phonemes of one word. A line is right if it
    has the same tokens in the same order; runs of spaces count as one.

    Args:
        hypotheses: Strings, with spaces between tokens.
        references: Strings, one reference per hypothesis.

    Returns:
        A float from 0 to 100; lower is better.

    Raises:
        ValueError: If the lists differ in length, or hold no text or anything but strings.

    Example:

    >>> line_error_rate(["k æ t", "d ɒ g"], ["k æ t", "d ɔ g"])
    50.0
    """
    pairs = _tokens(hypotheses, references)
    return 100 * sum(hypothesis != reference for hypothesis, reference in pairs) / len(pairs)


def token_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns the wrong tokens per reference token, in percent, over the whole corpus.

    `100 * (sum of edit distances) / (sum of reference tokens)`. An edit inserts, deletes or
    replaces one token. This is the phoneme error rate of the SIGMORPHON grapheme-to-phoneme task
    and, if the tokens are words, the word error rate of speech recognition.

    Args:
        hypotheses, references: As in `line_error_rate`.

    Returns:
        A float from 0; lower is better. It can exceed 100 if hypotheses are too long.

    Raises:
        ValueError: If the lists differ in length, or hold no text or anything but strings.

    Example:

    >>> token_error_rate(["k æ t", "d ɒ g z"], ["k æ t", "d ɔ g"])  # one replaced, one inserted
    33.333333333333336
    """
    pairs = _tokens(hypotheses, references)
    edits = sum(edit_distance(hypothesis, reference) for hypothesis, reference in pairs)
    return 100 * edits / sum(len(reference) for _, reference in pairs)


def edit_distance(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Returns the least number of insertions, deletions and replacements between two lists.

    This is Levenshtein's distance. After i tokens of the hypothesis, `row[j]` is the distance
    between those and the first j tokens of the reference.
    """
    if hypothesis == reference:
        return 0
    row = list(range(len(reference) + 1))
    for i, token in enumerate(hypothesis, start=1):
        previous, row = row, [i]
        for j, other in enumerate(reference, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (token != other)))
    return row[-1]


def _tokens(hypotheses, references):
    hypotheses, references = checked(hypotheses, references)
    return [(h.split(), r.split()) for h, r in zip(hypotheses, references, strict=True)]
