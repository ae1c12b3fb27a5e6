"""All certificates that apply to a model, in one call."""

import types

import keras
import numpy as np
from keras import ops

from keras_transformer.decoding import search
from keras_transformer.decoding.translator import Translator
from keras_transformer.models import Transformer
from keras_transformer.testing import caching, losses, masking, saving, searches, sequences, wiring


def random_inputs(vocabulary_size, rows=3, source_length=7, target_length=5, seed=0):
    """`{"source_ids": [B, S], "target_ids": [B, T]}` of random real ids; some rows end in padding.

    Example:

    ```python
    ids = kt.testing.random_inputs(vocabulary_size=100)
    ```
    """
    if vocabulary_size < 4:
        raise ValueError(
            f"Ids are changed into others, which takes a vocabulary of 4, got {vocabulary_size}."
        )
    random = np.random.default_rng(seed)
    inputs = {}
    for name, length in (("source_ids", source_length), ("target_ids", target_length)):
        ids = random.integers(1, vocabulary_size, (rows, length)).astype("int32")
        for row in range(1, rows):
            ids[row, max(length - 2 * row, 1) :] = 0
        inputs[name] = ids
    return inputs


def certify(model, vocabulary_size, *, loss_weights=None, jit=False):
    """Runs every certificate that applies to a sequence-to-sequence model, one line each.

    The wiring and the cache are certified if the model has `encode`, `start_cache` and `decode`;
    the loss if the model is compiled with a `keras.losses.Loss`; the search if the model is a
    `Transformer`.

    Args:
        model: a Keras model from `{"source_ids": [B, S], "target_ids": [B, T]}` to logits
            [B, T, V]; 0 is padding.
        vocabulary_size: ids below this are known to source and target.
        loss_weights: a function from labels [B, T] to the `sample_weight` that training gives the
            loss; not given, the loss is to ignore padding by itself.
        jit: whether outputs are computed under XLA as well, where the backend has it.

    Returns:
        The names of what was checked.

    Raises:
        AssertionError: with all certificates that failed.

    Example:

    ```python
    kt.testing.certify(model, vocabulary_size=tokenizer.vocabulary_size)
    ```
    """
    inputs = random_inputs(vocabulary_size)
    checks = {
        "causal": lambda: sequences.assert_causal(model, inputs, jit=jit),
        "causal in training": lambda: sequences.assert_causal(
            model, inputs, training=True, jit=jit
        ),
        "padding-invariant": lambda: masking.assert_padding_invariant(model, inputs, jit=jit),
        "finite when masked": lambda: masking.assert_finite_when_masked(model, inputs, jit=jit),
        "batch-invariant": lambda: sequences.assert_batch_invariant(model, inputs, jit=jit),
        "batch-invariant in training": lambda: sequences.assert_batch_invariant(
            model, inputs, training=True, jit=jit
        ),
        "source-sensitive": lambda: sequences.assert_source_sensitive(model, inputs, jit=jit),
        "saves and loads": lambda: saving.assert_saves_and_loads(model, inputs),
    }
    if all(hasattr(model, method) for method in caching.PROTOCOL):
        checks["wired by its own methods"] = lambda: wiring.assert_wired(model, inputs)
        checks["cached equals uncached"] = lambda: caching.assert_cached_equals_uncached(
            model, inputs, jit=jit
        )
    if isinstance(getattr(model, "loss", None), keras.losses.Loss):
        checks["loss ignores padding"] = lambda: losses.assert_ignores_padding(
            model.loss, weights=loss_weights
        )
    if isinstance(model, Transformer):
        checks["scores are final"] = lambda: _certify_search(
            searches.assert_scores_are_final, model, inputs, vocabulary_size
        )
        checks["beam keeps greedy"] = lambda: _certify_search(
            searches.assert_beam_keeps_greedy, model, inputs, vocabulary_size, beam_size=3
        )

    failures = []
    for name, check in checks.items():
        try:
            check()
        except AssertionError as error:
            failures.append(f"{name}: {error}")
            print(f"FAILED  {name}")
        else:
            print(f"ok      {name}")
    if failures:
        raise AssertionError("\n\n".join(failures))
    return list(checks)


def _certify_search(certificate, model, inputs, vocabulary_size, **options):
    """A certificate of the translator's own search, to a few tokens beyond the source."""
    ids = {"pad_id": 0, "start_id": 1, "end_id": 2}
    tokenizer = types.SimpleNamespace(vocabulary_size=vocabulary_size, **ids)
    translator = Translator(model, tokenizer)
    translator.EXTRA_LENGTH = 3
    penalty = search.gnmt_penalty(0.6)

    def beam_of_3(source_ids):
        limits = np.full(len(source_ids), source_ids.shape[1] + 3, "int32")
        arrays = ops.convert_to_tensor(source_ids), ops.convert_to_tensor(limits)
        length = source_ids.shape[1] + 3
        return translator.search_ids(*arrays, length, 3, 3, 0.6)[:2]  # on ids alone

    certificate(beam_of_3, model, inputs["source_ids"], **ids, penalty=penalty, **options)
