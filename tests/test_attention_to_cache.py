"""Laws of attention to the filled part of a cache: a whole softmax, and no block behind is read."""

import numpy as np
import pytest
from keras import ops

from keras_transformer.layers import MultiHeadAttention
from keras_transformer.ops import attention as attention_ops
from keras_transformer.ops import attention_to_cache as to_cache
from keras_transformer.ops import masks
from keras_transformer.ops.attention_to_cache import attend_to_cache
from keras_transformer.ops.compilation import compile_with_weights

B, H, K, V = 2, 3, 4, 5


def random_attention(new, slots, seed=0):
    random = np.random.default_rng(seed)
    shapes = (B, H, new, K), (B, H, K, slots), (B, H, slots, V)
    return [random.normal(size=shape).astype("float32") for shape in shapes]


def permitted(new, slots, index, random=False):
    """Returns a causal mask. With `random`, it also forbids random slots, but never the newest."""
    causal = np.arange(slots)[None] <= np.arange(new)[:, None] + index
    if not random:
        return causal
    some = np.random.default_rng(1).random((B, 1, new, slots)) < 0.5
    some[..., index : index + new] |= np.eye(new, dtype=bool)
    return causal & some


def expected(queries, keys, values, mask):
    scores = np.where(mask, queries.astype("float64") @ keys, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ values


# Fails if: the newest block is not read; a slot is read twice.
@pytest.mark.parametrize(("slots", "new"), [(6, 1), (16, 1), (29, 1), (29, 3), (48, 3)])
def test_it_is_attention_to_all_that_is_written(slots, new):
    attend = compile_with_weights(attend_to_cache)
    queries, keys, values = random_attention(new, slots)
    for index in range(slots - new + 1):
        mask = permitted(new, slots, index, random=True)
        found = attend(queries, keys, values, mask, np.array(index, "int32"))
        np.testing.assert_allclose(
            ops.convert_to_numpy(found), expected(queries, keys, values, mask), atol=2e-6
        )


# Fails if: sums are not scaled to the new highest score; no highest score is subtracted.
def test_high_scores_do_not_overflow():
    queries, keys, values = random_attention(1, 40)
    keys[..., ::7] *= 300.0
    mask = permitted(1, 40, 39)
    found = attend_to_cache(*map(ops.convert_to_tensor, (queries, keys, values, mask)), 39)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected(queries, keys, values, mask), atol=1e-4
    )


# Fails if: all blocks are read.
@pytest.mark.parametrize("index", [0, 7, 8, 15])
def test_blocks_behind_what_is_written_are_not_read(index):
    queries, keys, values = random_attention(1, 40)
    keys[..., 16:], values[:, :, 16:] = np.nan, np.nan
    mask = permitted(1, 40, index)
    found = attend_to_cache(*map(ops.convert_to_tensor, (queries, keys, values, mask)), index)
    assert np.isfinite(ops.convert_to_numpy(found)).all()


# Fails if: eager steps are computed in blocks.
def test_it_serves_a_compiled_step_on_a_processor_and_no_other(monkeypatch):
    queries, keys, _ = map(ops.convert_to_tensor, random_attention(1, 40))
    monkeypatch.setattr(to_cache, "runs_on_processor", lambda: True)
    assert to_cache.serves(queries, keys, ops.convert_to_tensor(3))
    assert not to_cache.serves(queries, keys, 3)  # an eager loop would be slow
    monkeypatch.setattr(to_cache, "runs_on_processor", lambda: False)
    assert not to_cache.serves(queries, keys, ops.convert_to_tensor(3))


# Fails if: blocks are used although dropout or the caller needs all weights.
@pytest.mark.parametrize("asked", [{"return_attention_weights": True}, {"training": True}])
def test_weights_and_dropout_need_all_of_them(asked, monkeypatch):
    monkeypatch.setattr(to_cache, "serves", lambda *shapes: True)
    monkeypatch.setattr(
        attention_ops, "attend_to_cache", lambda *arguments: pytest.fail("in blocks")
    )
    layer = MultiHeadAttention(num_heads=2, d_model=8, dropout=0.5)
    x = np.ones((1, 1, 8), "float32")
    layer(x)
    layer(x, cache=layer.start_cache(1, 12), index=ops.convert_to_tensor(0), **asked)


def test_masks_that_have_no_axis_of_heads_or_rows_serve():
    queries, keys, values = random_attention(1, 20)
    mask = masks.causal_mask(1, 20, 11)
    found = attend_to_cache(*map(ops.convert_to_tensor, (queries, keys, values)), mask, 11)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found),
        expected(queries, keys, values, permitted(1, 20, 11)),
        atol=2e-6,
    )
