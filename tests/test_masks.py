"""Compares masks with arrays that are written out. They are booleans; True means "may attend"."""

import numpy as np
import pytest
from keras import ops

from keras_transformer.layers import causal_mask, padding_mask
from keras_transformer.ops import masks


def array(mask):
    mask = ops.convert_to_numpy(mask)
    assert mask.dtype == bool
    return mask.astype(int)


def test_padding_mask_is_true_at_real_tokens():
    ids = np.array([[7, 4, 0, 0, 0], [2, 0, 3, 1, 0]])
    np.testing.assert_array_equal(array(padding_mask(ids)), [[1, 1, 0, 0, 0], [1, 0, 1, 1, 0]])
    np.testing.assert_array_equal(array(padding_mask(ids, pad_id=3))[1], [1, 1, 0, 1, 1])


def test_causal_mask_is_the_lower_triangle():
    np.testing.assert_array_equal(array(causal_mask(3)), [[1, 0, 0], [1, 1, 0], [1, 1, 1]])


def test_causal_mask_of_queries_that_start_late_among_more_keys():
    expected = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    np.testing.assert_array_equal(array(causal_mask(2, 5, index=2)), expected)
    index = ops.convert_to_tensor(2, "int32")
    np.testing.assert_array_equal(array(causal_mask(2, 5, index=index)), expected)


def test_combined_masks_permit_what_every_mask_permits():
    key_mask = np.array([[1, 1, 1], [1, 0, 1]], bool)
    pairs = np.array([[1, 1, 0], [0, 1, 1]], bool)
    combined = masks.combine_masks(key_mask, pairs, causal_mask(2, 3, index=1))
    np.testing.assert_array_equal(
        array(combined), [[[[1, 1, 0], [0, 1, 1]]], [[[1, 0, 0], [0, 0, 1]]]]
    )


def test_attention_masks_of_each_rank_line_up_with_the_scores():
    # With B=2, H=3, T=5, S=7 a mask on the wrong axis would not broadcast.
    pairs = np.random.default_rng(1).random((2, 3, 5, 7)) < 0.5
    for mask, expected in (
        (pairs, pairs),
        (pairs[:, 0], pairs[:, :1]),
        (pairs[0, 0], pairs[:1, :1]),
    ):
        combined = array(masks.combine_masks(attention_mask=mask))
        np.testing.assert_array_equal(
            np.broadcast_to(combined, pairs.shape), np.broadcast_to(expected, pairs.shape)
        )


def test_no_masks_make_no_mask():
    assert masks.combine_masks() is None


def test_bias_is_zero_where_permitted_and_absorbing_where_not():
    bias = ops.convert_to_numpy(masks.attention_bias(np.array([True, False])))
    assert bias.dtype == np.float32
    assert bias[0] == 0.0
    scores = np.array([-1e4, 1e4], "float32") + bias
    weights = ops.convert_to_numpy(ops.softmax(scores))
    np.testing.assert_array_equal(weights, [1.0, 0.0])
    assert np.isfinite(bias).all()


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_key_mask_of_another_rank_is_an_error(rank):
    with pytest.raises(ValueError, match=f"shape .batch, keys., got rank {rank}"):
        masks.combine_masks(key_mask=np.ones((2,) * rank, bool))


@pytest.mark.parametrize("rank", [1, 5])
def test_attention_mask_of_another_rank_is_an_error(rank):
    with pytest.raises(ValueError, match=f"got rank {rank}"):
        masks.combine_masks(attention_mask=np.ones((2,) * rank, bool))
