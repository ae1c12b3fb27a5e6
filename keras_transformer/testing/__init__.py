"""Correctness certificates: laws of any Transformer, to test a model of your own.

Each takes a model, a layer, a loss or a search of any Keras code. If a law does not hold, it raises
an `AssertionError` that says what broke, where it broke first, and what usually causes it.

```python
ids = kt.testing.random_inputs(vocabulary_size=100)
kt.testing.assert_causal(model, ids, training=True)
```

`certify` runs all that apply to a model.
"""

from keras_transformer.testing.certificate import certify, random_inputs
from keras_transformer.testing.losses import assert_ignores_padding, assert_replicas_add_up
from keras_transformer.testing.masking import (
    assert_finite_when_masked,
    assert_honours_implicit_masks,
    assert_padding_invariant,
)
from keras_transformer.testing.saving import assert_quantizes, assert_saves_and_loads
from keras_transformer.testing.searches import assert_beam_keeps_greedy, assert_scores_are_final
from keras_transformer.testing.sequences import (
    assert_batch_invariant,
    assert_causal,
    assert_source_sensitive,
)
from keras_transformer.testing.wiring import assert_cached_equals_uncached, assert_wired

__all__ = [
    "assert_batch_invariant",
    "assert_beam_keeps_greedy",
    "assert_cached_equals_uncached",
    "assert_causal",
    "assert_finite_when_masked",
    "assert_honours_implicit_masks",
    "assert_ignores_padding",
    "assert_padding_invariant",
    "assert_quantizes",
    "assert_replicas_add_up",
    "assert_saves_and_loads",
    "assert_scores_are_final",
    "assert_source_sensitive",
    "assert_wired",
    "certify",
    "random_inputs",
]
