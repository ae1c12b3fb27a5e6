"""Lowers functions for TPUs, which needs no TPU. The compiler rejects unsupported operations."""

import types

import keras
import numpy as np
import pytest

from keras_transformer import models
from keras_transformer.decoding.translator import Translator
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.metrics import NatsPerToken, TokenAccuracy
from keras_transformer.optimizers import PaperAdam

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="Keras reaches TPUs through JAX"
)

V, ROWS, SOURCE, TARGET = 23, 3, 7, 5


def transformer(**options):
    return models.Transformer(
        V, num_layers=2, d_model=12, num_heads=2, d_ff=17, dropout=0.1, **options
    )


def lower_for_tpu(function, *arguments):
    """Exports `function` for TPUs at the shapes of `arguments`; returns its output's shapes."""
    import jax
    import jax.export

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    exported = jax.export.export(jax.jit(function), platforms=["tpu"])(*shapes)
    assert exported.platforms == ("tpu",)
    assert exported.mlir_module_serialized
    return jax.tree.unflatten(exported.out_tree, [x.shape for x in exported.out_avals])


def values(variables):
    return [variable.value for variable in variables]


@pytest.mark.parametrize(("dtype", "accumulate"), [("float32", None), ("mixed_bfloat16", 3)])
def test_the_training_step(dtype, accumulate):
    model = transformer(dtype=keras.DTypePolicy(dtype), attention_dropout=0.1)
    optimizer = PaperAdam(
        12, 5, global_clipnorm=1.0, use_ema=True, gradient_accumulation_steps=accumulate
    )
    metrics = [NatsPerToken(), TokenAccuracy()]
    model.compile(optimizer, loss=SmoothedCrossentropy(0.1), weighted_metrics=metrics)
    inputs = {
        "source_ids": np.ones((ROWS, SOURCE), "int32"),
        "target_ids": np.ones((ROWS, TARGET), "int32"),
    }
    labels, weights = np.ones((ROWS, TARGET), "int32"), np.ones((ROWS, TARGET), "float32")
    # Builds optimizer, loss and metrics, as `fit` does before its first step.
    model._symbolic_build(data_batch=(inputs, labels, weights))
    state = tuple(
        values(variables)
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
            model.metrics_variables,
        )
    )
    logs, new_state = lower_for_tpu(model.train_step, state, (inputs, labels, weights))
    assert set(logs) == {"loss", "nats_per_token", "token_accuracy"}
    assert [[v.shape for v in part] for part in state] == [list(part) for part in new_state]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_cached_search(beam_size):
    model = transformer()
    tokenizer = types.SimpleNamespace(
        vocabulary_size=V, pad_id=0, unknown_id=1, start_id=2, end_id=3
    )
    translator = Translator(model, tokenizer)

    def search(weights, source_ids, max_lengths):
        mapping = list(zip(model.variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            length = SOURCE + Translator.EXTRA_LENGTH
            return translator.search_ids(source_ids, max_lengths, length, 1, beam_size, 0.6)[:2]

    source_ids, max_lengths = np.ones((ROWS, SOURCE), "int32"), np.ones((ROWS,), "int32")
    ids, scores = lower_for_tpu(search, values(model.variables), source_ids, max_lengths)
    assert ids == (ROWS, beam_size, SOURCE + Translator.EXTRA_LENGTH)
    assert scores == (ROWS, beam_size)


def test_what_a_tpu_cannot_do_is_found():
    """Tests the check itself, with an operation that exists only for CPUs."""
    import jax

    def eigenvalues(x):
        return jax.numpy.linalg.eigvals(x)

    with pytest.raises(NotImplementedError, match="tpu|TPU|CPU"):
        lower_for_tpu(eigenvalues, np.eye(3, dtype="float32"))
