"""BLEU and chrF of translations against raw references, by sacreBLEU.

Scores are comparable only if text, tokenization and version agree, so each comes with sacreBLEU's
signature. Both sides are brought to Unicode NFC first: Korean in decomposed letters looks the same
on the screen and should score the same.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_transformer.evaluation.error_rate import line_error_rate, token_error_rate
from keras_transformer.evaluation.lines import checked_with_more

_EXTRAS = {"ko-mecab": "keras-transformer-kit[ko]", "ja-mecab": "sacrebleu[ja]"}


@dataclasses.dataclass(frozen=True)
class Score:
    """A corpus score.

    Attributes:
        value: Float from 0 to 100; higher is better.
        signature: sacreBLEU's signature, which states how the score was computed.
    """

    value: float
    signature: str


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenize: str = "13a",
    lowercase: bool = False,
    more_references: Sequence[Sequence[str]] = (),
) -> Score:
    """Returns corpus BLEU (Papineni et al., 2002), the score of the paper's Table 2.

    `BLEU = BP * exp(1/4 * sum_n log p_n)`, with `p_n` the share of the hypotheses' n-grams, n = 1
    to 4, that the references contain, and the brevity penalty
    `BP = min(1, exp(1 - reference tokens / hypothesis tokens))`.

    Args:
        hypotheses: Strings, one translation per sentence.
        references: Strings, one reference per hypothesis: raw text, as a reader sees it.
        tokenize: sacreBLEU's tokenizer for both sides. `"13a"` suits European languages,
            `"ko-mecab"` (needs the `ko` extra) or `"char"` Korean, and `"none"` text that has been
            tokenized already.
        lowercase: Whether to ignore case.
        more_references: Further sets of references, each with one per hypothesis. An n-gram counts
            if any reference of its sentence has it.

    Raises:
        ValueError: If the lists differ in length, hold no text or anything but strings, or the
            tokenizer is unknown or not installed.

    Example:

    >>> score = bleu(["A man rides a horse ."], ["A man rides a brown horse ."], tokenize="none")
    >>> print(f"{score.value:.1f}")
    51.2
    """
    hypotheses, sets = checked_with_more(hypotheses, references, more_references)
    score, signature = _corpus_bleu(hypotheses, sets, tokenize, lowercase)
    return Score(score.score, signature)


def chrf(
    hypotheses: Sequence[str],
    references: Sequence[str],
    word_order: int = 0,
    more_references: Sequence[Sequence[str]] = (),
) -> Score:
    """Returns corpus chrF (Popović, 2015), the F2-score of character n-grams, n = 1 to 6.

    It needs no tokenizer, so it is the steadier score for Korean and other languages with long
    words. chrF ignores spaces; chrF++ (`word_order=2`) also counts wrong ones.

    Args:
        hypotheses, references: As in `bleu`.
        word_order: The longest word n-gram that counts as well. 2 gives chrF++.
        more_references: As in `bleu`. The best reference of each sentence counts.

    Raises:
        ValueError: If the lists differ in length, or hold no text or anything but strings.

    Example:

    >>> round(chrf(["말이 달린다."], ["말이 달린다."]).value)
    100
    """
    hypotheses, sets = checked_with_more(hypotheses, references, more_references)
    metric = chrf_metric(word_order)
    score = metric.corpus_score(hypotheses, sets)
    return Score(score.score, str(metric.get_signature()))


def evaluate(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenize: str = "13a",
    lowercase: bool = False,
    error_rates: bool = False,
    more_references: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Returns all scores of a system on a test set, as a dictionary that makes one line of JSON.

    Korean: with `tokenize="ko-mecab"` BLEU counts morphemes. Like chrF it hardly sees a wrong
    space; chrF++ and `exact_match` do.

    Args:
        hypotheses, references, tokenize, lowercase, more_references: As in `bleu`.
        error_rates: Whether to add `line_error_rate` and `token_error_rate`, in percent. They are
            defined for one set of references.

    Returns:
        A dictionary of strings and plain numbers, rounded to 4 decimals: `bleu`, `chrf` and
        `chrf++` (0 to 100) with `bleu_signature`, `chrf_signature` and `chrf++_signature`;
        `exact_match`, the share of hypotheses (0 to 1) that equal a reference, spaces at the
        edges aside; `length_ratio`, hypothesis tokens / reference tokens under `tokenize`; and
        `sentences`, their number; and `references`, the number of sets, if there are several.

    Raises:
        ValueError: As in `bleu`, or if error rates are asked for with several sets of references.

    Example:

    >>> evaluate(["a b c d e"], ["a b c d e"])["exact_match"]
    1.0
    """
    if error_rates and more_references:
        raise ValueError(
            f"Error rates are defined for one set of references, got {1 + len(more_references)}: "
            "give one, or leave them out."
        )
    hypotheses, sets = checked_with_more(hypotheses, references, more_references)
    bleu_score, bleu_signature = _corpus_bleu(hypotheses, sets, tokenize, lowercase)
    chrf_score = chrf(hypotheses, sets[0], more_references=sets[1:])
    chrf_plus_plus = chrf(hypotheses, sets[0], word_order=2, more_references=sets[1:])
    rows = zip(hypotheses, *sets, strict=True)
    matches = sum(h.strip() in [each.strip() for each in right] for h, *right in rows)
    scores = {
        "bleu": round(bleu_score.score, 4),
        "bleu_signature": bleu_signature,
        "chrf": round(chrf_score.value, 4),
        "chrf_signature": chrf_score.signature,
        "chrf++": round(chrf_plus_plus.value, 4),
        "chrf++_signature": chrf_plus_plus.signature,
        "exact_match": round(matches / len(references), 4),
        "length_ratio": round(bleu_score.ratio, 4),
        "sentences": len(references),
    }
    if more_references:
        scores["references"] = len(sets)
    if error_rates:
        scores["line_error_rate"] = round(line_error_rate(hypotheses, references), 4)
        scores["token_error_rate"] = round(token_error_rate(hypotheses, references), 4)
    return scores


def chrf_metric(word_order: int = 0) -> Any:
    """Returns sacreBLEU's own chrF object."""
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=word_order)


def bleu_metric(tokenize: str, lowercase: bool = False) -> Any:
    """Returns sacreBLEU's own BLEU object.

    Raises:
        ValueError: If the tokenizer is unknown or not installed.
    """
    from sacrebleu.metrics import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        known = ", ".join(sorted(BLEU.TOKENIZERS))
        raise ValueError(f"Unknown tokenizer {tokenize!r} for BLEU: expected one of {known}.")
    try:
        # With "none" the text is tokenized already. `force` stops sacreBLEU's warning about that.
        return BLEU(tokenize=tokenize, lowercase=lowercase, force=tokenize == "none")
    except RuntimeError as error:
        if tokenize not in _EXTRAS:
            raise
        raise ValueError(
            f"Tokenizer {tokenize!r} needs a package that is not installed: "
            f"pip install {_EXTRAS[tokenize]}"
        ) from error
    except OSError as error:
        raise ValueError(
            f"Tokenizer {tokenize!r} needs a model that sacreBLEU could not download ({error}). "
            "Try again with a network connection, or choose another tokenizer."
        ) from error


def _corpus_bleu(hypotheses, sets, tokenize, lowercase=False):
    """sacreBLEU's own score object and the signature of checked lists."""
    metric = bleu_metric(tokenize, lowercase)
    score = metric.corpus_score(hypotheses, sets)
    return score, str(metric.get_signature())
