"""The bundled Korean-English corpus: a small grammar that writes its own sentences.

```python
splits = corpus.generate(seed=1)
splits["train"]         # pairs such as ("저는 책을 읽어요.", "I read a book.")
splits["objects"]       # a test: a verb with an object that training never had; see `TESTS`
```

Read it in this order: `hangul` (syllables and particles), `conjugation` (verbs and adjectives at
four speech levels), `english`, `lexicon` (the words and what goes with what), `meaning`,
`in_korean` and `in_english`, `clauses`, `joined` and `drawing` (random meanings), `splits`.

`python -m keras_transformer.datasets.korean_english --words` lists the words, `--sample 20` shows
20 sentences.
"""

from keras_transformer.datasets.korean_english.splits import (
    POLITE_PROBES,
    PROBES,
    SIZE,
    TEST_SIZE,
    TESTS,
    generate,
    words,
)

__all__ = ["POLITE_PROBES", "PROBES", "SIZE", "TESTS", "TEST_SIZE", "generate", "words"]
