"""Scores of translations against raw references: BLEU, chrF, error rates, significance.

```
bleu, chrf, evaluate                   one system: sacreBLEU's scores with their signatures
compound_split_bleu                    BLEU as the paper counted it
compare                                several systems: paired bootstrap resampling
line_error_rate, token_error_rate      sequences of symbols, such as phonemes
binomial_interval, mcnemar             shares of right answers, of one classifier and of two
```
"""

from keras_transformer.evaluation.accuracy import binomial_interval, mcnemar
from keras_transformer.evaluation.error_rate import line_error_rate, token_error_rate
from keras_transformer.evaluation.scores import Score, bleu, chrf, compound_split_bleu, evaluate
from keras_transformer.evaluation.significance import compare

__all__ = [
    "Score",
    "binomial_interval",
    "bleu",
    "chrf",
    "compare",
    "compound_split_bleu",
    "evaluate",
    "line_error_rate",
    "mcnemar",
    "token_error_rate",
]
