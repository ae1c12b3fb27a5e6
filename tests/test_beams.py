"""Laws of beams that share a cache: a hypothesis attends to its own past, in any slot."""

import numpy as np
import pytest
from keras import ops

from keras_transformer.models import Transformer
from keras_transformer.ops import beams

B, N, T, V = 3, 4, 5, 31
SIZES = {"vocabulary_size": V, "num_layers": 2, "d_model": 16, "num_heads": 2, "d_ff": 32}
SOURCE = np.array([[7, 8, 9, 3, 0], [5, 3, 0, 0, 0], [11, 12, 13, 14, 3]])


def array(tensor):
    return ops.convert_to_numpy(tensor)


def random_search(model, random, sources, steps):
    """Decodes random tokens with random choices of beams; returns the cache and the targets."""
    memory, mask = model.encode(ops.convert_to_tensor(sources))
    cache = {**model.start_cache(memory, T, N), "memory_mask": mask}
    targets = np.zeros((len(sources) * N, 0), int)
    for t in range(steps):
        new = random.integers(1, V, len(targets))
        targets = np.concatenate([targets, new[:, None]], axis=1)
        logits, grown = model.decode(new[:, None], None, mask, cache, t)
        cache = {**grown, "memory_mask": mask}
        check(model, sources, targets, logits)
        chosen = random.integers(0, N, (len(sources), N)) + np.arange(len(sources))[:, None] * N
        cache = beams.of_sequences(cache, ops.convert_to_tensor(chosen.reshape(-1)))
        targets = targets[chosen.reshape(-1)]
    return cache, targets


def check(model, sources, targets, logits):
    """Checks that the newest logits equal those of the whole targets at once."""
    newest = targets.shape[1] - 1
    whole = np.pad(targets, ((0, 0), (0, T - targets.shape[1])))
    inputs = {"source_ids": np.repeat(sources, N, axis=0), "target_ids": whole}
    expected = array(model(inputs))[:, newest]
    np.testing.assert_allclose(array(logits)[:, 0], expected, atol=3e-5)


# Fails if: a hypothesis attends to all beams; a beam does not note its own slot; the beams do not
# move.
def test_a_hypothesis_that_goes_on_in_another_place_keeps_its_past():
    model = Transformer(**SIZES)
    cache, _ = random_search(model, np.random.default_rng(0), SOURCE, T)
    assert len(np.unique(array(cache["origins"])[..., : T - 1], axis=1)) > 1  # the beams moved


# Fails if: sources are chosen without their beams or without their mask.
@pytest.mark.parametrize("kept", [[2, 0], [1]])
def test_sources_that_are_left_keep_their_beams(kept):
    model, random = Transformer(**SIZES), np.random.default_rng(1)
    cache, targets = random_search(model, random, SOURCE, T - 2)
    cache = beams.of_sources(cache, ops.convert_to_tensor(kept), N)
    targets = targets.reshape(B, N, -1)[kept].reshape(len(kept) * N, -1)
    for t in range(T - 2, T):
        new = random.integers(1, V, len(targets))
        targets = np.concatenate([targets, new[:, None]], axis=1)
        logits, grown = model.decode(new[:, None], None, cache["memory_mask"], cache, t)
        cache = {**cache, **grown}
        check(model, SOURCE[kept], targets, logits)


def test_the_weights_of_a_hypothesis_are_over_its_own_past():
    model = Transformer(**SIZES)
    cache, targets = random_search(model, np.random.default_rng(2), SOURCE, T - 1)
    new = np.full((B * N, 1), 6)
    targets = np.concatenate([targets, new], axis=1)
    x = model.target_embedding(ops.convert_to_tensor(new), index=T - 1)
    mask = cache["memory_mask"]
    _, own, cross, _ = model.decoder(
        x, memory_mask=mask, cache=cache, index=T - 1, return_attention_weights=True
    )
    expected = model.attention_weights(np.repeat(SOURCE, N, axis=0), targets)
    for i in range(SIZES["num_layers"]):
        np.testing.assert_allclose(array(own[i]), expected["decoder"][i][:, :, -1:], atol=1e-5)
        np.testing.assert_allclose(array(cross[i]), expected["cross"][i][:, :, -1:], atol=1e-5)


# Fails if: positions and beams are swapped.
def test_several_new_positions_of_all_beams_are_put_together_and_taken_apart():
    x = np.arange(B * N * 2 * 5).reshape(B * N, 2, 5)
    both = array(beams.together(ops.convert_to_tensor(x), N))
    for b in range(B):
        for t in range(2):
            np.testing.assert_array_equal(both[b, t * N : (t + 1) * N], x[b * N : (b + 1) * N, t])
    np.testing.assert_array_equal(array(beams.apart(ops.convert_to_tensor(both), N)), x)


def test_a_cache_without_origins_is_copied():
    cache = {"self": [ops.arange(6) * 10], "cross": [ops.arange(3)], "memory_mask": ops.eye(3)}
    moved = beams.of_sequences(cache, ops.convert_to_tensor([1, 1, 2, 3, 5, 4]))
    np.testing.assert_array_equal(array(moved["self"][0]), [10, 10, 20, 30, 50, 40])
    np.testing.assert_array_equal(array(moved["cross"][0]), [0, 1, 2])
    left = beams.of_sources(cache, ops.convert_to_tensor([2, 0]), 2)
    np.testing.assert_array_equal(array(left["self"][0]), [40, 50, 0, 10])
    np.testing.assert_array_equal(array(left["cross"][0]), [2, 0])
    np.testing.assert_array_equal(array(left["memory_mask"]), np.eye(3)[[2, 0]])
