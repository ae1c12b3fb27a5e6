"""Scores of translations against raw references: BLEU, chrF, error rates, significance.

```
bleu, chrf, evaluate                   one system: sacreBLEU's scores with their signatures
compare                                several systems: paired bootstrap resampling
line_error_rate, token_error_rate      sequences of symbols, such as phonemes
```
"""

from keras_transformer.evaluation.error_rate import line_error_rate, token_error_rate
from keras_transformer.evaluation.scores import Score, bleu, chrf, evaluate
from keras_transformer.evaluation.significance import compare

__all__ = [
    "Score",
    "bleu",
    "chrf",
    "compare",
    "evaluate",
    "line_error_rate",
    "token_error_rate",
]
