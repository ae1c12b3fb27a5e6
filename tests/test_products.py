"""Tests that products in parts equal plain products, on every backend."""

import numpy as np
import pytest
from keras import ops

from keras_transformer.ops import products

RANDOM = np.random.default_rng(7)


def random(*shape):
    return RANDOM.normal(size=shape).astype("float32")


# 514 does not divide into parts, and 7 x 11 is small.
# Fails if: one part of the sum counts for all parts.
@pytest.mark.parametrize("sizes", [(512, 300), (514, 300), (7, 11)])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("with_bias", [False, True])
def test_dense(rows, sizes, with_bias):
    x, kernel = random(rows, sizes[0]), random(*sizes)
    bias = random(sizes[1]) if with_bias else None
    found = products.dense(x, kernel, bias)
    expected = x @ kernel + (0 if bias is None else bias)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-4)


# Fails if: the parts come in another order.
@pytest.mark.parametrize("size", [52, 53])
@pytest.mark.parametrize("rows", [1, 3, 8, 9])
def test_logits(rows, size):
    x, embeddings = random(rows, 6), random(size, 6)
    found = products.logits(x, embeddings)
    np.testing.assert_allclose(ops.convert_to_numpy(found), x @ embeddings.T, rtol=1e-5, atol=1e-5)


# Rows and positions: some are few enough for a sum of products, others are not.
# Fails if: one row of a matrix counts for all rows.
@pytest.mark.parametrize("rows", [(1, 1), (1, 4), (2, 3), (3, 5)])
def test_batched(rows):
    batch, length = rows
    x, matrices = random(batch, 2, length, 7), random(batch, 2, 7, 11)
    found = ops.convert_to_numpy(products.batched(ops.convert_to_tensor(x), matrices))
    np.testing.assert_allclose(found, x @ matrices, rtol=1e-5, atol=1e-5)
