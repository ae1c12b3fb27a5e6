"""BLEU and chrF of translations against raw references, by sacreBLEU.

Scores are comparable only when text, tokenization and version agree, so each comes with sacreBLEU's
signature, and both sides are brought to Unicode NFC first: Korean typed in decomposed letters looks
the same on the screen and should score the same.
"""

import dataclasses

from keras_transformer.evaluation.error_rate import line_error_rate, token_error_rate
from keras_transformer.evaluation.lines import checked

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


def bleu(hypotheses, references, tokenize="13a", lowercase=False):
    """Corpus BLEU (Papineni et al., 2002), the score of the paper's Table 2.

    `BLEU = BP * exp(1/4 * sum_n log p_n)`, with `p_n` the share of the hypotheses' n-grams, n = 1
    to 4, that the references contain, and the brevity penalty
    `BP = min(1, exp(1 - reference tokens / hypothesis tokens))`.

    Args:
        hypotheses: List of strings, one translation per sentence.
        references: List of strings, one reference per hypothesis: raw text, as a reader sees it.
        tokenize: sacreBLEU's tokenizer for both sides. `"13a"` suits European languages,
            `"ko-mecab"` (needs the `ko` extra) or `"char"` Korean, and `"none"` text that is
            already tokenized.
        lowercase: Whether to ignore case.

    Returns:
        A `Score`.

    Raises:
        ValueError: The lists differ in length, hold no text or anything but strings, or the
            tokenizer is unknown or not installed.

    Example:

    >>> score = bleu(["A man rides a horse ."], ["A man rides a brown horse ."], tokenize="none")
    >>> print(f"{score.value:.1f}")
    51.2
    """
    hypotheses, references = checked(hypotheses, references)
    score, signature = _corpus_bleu(hypotheses, references, tokenize, lowercase)
    return Score(score.score, signature)


def chrf(hypotheses, references, word_order=0):
    """Corpus chrF (Popović, 2015), the F2-score of character n-grams, n = 1 to 6.

    It needs no tokenizer, which makes it the steadier score for Korean and other languages that
    build long words. chrF ignores spaces; chrF++ (`word_order=2`) sees wrong ones.

    Args:
        hypotheses: List of strings, one translation per sentence.
        references: List of strings, one raw reference per hypothesis.
        word_order: Longest word n-gram that counts as well; 2 gives chrF++.

    Returns:
        A `Score`.

    Raises:
        ValueError: The lists differ in length, or hold no text or anything but strings.

    Example:

    >>> round(chrf(["말이 달린다."], ["말이 달린다."]).value)
    100
    """
    hypotheses, references = checked(hypotheses, references)
    metric = chrf_metric(word_order)
    score = metric.corpus_score(hypotheses, [references])
    return Score(score.score, str(metric.get_signature()))


def evaluate(hypotheses, references, tokenize="13a", lowercase=False, error_rates=False):
    """All scores of one system on one test set, as a dictionary that makes one line of JSON.

    Korean: `tokenize="ko-mecab"` counts morphemes and, like chrF, hardly sees a wrong space; chrF++
    and `exact_match` do.

    Args:
        hypotheses: List of strings, one translation per sentence.
        references: List of strings, one raw reference per hypothesis.
        tokenize: sacreBLEU's tokenizer for BLEU, as in `bleu`.
        lowercase: Whether to ignore case in BLEU.
        error_rates: Whether to add `line_error_rate` and `token_error_rate`, in percent.

    Returns:
        A dictionary of strings and of plain numbers, rounded to 4 decimals: `bleu`, `chrf` and
        `chrf++` (0 to 100) with `bleu_signature`, `chrf_signature` and `chrf++_signature`;
        `exact_match`, the share of hypotheses (0 to 1) equal to their reference but for spaces at
        the edges; `length_ratio`, hypothesis tokens / reference tokens under `tokenize`; and
        `sentences`, their number.

    Raises:
        ValueError: As `bleu`.

    Example:

    >>> evaluate(["a b c d e"], ["a b c d e"])["exact_match"]
    1.0
    """
    hypotheses, references = checked(hypotheses, references)
    bleu_score, bleu_signature = _corpus_bleu(hypotheses, references, tokenize, lowercase)
    chrf_score = chrf(hypotheses, references)
    chrf_plus_plus = chrf(hypotheses, references, word_order=2)
    matches = sum(h.strip() == r.strip() for h, r in zip(hypotheses, references, strict=True))
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
    if error_rates:
        scores["line_error_rate"] = round(line_error_rate(hypotheses, references), 4)
        scores["token_error_rate"] = round(token_error_rate(hypotheses, references), 4)
    return scores


def chrf_metric(word_order=0):
    """sacreBLEU's own chrF object."""
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=word_order)


def bleu_metric(tokenize, lowercase=False):
    """sacreBLEU's own BLEU object; a `ValueError` for a tokenizer that is not there."""
    from sacrebleu.metrics import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        known = ", ".join(sorted(BLEU.TOKENIZERS))
        raise ValueError(f"Unknown tokenizer {tokenize!r} for BLEU: expected one of {known}.")
    try:
        # "none" says that the text is tokenized already: `force` stops the warning that it is.
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
            f"Tokenizer {tokenize!r} needs a model that sacreBLEU could not download ({error}): "
            f"try again with a network connection, or choose another tokenizer."
        ) from error


def _corpus_bleu(hypotheses, references, tokenize, lowercase=False):
    """sacreBLEU's own score object and the signature of checked lists."""
    metric = bleu_metric(tokenize, lowercase)
    score = metric.corpus_score(hypotheses, [references])
    return score, str(metric.get_signature())
