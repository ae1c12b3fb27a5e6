"""From a trained model to text: search, sampling, scores, and the `Translator`.

`search` and `sampling` are pure functions of a step, `(ids, cache, index) -> (logits, cache)`.
`Translator` joins them to a tokenizer.
"""

from keras_transformer.decoding.next_token import IMPOSSIBLE, Sampling, SearchOptions
from keras_transformer.decoding.sampler import Sampler
from keras_transformer.decoding.sampling import choose, sample
from keras_transformer.decoding.search import (
    average_penalty,
    beam_search,
    gnmt_penalty,
    greedy_search,
)
from keras_transformer.decoding.structured import Structured, translate_structured
from keras_transformer.decoding.translator import Hypothesis, Translator

__all__ = [
    "IMPOSSIBLE",
    "Hypothesis",
    "Sampler",
    "Sampling",
    "SearchOptions",
    "Structured",
    "Translator",
    "average_penalty",
    "beam_search",
    "choose",
    "gnmt_penalty",
    "greedy_search",
    "sample",
    "translate_structured",
]
