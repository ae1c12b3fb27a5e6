"""All certificates that apply to a model, in one call."""

import functools
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transformer.decoding import search
from keras_transformer.decoding.translator import Translator
from keras_transformer.models import Transformer
from keras_transformer.ops.compilation import compile_with_weights
from keras_transformer.testing import losses, masking, saving, searches, sequences, wiring


def random_inputs(
    vocabulary_size: int,
    rows: int = 3,
    source_length: int = 7,
    target_length: int = 5,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Returns `{"source_ids": [B, S], "target_ids": [B, T]}` of random ids; rows end in padding.

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


def certify(
    model: Any,
    vocabulary_size: int,
    *,
    loss_weights: Callable[[np.ndarray], Any] | None = None,
    jit: bool = False,
) -> list[str]:
    """Runs every certificate that applies to a sequence-to-sequence model, and prints a line each.

    The wiring and the cache are tested if the model has `encode`, `start_cache` and `decode`; the
    loss if the model is compiled with a `keras.losses.Loss`; the search if the model is a
    `Transformer`.

    Args:
        model: A Keras model from `{"source_ids": [B, S], "target_ids": [B, T]}` to logits
            [B, T, V]; 0 is padding.
        vocabulary_size: Source and target know the ids below this number.
        loss_weights: A function from labels [B, T] to the `sample_weight` that training gives the
            loss. Unless given, the loss must ignore padding by itself.
        jit: Whether outputs are computed under XLA as well, on backends that have it.

    Returns:
        The names of what was checked.

    Raises:
        AssertionError: If a certificate fails; with the messages of all that did.

    Example:

    ```python
    kt.testing.certify(model, vocabulary_size=tokenizer.vocabulary_size)
    ```
    """
    inputs = random_inputs(vocabulary_size)
    plain, training = {"jit": jit}, {"jit": jit, "training": True}
    certificates: dict[str, tuple[Callable, dict]] = {
        "causal": (sequences.assert_causal, plain),
        "causal in training": (sequences.assert_causal, training),
        "padding-invariant": (masking.assert_padding_invariant, plain),
        "finite when masked": (masking.assert_finite_when_masked, plain),
        "batch-invariant": (sequences.assert_batch_invariant, plain),
        "batch-invariant in training": (sequences.assert_batch_invariant, training),
        "source-sensitive": (sequences.assert_source_sensitive, plain),
        "saves and loads": (saving.assert_saves_and_loads, {}),
    }
    if all(hasattr(model, method) for method in wiring.PROTOCOL):
        certificates["wired by its own methods"] = wiring.assert_wired, {}
        certificates["cached equals uncached"] = wiring.assert_cached_equals_uncached, plain
    checks = {
        name: functools.partial(certificate, model, inputs, **options)
        for name, (certificate, options) in certificates.items()
    }
    if isinstance(getattr(model, "loss", None), keras.losses.Loss):
        checks["loss ignores padding"] = functools.partial(
            losses.assert_ignores_padding, model.loss, weights=loss_weights
        )
    if isinstance(model, Transformer):
        of_search = functools.partial(
            _certify_search, model, inputs["source_ids"], vocabulary_size, jit
        )
        checks["scores are final"] = functools.partial(of_search, searches.assert_scores_are_final)
        checks["beam keeps greedy"] = functools.partial(
            of_search, searches.assert_beam_keeps_greedy, beam_size=3
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


def _certify_search(model, source_ids, vocabulary_size, jit, certificate, **options):
    """Runs a certificate on the translator's own search, to a few tokens beyond the source."""
    ids = {"pad_id": 0, "start_id": 1, "end_id": 2}
    tokenizer = types.SimpleNamespace(vocabulary_size=vocabulary_size, **ids)
    translator = Translator(model, tokenizer)
    translator.EXTRA_LENGTH = 3

    def search_ids(source_ids, limits):
        length = source_ids.shape[1] + 3
        return translator.search_ids(source_ids, limits, length, 3, 3, 0.6)[:2]  # only on ids

    run = compile_with_weights(search_ids, model) if jit else search_ids

    def beam_of_3(source_ids):
        limits = np.full(len(source_ids), source_ids.shape[1] + 3, "int32")
        return run(ops.convert_to_tensor(source_ids), ops.convert_to_tensor(limits))

    penalty = search.gnmt_penalty(0.6)
    certificate(beam_of_3, model, source_ids, **ids, penalty=penalty, **options)
