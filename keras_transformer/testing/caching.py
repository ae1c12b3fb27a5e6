"""Decoding with a cache gives what the whole sequence gives."""

import numpy as np
from keras import ops, tree

from keras_transformer.ops.compilation import compile_with_weights
from keras_transformer.testing import running

PROTOCOL = ("encode", "start_cache", "decode")


def assert_cached_equals_uncached(
    model, inputs, *, chunk=1, rewinds=True, pad_id=0, jit=False, tolerance=None
):
    """Decoding step by step with a cache gives the logits of the whole target at once.

    ```
    memory, memory_mask = model.encode(source_ids)
    cache = model.start_cache(memory, length=L)
    logits, cache = model.decode(target_ids[:, t : t + 1], None, memory_mask, cache, t)
    logits == model({"source_ids": source_ids, "target_ids": target_ids})[:, t : t + 1]
    ```

    A model of one's own is certified through the same three methods: a cache is any nest of
    tensors, longer than the target here. The target is decoded twice, from a new cache and from one
    that is full of other tokens: what stands at and behind `index` must not be read.

    Args:
        model: a model with `encode`, `start_cache` and `decode` as above. `memory` is passed to
            `start_cache` alone.
        inputs: `{"source_ids": [B, S], "target_ids": [B, T]}`.
        chunk: how many tokens a step decodes; the last one may have fewer.
        rewinds: whether a used cache can start again at index 0; False for recurrent models, whose
            cache is a state.
        pad_id: the id of padding; its positions are not compared.
        jit: whether the step is compiled by XLA, where the backend has it, with the index as a
            tensor.
        tolerance: the largest difference that is none; by default what rounding in the model's
            compute dtype explains.

    Raises:
        AssertionError: with the first position that differs, and what usually causes it.

    Example:

    ```python
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7, 4, 9]])}
    kt.testing.assert_cached_equals_uncached(model, ids)
    ```
    """
    missing = [method for method in PROTOCOL if not hasattr(model, method)]
    if missing:
        raise ValueError(
            f"Cached decoding needs the methods {', '.join(PROTOCOL)}; {type(model).__name__} has "
            f"no {', '.join(missing)}. See assert_cached_equals_uncached for what they do."
        )
    _, arrays, expected = running.runner(model, inputs)
    target_ids = arrays["target_ids"]
    length = target_ids.shape[1]
    tolerance = running.rounding(model, expected) if tolerance is None else tolerance
    real = running.real_positions(arrays, "target_ids", expected, pad_id)

    memory, memory_mask = model.encode(ops.convert_to_tensor(arrays["source_ids"]))
    first = model.start_cache(memory, length + 2)

    def step(ids, index, *leaves):
        cache = tree.pack_sequence_as(first, leaves)
        logits, cache = model.decode(ids, None, memory_mask, cache, index)
        return [ops.cast(logits, "float32"), *tree.flatten(cache)]

    compiled = compile_with_weights(step, model) if jit else step

    def decode(ids, leaves):
        outputs = []
        for t in range(0, length, chunk):
            # A compiled step takes the index as a tensor, and so serves every position.
            index = np.array(t, "int32") if jit else t
            window = ids[:, t : t + chunk]
            logits, *leaves = compiled(
                window if jit else ops.convert_to_tensor(window), index, *leaves
            )
            outputs.append(ops.convert_to_numpy(logits))
        return np.concatenate(outputs, axis=1), leaves

    leaves = tree.flatten(first)
    logits, _ = decode(target_ids, leaves)
    what = "Cached decoding is not the uncached"
    running.require_same(
        logits,
        expected,
        tolerance,
        real,
        what=f"{what}: step by step the model gives other logits than for the whole target.",
        causes="at position 0: another mask or a source that the cache forgets, or positions of "
        "the cache that were never written and are attended to; later: an index that is not passed "
        "on (the position always 0), keys written to the wrong place, no mask behind the index",
    )
    if not rewinds:
        return
    _, used = decode(running.other_values(target_ids), leaves)
    again, _ = decode(target_ids, used)
    running.require_same(
        again,
        expected,
        tolerance,
        real,
        what=f"{what} once the cache has been used: what an earlier target left in it is read.",
        causes="no mask behind the index: positions that were not yet written are attended to; "
        "keys added to what stands in the cache and not written over it",
    )
